"""What is damaged, and what reads it: each target is a sound input with the readers and commands that meet it in use."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import torch
import yaml

from tests.faults import mutate
from tests.registry.adapters import made_adapters
from tests.registry.formats.test_gguf import FLUX, gguf

Damage = Callable[[Random, bytes], bytes]
Seam = Callable[[], object]


@dataclass(frozen=True)
class Target:
    """A sound input, the file it is in, how it is damaged, and what reads it."""

    name: str
    file: Path
    original: bytes
    damage: Damage
    seams: tuple[Seam, ...]
    commands: tuple[Seam, ...] = ()  # slower: asked less often

    def sound(self) -> Target:
        """The same, undamaged."""
        return replace(self, damage=lambda _rng, data: data)


Builder = Callable[[Path], Iterator[Target]]
TARGETS: dict[str, Callable[[Path], contextlib.AbstractContextManager[Target]]] = {}


def target(name: str) -> Callable[[Builder], Builder]:
    """Add a builder: it makes the input in a folder and gives the Target."""

    def add(build: Builder) -> Builder:
        @contextlib.contextmanager
        def made(folder: Path) -> Iterator[Target]:
            folder.mkdir(parents=True, exist_ok=True)
            before = os.environ.get("LORALOOM_HOME")
            os.environ["LORALOOM_HOME"] = str(folder / "home")
            try:
                yield from build(folder)
            finally:
                os.environ.pop("LORALOOM_HOME") if before is None else os.environ.update(LORALOOM_HOME=before)

        TARGETS[name] = made
        return build

    return add


def command(*words: object, output: Path | None = None) -> Seam:
    """A command line of this process; what it wrote is removed."""

    def call() -> None:
        from loraloom.cli import run

        try:
            run([str(word) for word in words])
        finally:
            if output is not None:
                shutil.rmtree(output) if output.is_dir() else output.unlink(missing_ok=True)

    call.__name__ = " ".join(map(str, words[:2]))
    return call


def named(name: str, function: Callable[[], object]) -> Seam:
    function.__name__ = name  # for the report of a fault
    return function


# --- model files


@target("adapter")
def _adapter(folder: Path) -> Iterator[Target]:
    declared = json.dumps({"unet.r": 2, "unet.lora_alpha": 4, "unet.alpha_pattern": {"to_q": 2}, "unet.rank_pattern": {}})
    metadata: dict[str, Any] = {"lora_adapter_metadata": declared, "ss_network_args": "{}", "modelspec.title": "x"}
    file = made_adapters.lora(folder / "x.safetensors", spelling="diffusers", alpha=None, **metadata)
    yield from _adapter_target("adapter", folder, file)


@target("adapter in kohya's names")
def _kohya(folder: Path) -> Iterator[Target]:
    file = made_adapters.lora(folder / "x.safetensors", ss_tag_frequency=json.dumps({"10_x": {"ink": 10}}), ss_sd_model_name="x")
    yield from _adapter_target("adapter in kohya's names", folder, file)


@target("lycoris")
def _lycoris(folder: Path) -> Iterator[Target]:
    from tests.registry.merging.models import written

    name, conv = made_adapters.NAMES[made_adapters.QUERY][0], made_adapters.NAMES[made_adapters.CONV][0]
    values = {
        f"{name}.hada_w1_a": torch.ones(8, 2),
        f"{name}.hada_w1_b": torch.ones(2, 6),
        f"{name}.hada_w2_a": torch.ones(8, 2),
        f"{name}.hada_w2_b": torch.ones(2, 6),
        f"{name}.alpha": torch.tensor(1.0),
        f"{conv}.lokr_w1": torch.ones(2, 2),
        f"{conv}.lokr_w2_a": torch.ones(4, 2),
        f"{conv}.lokr_w2_b": torch.ones(2, 18),
    }
    file = written(folder / "x.safetensors", values, ss_network_module="lycoris.kohya")
    yield from _adapter_target("lycoris", folder, file)


@target("rotations and differences")
def _bent(folder: Path) -> Iterator[Target]:
    from tests.registry.merging.models import written

    name, conv, text = (made_adapters.NAMES[module][0] for module in (made_adapters.QUERY, made_adapters.CONV, made_adapters.TEXT))
    values = {
        f"{name}.oft_blocks": torch.ones(2, 4, 4),
        f"{name}.alpha": torch.tensor(1.0),
        f"{conv}.lora_down.weight": torch.ones(2, 4, 3, 3),
        f"{conv}.lora_up.weight": torch.ones(8, 2, 1, 1),
        f"{conv}.dora_scale": torch.ones(8, 1, 1, 1),
        f"{text}.diff": torch.ones(6, 5),
        f"{text}.diff_b": torch.ones(6),
    }
    yield from _adapter_target("rotations and differences", folder, written(folder / "x.safetensors", values))


def _adapter_target(name: str, folder: Path, file: Path) -> Iterator[Target]:
    """An adapter, with what reads it: each once by its function, with one store, and once as a command."""
    from registry.adapters.combine import plan_combine, run_combine
    from registry.adapters.factors import Keep
    from registry.adapters.fuse import plan_fuse, run_fuse
    from registry.adapters.inspect import diff_adapters, inspect_adapter
    from registry.adapters.reader import read_adapter
    from registry.converting.adapters import plan_adapter
    from registry.detect.inspect import inspect
    from registry.references import Weighted
    from registry.store import Store

    base, other, output = (
        made_adapters.checkpoint(folder / "base.safetensors"),
        made_adapters.lora(folder / "other.safetensors", 7),
        folder / "out.safetensors",
    )
    store, given = Store(), [Weighted(str(file)), Weighted(str(other), 0.5)]

    def resize() -> None:
        run_combine(plan_combine(given[:1], store, output, keep=Keep(rank=1), tool="resize"), store, register=False)

    def combine() -> None:
        run_combine(plan_combine(given, store, output), store, register=False)

    def fuse() -> None:
        run_fuse(plan_fuse(str(base), given[:1], store, output, coverage=0.1), store, register=False)

    def convert() -> None:
        plan_adapter(file, output, target="kohya", family="sd1", base=None, dtype=None)
        plan_adapter(file, output, target="diffusers", family=None, base=None, dtype="fp16")

    seams = (
        named("inspect", lambda: inspect(file)),
        named("inspect_adapter", lambda: inspect_adapter(read_adapter(file))),
        named("diff", lambda: diff_adapters(read_adapter(file), read_adapter(other))),
        removing(output, resize),
        removing(output, combine),
        removing(output, fuse),
        named("convert", convert),
    )
    commands = (
        command("registry", "show", file, "--json"),
        command("lora", "inspect", file),
        command("lora", "diff", file, other),
        command("lora", "resize", file, "--rank", 1, "--output", output, output=output),
        command("lora", "combine", file, other, "--output", output, output=output),
        command("lora", "fuse", base, "--adapter", file, "--coverage", 0.1, "--output", output, output=output),
        command("registry", "fits", file, base),
        command("registry", "convert", file, "--to", "kohya", "--family", "sd1", "--output", output, output=output),
    )
    yield Target(name, file, file.read_bytes(), mutate.safetensors, seams, commands)
    store.close()


def removing(output: Path, function: Callable[[], None]) -> Seam:
    """The function, and what it wrote removed."""

    def call() -> None:
        try:
            function()
        finally:
            output.unlink(missing_ok=True)

    return named(function.__name__, call)


@target("checkpoint")
def _checkpoint(folder: Path) -> Iterator[Target]:
    from registry.detect.inspect import inspect
    from registry.store import Store

    file, other = made_adapters.checkpoint(folder / "x.safetensors"), made_adapters.checkpoint(folder / "other.safetensors", 4)
    adapter, output, store = made_adapters.lora(folder / "lora.safetensors"), folder / "out.safetensors", Store()
    seams = (named("inspect", lambda: inspect(file)), removing(output, lambda: _merged([file, other], output, store)))
    commands = (
        command("registry", "show", file),
        command("registry", "fits", adapter, file),
        command("lora", "fuse", file, "--adapter", adapter, "--output", output, output=output),
        command("lora", "extract", file, other, "--rank", 2, "--output", output, output=output),
        command("registry", "convert", file, "--to", "safetensors", "--dtype", "fp16", "--output", output, output=output),
        command("registry", "convert", file, "--to", "folder", "--family", "sd1", "--output", folder / "out", output=folder / "out"),
    )
    yield Target("checkpoint", file, file.read_bytes(), mutate.safetensors, seams, commands)
    store.close()


def _merged(sources: list[Path], output: Path, store: Any) -> None:
    from registry.merging.job import run_plan
    from registry.merging.plan import plan_merge
    from registry.progress import silent
    from tests.registry.merging.models import recipe

    run_plan(plan_merge(recipe(*sources), store, output), store, report=silent, register=False)


@target("gguf")
def _gguf(folder: Path) -> Iterator[Target]:
    from registry.detect.inspect import inspect

    file = folder / "x.gguf"
    commands = (command("registry", "show", file), command("registry", "scan", folder, "--json"))
    yield Target("gguf", file, gguf(FLUX), mutate.damaged_bytes, (named("inspect", lambda: inspect(file)),), commands)


# --- beside the models


def _json(original: Any) -> tuple[bytes, Damage]:
    return json.dumps(original).encode(), lambda rng, data: mutate.json_text(rng, json.loads(data))


def _yaml(original: Any) -> tuple[bytes, Damage]:
    return yaml.safe_dump(original).encode(), lambda rng, data: mutate.yaml_text(rng, yaml.safe_load(data))


CIVITAI = {
    "modelId": 12, "name": "v1", "baseModel": "SD 1.5", "trainedWords": ["ink, paper", "hat"], "description": "<p>x</p>",
    "model": {"name": "Ink", "allowCommercialUse": ["None"], "allowDerivatives": False},
}  # fmt: skip
A1111 = {
    "description": "x",
    "sd version": "SDXL",
    "activation text": "ink, hat",
    "preferred weight": 0.8,
    "notes": "y",
    "negative text": "",
}


@target("civitai.info")
def _civitai(folder: Path) -> Iterator[Target]:
    yield from _sidecar(folder, "civitai.info", CIVITAI)


@target("a1111.json")
def _a1111(folder: Path) -> Iterator[Target]:
    yield from _sidecar(folder, "json", A1111)


def _sidecar(folder: Path, ending: str, value: Any) -> Iterator[Target]:
    model = made_adapters.lora(folder / "x.safetensors")
    from registry.detect.inspect import inspect

    commands = (
        command("registry", "show", model, "--json"),
        command("registry", "scan", folder, "--json"),
        command("registry", "add", model),
    )
    yield Target(ending, folder / f"x.{ending}", *_json(value), (named("inspect", lambda: inspect(model)),), commands)


@target("README.md")
def _card(folder: Path) -> Iterator[Target]:
    from tests.registry.made import diffusers_folder

    base = diffusers_folder(folder / "base", width=256)
    head, damage = _yaml({"license": "other", "license_name": "openrail", "tags": ["a"], "x": {"y": 1}})
    yield Target(
        "README.md",
        base / "README.md",
        b"---\n" + head + b"---\n",
        lambda rng, _: b"---\n" + damage(rng, head) + b"\n---\n",
        (command("registry", "show", base),),
    )


@target("adapter_config.json")
def _peft(folder: Path) -> Iterator[Target]:
    from tests.registry.merging.models import written

    name, output = "base_model.model.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q", folder / "out.safetensors"
    made_adapters.checkpoint(folder / "base.safetensors")
    weights = written(
        folder / "adapter_model.safetensors", {f"{name}.lora_A.weight": torch.ones(2, 6), f"{name}.lora_B.weight": torch.ones(8, 2)}
    )
    config = {
        "peft_type": "LORA", "r": 2, "lora_alpha": 4, "use_rslora": False, "alpha_pattern": {"to_q": 2}, "rank_pattern": {"to_q": 2},
        "base_model_name_or_path": "x", "target_modules": ["to_q"], "modules_to_save": None, "use_dora": False, "bias": "none",
    }  # fmt: skip
    seams = (
        command("registry", "show", weights),
        command("lora", "inspect", folder),
        command("lora", "resize", folder, "--rank", 1, "--output", output, output=output),
        command("lora", "fuse", folder / "base.safetensors", "--adapter", folder, "--output", output, output=output),
        command("registry", "convert", weights, "--to", "kohya", "--family", "sd1", "--output", output, output=output),
    )
    yield Target("adapter_config.json", folder / "adapter_config.json", *_json(config), seams)


def _of_a_base(folder: Path, name: str) -> Iterator[Target]:
    """A file of a diffusers folder, read by its plan: every component is built without its weights."""
    from registry.detect.inspect import inspect
    from registry.detect.loading import load_base
    from tests.tiny import tiny_sd1

    base = tiny_sd1(folder / "base")

    def load() -> None:
        load_base(inspect(base), dtype=torch.float32, device="meta")

    seams = (named("inspect", lambda: inspect(base)), named("load", load))
    yield Target(name, base / name, *_json(json.loads((base / name).read_bytes())), seams)


OF_A_BASE = (
    "model_index.json",
    "unet/config.json",
    "text_encoder/config.json",
    "scheduler/scheduler_config.json",
    "tokenizer/tokenizer_config.json",
)
for file_of_a_base in OF_A_BASE:
    target(file_of_a_base)(partial(_of_a_base, name=file_of_a_base))


# --- settings


@target("config.yaml")
def _run_config(folder: Path) -> Iterator[Target]:
    from train.config import TrainConfig, read_yaml, to_plain
    from train.run import resumed_config

    file = folder / "config.yaml"
    plain = {**to_plain(TrainConfig()), "name": "x"}
    seams = (
        named("read_yaml", lambda: read_yaml(file)),
        named("resumed_config", lambda: resumed_config(folder, {"steps": 5, "optim.lr": 1e-3})),
    )
    yield Target("config.yaml", file, *_yaml(plain), seams)


@target("recipe")
def _recipe(folder: Path) -> Iterator[Target]:
    from registry.merging.plan import plan_merge
    from registry.merging.recipe import read_recipe
    from registry.store import Store

    one, other = made_adapters.checkpoint(folder / "a.safetensors"), made_adapters.checkpoint(folder / "b.safetensors", 3)
    file = folder / "recipe.yaml"
    plain = {
        "method": "weighted_sum", "sources": [str(one), str(other)], "params": {"alpha": 0.1}, "dtype": "fp16",
        "missing": "first", "shard_mib": 10, "name": "m",
    }  # fmt: skip

    def plan() -> None:
        store = Store()
        try:
            plan_merge(read_recipe(file), store, folder / "out.safetensors")
        finally:
            store.close()

    yield Target("recipe", file, *_yaml(plain), (named("read_recipe", lambda: read_recipe(file)), named("plan_merge", plan)))


@target("preset")
def _preset(folder: Path) -> Iterator[Target]:
    file = folder / "conf" / "optim" / "mine.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    plain = {"name": "adamw", "lr": 1e-4, "betas": [0.9, 0.99], "params": {"momentum": 0.5}}
    yield Target(
        "preset", file, *_yaml(plain), (command("train", "--config-dir", folder / "conf", "optim=mine", "base=pocket", "--cfg", "job"),)
    )


# --- what jobs keep


@target("checkpoint state")
def _state(folder: Path) -> Iterator[Target]:
    from train.loop import checkpoint

    place = checkpoint.save(
        _made(folder / "run" / "checkpoints").parent,
        3,
        write_adapter=lambda path: made_adapters.lora(path),
        training={"optimizer": {}, "weights": ["a"], "random": {}},
        history={"heldout": [], "seconds": 1.0},
    )
    seams = (named("read", lambda: checkpoint.read(place)), named("newest", lambda: checkpoint.newest(folder / "run", lambda _: None)))
    yield Target("checkpoint state", place / checkpoint.STATE, *_json(json.loads((place / checkpoint.STATE).read_bytes())), seams)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _render() -> Any:
    from infer.draw.render import Render

    return Render(base="pocket", prompt="x", base_sha256="0" * 64, steps=3, guidance=2.0, guided=True, width=64, height=64, seed=1)


@target("cell")
def _cell(folder: Path) -> Iterator[Target]:
    from infer.grid.cells import CellStore

    cells, render = CellStore(folder / "cells"), _render()
    cells.put(render, b"png", seconds=1.0, forwards=3)
    file = next((folder / "cells").glob("*/*.json"))
    seams = (named("get", lambda: _cell_read(cells, render)), named("seconds", lambda: cells.seconds_a_forward(render)))
    yield Target("cell", file, *_json(json.loads(file.read_bytes())), seams)


def _cell_read(cells: Any, render: Any) -> None:
    from infer.grid.cells import CellError

    with contextlib.suppress(CellError):  # the cell is drawn again
        cells.get(render.key())


@target("image's Render")
def _image(folder: Path) -> Iterator[Target]:
    from PIL import Image

    from infer.output.infotext import ModelNames
    from infer.output.png import KEY, encode_png, read_png

    file = folder / "x.png"
    png = encode_png(Image.new("RGB", (16, 16)), _render(), ModelNames(base="pocket", adapters={}))

    def damage(rng: Random, data: bytes) -> bytes:
        if rng.random() < 0.2:
            return mutate.damaged_bytes(rng, data)
        return _relabelled(data, KEY, lambda text: mutate.json_text(rng, json.loads(text)))

    yield Target("image's Render", file, png, damage, (named("read_png", lambda: read_png(file)), command("reproduce", file)))


def _relabelled(png: bytes, key: str, change: Callable[[bytes], bytes]) -> bytes:
    """The PNG with another text in its chunk of this keyword."""
    from infer.output.png import SIGNATURE, _chunks, _packed

    start = key.encode() + b"\0\0\0\0\0"
    chunks = [(kind, start + change(data[len(start) :]) if data.startswith(start) else data) for kind, data in _chunks(png)]
    return SIGNATURE + b"".join(_packed(kind, data) for kind, data in chunks)


@target("index")
def _index(folder: Path) -> Iterator[Target]:
    from registry.store import Store

    store = Store(folder / "home")
    for number in range(12):
        store.add(
            made_adapters.lora(folder / "models" / f"{number}.safetensors", number * 10), name=f"n{number}", tags=["t"], notes="x" * 300
        )
    store.close()
    (file,) = (folder / "home").glob("*.sqlite*") if list((folder / "home").glob("*.sqlite")) else (next((folder / "home").glob("index*")),)
    seams = (
        command("registry", "list", "--json"),
        command("registry", "show", "n3"),
        command("registry", "find", "n"),
        command("registry", "scan", folder / "models"),
        command("registry", "rebuild"),
    )

    def damage(rng: Random, data: bytes) -> bytes:
        for beside in file.parent.glob(f"{file.name}-*"):
            beside.unlink()
        found = bytearray(data)
        for _ in range(rng.choice((1, 3, 10))):
            at, size = rng.randrange(len(found)), rng.choice((1, 4, 100, 4096))
            found[at : at + size] = rng.randbytes(len(found[at : at + size]))
        return bytes(found[: rng.randrange(len(found))] if rng.random() < 0.1 else found)

    yield Target("index", file, file.read_bytes(), damage, seams)


@target("notes")
def _notes(folder: Path) -> Iterator[Target]:
    from registry.store import Store

    store = Store(folder / "home")
    store.add(made_adapters.lora(folder / "x.safetensors"), name="ink", tags=["t"], notes="words", metadata={"a": 1})
    file = folder / "notes.json"
    file.write_text(json.dumps(store.export_notes()))
    store.close()
    yield Target(
        "notes",
        file,
        *_json(json.loads(file.read_bytes())),
        tuple(_read_after(command("registry", "import-notes", file, *switch)) for switch in ((), ("--replace",))),
    )


def _read_after(change: Seam) -> Seam:
    """A command that changes the index, and those that read all of it: what was accepted can be read again."""

    def call() -> None:
        try:
            change()
        finally:
            for words in (("list", "--json"), ("lineage", "ink"), ("export-notes",), ("gc",)):
                command("registry", *words)()

    return named(f"{change.__name__}, and what reads the index", call)


@target("metadata.jsonl")
def _metadata(folder: Path) -> Iterator[Target]:
    yield from _table(
        folder,
        "metadata.jsonl",
        b"".join(json.dumps({"file_name": f"{n:02d}.png", "text": f"a disc {n}"}).encode() + b"\n" for n in range(3)),
    )


@target("metadata.csv")
def _csv(folder: Path) -> Iterator[Target]:
    yield from _table(folder, "metadata.csv", b'file_name,text\n00.png,a disc\n01.png,two\n02.png,"three, four"\n')


def _table(folder: Path, name: str, rows: bytes) -> Iterator[Target]:
    from PIL import Image

    for number in range(3):
        Image.new("RGB", (40, 40), (number * 50, 0, 0)).save(_made(folder / "set") / f"{number:02d}.png")

    def damage(rng: Random, data: bytes) -> bytes:
        if name.endswith("csv") or rng.random() < 0.4:
            return mutate.damaged_bytes(rng, data)
        lines = data.splitlines()
        at = rng.randrange(len(lines))
        return b"\n".join([*lines[:at], mutate.json_text(rng, json.loads(lines[at])), *lines[at + 1 :]])

    yield Target(name, folder / "set" / name, rows, damage, (command("data", "lint", folder / "set"),))
