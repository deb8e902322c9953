"""The command that a page gives for a cell: read back by the real command line it is the same Render, under the same key."""

import shlex
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infer.draw.files import Adapter, ControlNet, Embedding, ImageFile
from infer.draw.render import SETTINGS, Render
from infer.grid.config import Axes, GridConfig
from infer.grid.job import plan
from infer.grid.layout import expand
from infer.hints.setting import Prepare
from infer.output.command import command_of, place
from loraloom.commands.grid import job
from loraloom.hydra.run import configure
from tests.infer.conftest import Shelf
from tests.infer.images import resolved, square
from tests.infer.output.opened import NASTY

HOSTILE = [
    NASTY,
    "null",
    "none",
    "true",
    "1e5",
    "",
    " ",
    "'quoted'",
    '"quoted"',
    "a 'b\" c\\",
    "\\",
    "${env:HOME} \\${x} $(rm -rf /) `ls` !! ~ * ?",
    "{a|b}, [c:d:0.5], (e:1.3) <lora:x:1> __y__",
    "a=b,c=[1,2]",
    "line one\nline two\ttab",
    "猫 é 🐈",
    "--help",
    "#x; echo",
    "@prompts.txt",
]


def shell_words(line: str) -> list[str]:
    """The words that bash makes of a line."""
    script = f"printf '%s\\0' {line}"
    return subprocess.run(["bash", "-c", script], check=True, capture_output=True).stdout.decode().split("\0")[:-1]


def read_back(command: str) -> GridConfig:
    """The settings that the command line of this shell line has."""
    program, name, *words = shell_words(command) if "$'" in command else shlex.split(command)
    assert (program, name) == ("loraloom", "grid")
    return configure(job(), *words)


def render_of(command: str) -> Render:
    faults: list[str] = []
    _layout, (cell,) = expand(read_back(command), None, faults.append)  # type: ignore[arg-type]  # no axis asks the store
    assert faults == []
    return cell.render


def without_hashes(render: Render) -> Render:
    """The Render as a person gave it."""
    bare: dict[str, Any] = {
        name: tuple(replace(one, sha256=None) for one in getattr(render, name)) for name in ("adapters", "always", "embeddings")
    }
    controls = tuple(
        replace(one, sha256=None, picture=replace(one.picture, path=place(one.picture.path), sha256=None)) for one in render.controls
    )
    images: dict[str, Any] = {
        name: None if (file := getattr(render, name)) is None else replace(file, path=place(file.path), sha256=None)
        for name in ("init", "mask")
    }
    return replace(render, **bare, **images, controls=controls)


def assert_same(render: Render) -> None:
    found, given = render_of(command_of(render)), without_hashes(render)
    names = [one.field for one in SETTINGS.values() if one.help and one.name not in ("upsample", "device")]
    assert {name: getattr(found, name) for name in names} == {name: getattr(given, name) for name in names}


@pytest.mark.slow
@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_prompts_and_names_come_back_letter_by_letter(text: str) -> None:
    name = text.strip() or "pocket"
    adapter = Adapter(reference=name, weight=0.3, sha256="b" * 64)
    edges = Prepare(name="edges", options=(("high", 180.0), ("low", 50.5)))
    control = ControlNet(reference=name, picture=ImageFile(path=name), scale=0.8, end=0.5, mode=2, prepare=edges)
    assert_same(
        resolved(
            prompt=text,
            negative=text,
            base=name,
            vae=name,
            adapters=(adapter, replace(adapter, reference=f"{name}2", start=0.25, text_weight=0.1)),
            always=(adapter,),
            embeddings=(Embedding(reference=name, token=name),),
            init=ImageFile(path=name),
            strength=0.7,
            controls=(control,),
        )
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"sampler": "dpmpp_2m", "schedule": "karras", "sigma_min": 0.1, "sigma_max": 1e-7},
        {"width": 96, "height": 48, "clip_skip": 1, "prompt_dialect": "a1111", "prompt_chunks": 3},
        {"precision": "bf16", "base_dtype": "int8", "compute": "int8", "vae_tiling": 512, "swap_blocks": 2, "paste": False, "fit": "crop"},
        {"guidance": 1 / 3, "rescale": 0.7, "eta": 1.0, "seed": 2**64 - 1, "prediction": "v_prediction"},
        {"adapters": (Adapter(reference="ink@step-120", weight=1 / 3), Adapter(reference="hat", weight=-1.0))},
        {"adapters": (Adapter(reference="NONE"),)},
        {"adapters": (Adapter(reference="ink", weight=0.5, blocks="OUT*=0,MID=0.5"),)},
        {"controls": (ControlNet(reference="canny", picture=ImageFile(path="a.png"), prepare=Prepare(name="edges")),)},
    ],
)
def test_every_kind_of_setting_comes_back(changes: dict[str, Any]) -> None:
    assert_same(resolved(**changes))


def test_what_a_terminal_would_act_on_is_escaped() -> None:
    line = command_of(resolved(prompt="a\x1b[201~\nrm -rf ~ 'x' \\ \u202e\x07é"))
    assert line.isprintable() and r"$'prompt=a\x1b[201~\x0arm -rf ~ \'x\' \\ \xe2\x80\xae\x07é'" in line
    assert_same(resolved(prompt="a\x1b[201~\nrm -rf ~ 'x' \\ \u202e\x07é"))
    assert command_of(resolved(prompt="a\0b")) == command_of(resolved(prompt="\udcff")) == ""


def test_a_plain_cell_reads_well() -> None:
    shown = command_of(resolved(prompt="a cat, in a hat", adapters=(Adapter(reference="ink", weight=0.6),), seed=3))
    assert shown == "loraloom grid base=pocket adapters=ink:0.6 'prompt=a cat, in a hat' seed=3 steps=20 guidance=4.0 size=64x64 device=cpu"


@pytest.mark.slow
def test_the_keys_of_a_grids_cells_come_back(shelf: Shelf) -> None:
    photo = shelf.work.parent / "a 'photo'.png"
    square((200, 10, 10)).save(photo)
    grids: list[dict[str, Any]] = [
        {"prompt": "a cat", "axes": Axes(adapter=["ink:0.5", "ink+words:0.3"], weight=[0.5], guidance=[1, 3])},
        {"axes": Axes(prompt=[NASTY], sampler=["euler", None], textweight=[0.2]), "adapters": "words"},
        {"prompt": "a {red|blue} thing", "wildcards": "true", "axes": Axes(upsample=["detailed"], seed="1-2")},
        {"prompt": "a (cat:1.2) <lora:ink:0.4>", "prompt_dialect": "a1111", "init": str(photo), "strength": 0.5},
        {"prompt": "a cat", "batch_size": 4, "axes": Axes(seed="1-2")},
    ]
    for given in grids:
        for cell in plan(GridConfig(base="tiny", size=64, steps=2, **given), shelf.store).cells:
            (alone,) = plan(read_back(command_of(cell.render)), shelf.store).cells
            assert alone.render.key() == cell.render.key(), command_of(cell.render)


def test_a_file_of_prompts_is_no_prompt(tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a dog\n")
    assert render_of(command_of(resolved(prompt=f"@{tmp_path}/prompts.txt"))).prompt == f"@{tmp_path}/prompts.txt"


@pytest.mark.slow
def test_a_command_draws_the_same_from_any_folder(shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, other = tmp_path / "one folder", tmp_path / "other"
    for folder in (here / "loras", other):
        folder.mkdir(parents=True)
    square((200, 10, 10)).save(here / "photo.png")
    square((10, 200, 10)).save(other / "photo.png")
    (here / "loras" / "mine.safetensors").write_bytes(Path(str(shelf.store.find("ink").path)).read_bytes())
    (here / "mine").symlink_to(str(shelf.store.find("tiny").path))  # a base, called as no registered model is
    (here / "ink").mkdir()  # a folder that is called as a registered adapter is
    config = GridConfig(
        base="mine", size=64, steps=2, prompt="a cat", init="photo.png", strength=0.5, axes=Axes(adapter=["loras/*.safetensors", "ink"])
    )
    monkeypatch.chdir(here)
    planned = plan(config, shelf.store)
    commands = [command_of(cell.render, planned.resolver.lasting) for cell in planned.cells]
    monkeypatch.chdir(other)
    assert [plan(read_back(line), shelf.store).cells[0].render.key() for line in commands] == [cell.render.key() for cell in planned.cells]
    assert "adapters=ink" in shlex.split(commands[1]) and f"init={here}/photo.png" in shlex.split(commands[0])
