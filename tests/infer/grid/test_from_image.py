"""A grid that starts from an image of another program: the same key as its settings by hand, and nothing dropped in silence."""

import contextlib
import json
import random
import shlex
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from infer.grid.config import Axes, GridConfig
from infer.grid.from_image import start_from
from infer.grid.job import plan, run
from loraloom.cli import main
from registry.errors import BadFile, Faults, LoomError
from tests.infer.conftest import Shelf
from tests.infer.metadata.images import GRAPH, comfy_png, flow_graph, graph, png
from tests.infer.metadata.test_programs import FOOOCUS, INVOKE, NOVELAI
from tests.tiny import tiny_adapter, tiny_flux1, tiny_sdxl

pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # of diffusers' schedulers under numpy 2


def a1111(shelf: Shelf, path: Path, *, prompt: str = "a (red:1.2) cat <lora:INK:0.6>", more: str = "") -> Path:
    """An image as A1111 would have saved it, with the hashes of this home's files."""
    base, ink = (shelf.store.hashed(shelf.store.find(name)).hashes for name in ("tiny", "ink"))
    pairs = f'Model hash: {str(base.sha256)[:10]}, Model: other name, Lora hashes: "INK: {str(ink.tensors_sha256)[:12]}"'
    text = f"{prompt}\nNegative prompt: blurry\nSteps: 2, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 4, Seed: 7, Size: 32x24"
    return png(path, parameters=f"{text}, {pairs}{more}")


BY_HAND: dict[str, Any] = {
    "base": "tiny",
    "prompt": "a (red:1.2) cat",
    "negative": "blurry",
    "prompt_dialect": "a1111",
    "steps": 2,
    "sampler": "dpmpp_2m",
    "schedule_type": "karras",
    "guidance": 4.0,
    "seed": 7,
    "size": "32x24",
    "adapters": "ink:0.6",
}


def keys(config: GridConfig, shelf: Shelf, given: list[str] | None = None) -> list[str]:
    return [cell.render.key() for cell in plan(config, shelf.store, given=given).cells]


@pytest.mark.slow
def test_an_image_of_a1111_is_drawn_as_by_hand(shelf: Shelf, tmp_path: Path) -> None:
    image = a1111(shelf, tmp_path / "a.png")
    assert keys(GridConfig(from_image=str(image)), shelf) == keys(GridConfig(**BY_HAND), shelf)
    plain = a1111(shelf, tmp_path / "b.png", prompt="a cat <lora:INK:0.6>")  # the mean of a weighted prompt is 0 in a model this small
    found = run(GridConfig(from_image=str(plain), out=str(tmp_path), axes=Axes(weight=[0, 1])), shelf.store)
    assert found.result["rendered"] == 2 and any("drew the noise of this seed on the GPU" in note for note in found.notes)


@pytest.mark.slow
def test_what_is_given_wins(shelf: Shelf, tmp_path: Path) -> None:
    image = str(a1111(shelf, tmp_path / "a.png"))
    by_hand = {**BY_HAND, "seed": 9, "guidance": 1.0}
    assert keys(GridConfig(from_image=image, seed=9, guidance=1.0), shelf) == keys(GridConfig(**by_hand), shelf)
    planned = plan(GridConfig(from_image=image, axes=Axes(adapter=["none", "hat"], seed=[1, 2])), shelf.store)
    assert len(planned.cells) == 4 and {cell.render.seed for cell in planned.cells} == {1, 2}
    assert any("LoRAs: INK" in note and "other adapters are given" in note for note in planned.notes)
    planned = plan(GridConfig(from_image=image, axes=Axes(sampler=["euler", "ddim"])), shelf.store)
    assert {cell.render.schedule for cell in planned.cells} == {None}
    assert any("schedule: Karras" in note for note in planned.notes)


@pytest.mark.slow
def test_the_command_of_a_plan_draws_the_same(shelf: Shelf, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = a1111(shelf, tmp_path / "a.png", prompt='it\'s "a" cat, ${x} \\(y\\) = <lora:INK:0.5:0.25>')
    assert main(["grid", f"from={image}", "axes.seed=[1,2]", "dry_run=true", "--json"]) == 0
    first = json.loads(capsys.readouterr().out)
    assert first["from"]["tool"] == "A1111" and first["from"]["models"][0]["by"] == "sha256"
    assert [one["by"] for one in first["from"]["models"] if one["what"] == "LoRA"] == ["kohya"]
    words = shlex.split(first["from"]["command"])
    assert words[:3] == ["cd", str(Path.cwd()), "&&"] and words[3:5] == ["loraloom", "grid"] and not any("from" in word for word in words)
    planned = plan(GridConfig(from_image=str(image), axes=Axes(seed=[1, 2])), shelf.store)
    out = tmp_path / "again"
    assert main([*words[4:], f"out={out}"]) == 0
    (lines,) = out.rglob("cells.jsonl")
    drawn = [json.loads(line)["key"] for line in lines.read_text().splitlines()]
    assert drawn == [cell.render.key() for cell in planned.cells]


def test_comfyui_files_are_found_by_name(shelf: Shelf, tmp_path: Path) -> None:
    small = graph(
        n3={"steps": 2},
        n4={"ckpt_name": "x\\Tiny.safetensors"},
        n5={"width": 32, "height": 32},
        n8={"vae": ["4", 2]},
        n21={"string_b": "x"},
        n11=None,
    )
    small["3"]["inputs"]["model"] = ["10", 0]
    image = comfy_png(tmp_path / "c.png", small)
    by_hand = {
        **BY_HAND,
        "prompt": "a cat, x",
        "prompt_dialect": "comfy",
        "guidance": 8.0,
        "seed": 77,
        "size": 32,
        "clip_skip": 1,
        "adapters": {"adapter": "ink", "weight": 0.7, "text_weight": 0.5},
    }
    assert keys(GridConfig(from_image=str(image)), shelf) == keys(GridConfig(**by_hand), shelf)


def test_every_model_that_is_not_here_is_named_at_once(shelf: Shelf, tmp_path: Path) -> None:
    text = (
        "a cat <lora:inc:1> <lora:hat:1>\nSteps: 2, Sampler: DPM++ SDE, CFG scale: 4, Seed: 1, Size: 32x32, Model hash: 0123456789,"
        ' Model: sd15, VAE: mse.pt, Lora hashes: "hat: 0123456789ab", TI hashes: "bad: 0123456789ab"'
    )
    with pytest.raises(Faults) as caught:
        plan(GridConfig(from_image=str(png(tmp_path / "a.png", parameters=text))), shelf.store)
    faults = "\n".join(caught.value.faults)
    for part in (
        "model sd15 [0123456789]: no checkpoint",
        "LoRA inc: no adapter",
        "VAE mse.pt",
        "embedding bad [0123456789ab]",
        "DPM++ SDE",
    ):
        assert part in faults
    assert "LoRA hat [0123456789ab]: the adapter of that name is another file" in faults and "registry add FILE" in faults
    given = {"base": "tiny", "vae": None, "adapters": "none", "embeddings": "none", "sampler": "euler"}
    planned = plan(GridConfig(from_image=str(tmp_path / "a.png"), **given), shelf.store, given=given)
    assert planned.cells[0].render.seed == 1


def test_two_files_of_one_name_are_refused(shelf: Shelf, tmp_path: Path) -> None:
    tiny_adapter(shelf.base, tmp_path / "INK.safetensors", seed=9)
    shelf.store.add(tmp_path / "INK.safetensors", name="other")
    with pytest.raises(Faults, match=r"LoRA ink\.safetensors: 2 adapters are called so: ink, other"):
        plan(GridConfig(from_image=str(comfy_png(tmp_path / "c.png", graph(n4={"ckpt_name": "tiny.safetensors"})))), shelf.store)


def test_what_is_not_taken_over_is_in_the_plan(shelf: Shelf, tmp_path: Path) -> None:
    more = ", Clip skip: 2, Denoising strength: 0.5, Hires upscale: 2, Hires upscaler: 4x-UltraSharp, Tiling: True"
    more += ', ControlNet 0: "Module: canny, Model: c [d14c016b], Weight: 1"'
    image = a1111(shelf, tmp_path / "a.png", more=more)
    planned = plan(GridConfig(from_image=str(image)), shelf.store)
    assert planned.cells[0].render.clip_skip == 1
    unread = {row["name"]: row for row in planned.to_json()["from"]["unread"]}
    assert unread.keys() == {"Tiling", "second pass", "ControlNet"}
    assert unread["ControlNet"]["value"].startswith("c [d14c016b] at 1") and "give controls=" in unread["ControlNet"]["why"]
    assert sum("Not taken over from a.png" in note for note in planned.notes) == 3
    assert "4x-UltraSharp" in unread["second pass"]["why"] and planned.cells[0].render.hires is None


@pytest.mark.slow
def test_a_second_pass_is_taken_over(shelf: Shelf, tmp_path: Path) -> None:
    more = ", Denoising strength: 0.5, Hires upscale: 2, Hires steps: 1, Hires upscaler: Latent (nearest-exact), Hires sampler: Euler a"
    image = str(a1111(shelf, tmp_path / "a.png", more=more + ", Hires schedule type: Karras"))
    hires = {"scale": 2, "steps": 1, "strength": 0.5, "upscaler": "latent_nearest_exact", "sampler": "euler_a", "schedule_type": "karras"}
    assert keys(GridConfig(from_image=image), shelf) == keys(GridConfig(**BY_HAND, hires=hires), shelf)
    assert keys(GridConfig(from_image=image, hires=None), shelf, given=["hires"]) == keys(GridConfig(**BY_HAND), shelf)


def test_an_image_that_is_redrawn_needs_its_image(shelf: Shelf, tmp_path: Path) -> None:
    image = a1111(shelf, tmp_path / "a.png", more=", Denoising strength: 0.5")
    assert "give init=FILE" in plan(GridConfig(from_image=str(image)), shelf.store).to_text()
    Image.new("RGB", (32, 24)).save(tmp_path / "photo.png")
    planned = plan(GridConfig(from_image=str(image), init=str(tmp_path / "photo.png")), shelf.store)
    assert planned.cells[0].render.strength == 0.5


@pytest.mark.slow
def test_our_own_image_is_drawn_as_it_was(shelf: Shelf, tmp_path: Path) -> None:
    given = {
        **BY_HAND,
        "prompt": "a cat",
        "always": "hat:0.3",
        "adapters": {"adapter": "ink", "weight": 0.7, "end": 0.5, "blocks": {"OUT*": 0.5}},
    }
    drawn = run(GridConfig(out=str(tmp_path), **given), shelf.store)
    (image,) = drawn.folder.glob("images/*.png")
    planned = plan(GridConfig(from_image=str(image)), shelf.store)
    assert (planned.distinct, planned.stored, planned.notes) == (1, 1, ())
    planned = plan(GridConfig(from_image=str(image), axes=Axes(seed=[7, 8])), shelf.store)
    assert (planned.distinct, planned.stored) == (2, 1)


@pytest.mark.slow
def test_an_axis_wins_over_what_was_drawn_here(shelf: Shelf, tmp_path: Path) -> None:
    photo, mask = tmp_path / "photo.png", tmp_path / "mask.png"
    Image.new("RGB", (32, 24)).save(photo)
    Image.new("L", (32, 24), 255).save(mask)
    given = {**BY_HAND, "prompt": "a cat", "init": str(photo), "mask": str(mask), "strength": 0.5}
    (image,) = run(GridConfig(out=str(tmp_path), **given), shelf.store).folder.glob("images/*.png")
    other = str(tmp_path / "other.png")
    Image.new("RGB", (32, 24), "white").save(other)
    for name, values in {"strength": [0.5, 1.0], "init": [str(photo), other], "mask": [str(mask), other]}.items():
        by_axis = {one: value for one, value in given.items() if one != name}
        axes = Axes(**{name: values})
        assert keys(GridConfig(from_image=str(image), axes=axes), shelf) == keys(GridConfig(axes=axes, **by_axis), shelf)


@pytest.mark.parametrize(
    ("tag", "why"),
    [
        ("<lora:INK:0.8:step=0-3>", "has step=0-3, which is not read here: LoRA Block Weight counts these steps otherwise"),
        ("<lora:INK:abc>", "has the weight 'abc'. Expected a number such as 0.8. Or give adapters="),
    ],
)
def test_a_lora_that_cannot_be_read_is_refused(tag: str, why: str, shelf: Shelf, tmp_path: Path) -> None:
    image = a1111(shelf, tmp_path / "a.png", prompt=f"a cat {tag}")
    with pytest.raises(Faults) as caught:
        plan(GridConfig(from_image=str(image)), shelf.store)
    (fault,) = caught.value.faults
    assert why in fault and fault.count(tag) == 1
    planned = plan(GridConfig(from_image=str(image), adapters="ink:0.8"), shelf.store)
    (note,) = (note for note in planned.notes if tag in note)
    assert note.count(tag) == 1 and not note.endswith(".).")


@pytest.mark.slow
def test_the_parts_of_the_steps_are_read_of_our_parameters(shelf: Shelf, tmp_path: Path) -> None:
    given = {**BY_HAND, "prompt": "a cat", "prompt_dialect": "a1111", "adapters": {"adapter": "ink", "weight": 0.7, "start": 0.5}}
    (image,) = run(GridConfig(out=str(tmp_path), **given), shelf.store).folder.glob("images/*.png")
    with Image.open(image) as opened:
        text = opened.info["parameters"]
    assert "Lora ranges" in text
    alone = png(tmp_path / "a.png", parameters=text)
    assert keys(GridConfig(from_image=str(alone)), shelf) == keys(GridConfig(**given), shelf)


def test_what_was_not_read_is_said_where_the_plan_is_refused(shelf: Shelf, tmp_path: Path) -> None:
    nodes = graph(n4={"ckpt_name": "tiny.safetensors"}, n6={"text": ["99", 0]})
    image = comfy_png(tmp_path / "c.png", nodes)
    with pytest.raises(Faults) as caught:
        plan(GridConfig(from_image=str(image), adapters="hat", vae=None), shelf.store, given=["adapters", "vae"])
    assert "No prompt is given" in caught.value.faults[0] and "c.png" in str(caught.value)
    assert any("Not taken over from c.png" in fault for fault in caught.value.faults[1:])
    assert any("says no prompt that can be read" in fault for fault in caught.value.faults[1:])
    with pytest.raises(Faults) as caught:
        plan(GridConfig(from_image=str(a1111(shelf, tmp_path / "a.png")), axes=Axes(strength=[0.5])), shelf.store)
    assert "GPU" not in str(caught.value)  # of a note that is no reason


def test_the_gpu_is_named_where_its_noise_was_asked_for(shelf: Shelf, tmp_path: Path) -> None:
    def notes(old: str, new: str) -> str:
        with Image.open(a1111(shelf, tmp_path / "a.png")) as opened:
            text = opened.info["parameters"].replace(old, new)
        return "\n".join(plan(GridConfig(from_image=str(png(tmp_path / "b.png", parameters=text))), shelf.store).notes)

    assert "noise of this seed on the GPU, and here" in notes("", "")
    assert "noise of this seed on the GPU (NV), and here" in notes("Seed: 7", "Seed: 7, RNG: NV")
    none = notes("Seed: 7", f"Seed: {'9' * 30}")
    assert "GPU" not in none and "says no seed that can be read" in none and "(it has more than 20 digits)" in none


def test_a_path_that_is_no_image_says_what_is_expected(shelf: Shelf, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for given, why in (("", "from= is empty"), (str(tmp_path), "is a folder")):
        assert main(["grid", f"from={given}", "dry_run=true"]) == 2
        error = capsys.readouterr().err
        assert why in error and "Expected the path of one image" in error


def test_what_says_nothing_is_one_error(shelf: Shelf, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BadFile):
        plan(GridConfig(from_image=str(png(tmp_path / "a.png"))), shelf.store)
    for name in ("a.png", "none.png", "."):
        assert main(["grid", f"from={tmp_path / name}", "dry_run=true"]) == 2
        assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_a_base_with_embedded_guidance(shelf: Shelf, tmp_path: Path) -> None:
    shelf.store.add(tiny_flux1(tmp_path / "flux"), name="flux1-dev")
    nodes = flow_graph() | {"21": {"class_type": "PrimitiveString", "inputs": {"value": "a (red:1.3) cat"}}}
    nodes["5"]["inputs"] |= {"width": 64, "height": 64}
    nodes["13"] = {"class_type": "VAELoader", "inputs": {}}  # the base's own VAE
    planned = plan(GridConfig(from_image=str(comfy_png(tmp_path / "a.png", nodes))), shelf.store)
    (cell,) = planned.cells
    render = cell.render
    assert (render.prompt, render.prompt_dialect, render.negative) == ("a red cat", "plain", None)
    assert (render.sampler, render.schedule, render.guidance, render.steps) == ("euler", None, 3.5, 4)
    assert any("a (red:1.3) cat" in note and "has no weights" in note for note in planned.notes)


def test_a1111_skips_no_layers_of_an_sdxl_base(shelf: Shelf, tmp_path: Path) -> None:
    shelf.store.add(tiny_sdxl(tmp_path / "xl"), name="xl")
    text = "a cat\nSteps: 2, Sampler: Euler a, CFG scale: 4, Seed: 1, Size: 64x64, Model: xl, Clip skip: "
    for layer, noted in ((2, False), (3, True)):  # the second one from the end is SDXL's own
        planned = plan(GridConfig(from_image=str(png(tmp_path / "a.png", parameters=f"{text}{layer}"))), shelf.store)
        assert planned.cells[0].render.clip_skip is None
        assert any(f"Clip skip: {layer} (it has no effect on" in note for note in planned.notes) == noted
    fooocus = {"base_model": "xl", "prompt": "a cat", "clip_skip": 3, "resolution": "(64, 64)", "steps": 2, "sampler": "euler", "seed": 1}
    image = png(tmp_path / "b.png", parameters=json.dumps(fooocus))
    config, start = start_from(GridConfig(from_image=str(image)), None, shelf.store)
    assert config.clip_skip == 1  # the third layer from the end, one before SDXL's own
    assert any("The image says no guidance that can be read" in note for note in start.notes())


WRONG: list[Any] = [None, True, -1, 1.5, 1e308, 10**25, "x", "", "nan", "\x1b[31m\u202e", [], [[]], {}, {"a": [1]}, ["4", 0], ["3", 1]]


def changed(value: Any, draw: random.Random) -> Any:
    """A JSON value with one of its parts replaced by one of another type, or taken away."""
    if not isinstance(value, dict | list) or not value or draw.random() < 0.1:
        return draw.choice(WRONG)
    key = draw.choice(list(value)) if isinstance(value, dict) else draw.randrange(len(value))
    made = value.copy()
    if draw.random() < 0.1:
        del made[key]
    else:
        made[key] = changed(value[key], draw)
    return made


@pytest.mark.slow
def test_garbled_metadata_ends_in_a_plan_or_one_error(shelf: Shelf, tmp_path: Path) -> None:
    """Whatever a stranger's image says: settings, or a refusal. (6,000 more were tried when this was written.)"""
    draw = random.Random(3)
    whole = {"prompt": GRAPH, "parameters": FOOOCUS, "invokeai_metadata": INVOKE, "Comment": NOVELAI}
    given: dict[str, Any] = {"base": "tiny", "adapters": "none", "embeddings": "none", "vae": None}
    answered = 0
    for number in range(100):
        name = draw.choice(list(whole))
        value = changed(whole[name], draw)
        image = png(tmp_path / "a.png", **{name: json.dumps(value)})
        names = given if number % 2 else {**given, "sampler": "euler"}
        with contextlib.suppress(LoomError):
            config, start = start_from(GridConfig(from_image=str(image), **given), names, shelf.store)
            json.dumps([start.to_json(), start.lines(), start.notes(), config.prompt], allow_nan=False)
            answered += 1
    assert answered > 40
