"""Jobs that are killed at random moments and run again: what each must leave, and what the run after a kill must give.

Each case makes its inputs once, runs the job to its end for the right value, and gives a Case whose `once` kills it at a moment.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from tests.faults.jobs import Ended, call, killed, left_over, moments
from tests.registry.adapters import made_adapters


@dataclass(frozen=True)
class Case:
    """A job that can be killed: `once(moment)` gives what is wrong after a kill at that second and a run to the end; [] is right."""

    name: str
    seconds: float
    first: float  # share of the time before which there is nothing to lose: imports
    once: Callable[[float], list[str]]


CASES: dict[str, Callable[[Path], Any]] = {}


def case(build: Callable[[Path], Iterator[Case]]) -> Callable[[Path], Iterator[Case]]:
    CASES[build.__name__] = contextmanager(build)
    return build


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def tensors(path: Path) -> str:
    """The hash of a safetensors file's data alone."""
    data = path.read_bytes()
    return hashlib.sha256(data[8 + int.from_bytes(data[:8], "little") :]).hexdigest()


def index_faults(home: Path) -> list[str]:
    """What SQLite finds wrong with the index of a home."""
    found = []
    for file in home.glob("index*.sqlite"):
        with sqlite3.connect(file) as connection:
            found += [row[0] for row in connection.execute("PRAGMA integrity_check") if row[0] != "ok"]
    return [f"index: {fault}" for fault in found]


def ended_faults(ended: Ended, *, code: int = 0) -> list[str]:
    found = [f"prints {ended.printed[-300:]!r}"] if ended.faulty else []
    return found + ([f"ends with {ended.code}: {ended.printed[-300:]!r}"] if ended.code != code else [])


def large(path: Path, seed: int, mib: int = 48) -> Path:
    """A checkpoint that takes a moment to write."""
    import torch
    from safetensors.torch import load_file

    from tests.registry.merging.models import written

    values = {f"model.diffusion_model.input_blocks.{n}.0.w.weight": made_adapters.random(seed + n, 256, 1024) for n in range(mib)}
    first = made_adapters.checkpoint(path.with_name(f"small-{path.name}"), seed)
    return written(path, {**{name: value.float() for name, value in values.items()}, **load_file(first), "x": torch.zeros(4)})


def _file_job(name: str, folder: Path, words: Sequence[object], output: Path) -> Iterator[Case]:
    """A job that writes one file: after any kill it is whole or absent; the same command gives the same bytes and clears what the
    killed one left. (One that dies between giving the file its name and letting go of its lock leaves an empty lock file.)"""
    home = folder / "home"
    whole = call(home, *words, folder=folder)
    assert whole.code == 0, whole.printed
    right, size = tensors(output), output.stat().st_size

    def once(moment: float) -> list[str]:
        output.unlink(missing_ok=True)
        ended = killed(home, *words, folder=folder, after=moment)
        found = [f"killed: {ended.printed[-300:]!r}"] if ended.faulty else []
        if output.exists() and (output.stat().st_size != size or tensors(output) != right):
            found.append("a file that is not whole has the output's name")
        output.unlink(missing_ok=True)
        found += ended_faults(call(home, *words, folder=folder))
        if not output.exists() or tensors(output) != right:
            found.append("the run after it gives other bytes")
        found += [f"left over: {path.name}" for path in left_over(folder) if "home" not in path.parts]
        return found + index_faults(home)

    yield Case(name, whole.seconds, 0.3, once)


@case
def merge(folder: Path) -> Iterator[Case]:
    one, other, output = large(folder / "a.safetensors", 1), large(folder / "b.safetensors", 60), folder / "m.safetensors"
    words = ["merge", "method=weighted_sum", f"sources=[{one},{other}]", "params.alpha=0.3", f"output={output}"]
    yield from _file_job("merge", folder, words, output)


@case
def fuse(folder: Path) -> Iterator[Case]:
    base, output = large(folder / "a.safetensors", 1), folder / "f.safetensors"
    adapter = made_adapters.lora(folder / "lora.safetensors")
    yield from _file_job("fuse", folder, ["lora", "fuse", base, "--adapter", adapter, "--output", output], output)


@case
def convert(folder: Path) -> Iterator[Case]:
    base, output = large(folder / "a.safetensors", 1), folder / "c.safetensors"
    words = ["registry", "convert", base, "--to", "safetensors", "--dtype", "fp16", "--output", output]
    yield from _file_job("convert", folder, words, output)


def _in_a_new_home(folder: Path, words: Sequence[object], moment: float) -> tuple[Path, list[str]]:
    """(home, faults) of a job that is killed in a home without an index, and run again to its end."""
    home = folder / "killed"
    shutil.rmtree(home, ignore_errors=True)
    killed(home, *words, folder=folder, after=moment)
    found = index_faults(home) + ended_faults(call(home, *words, folder=folder))
    return home, found + index_faults(home)


@case
def scan(folder: Path) -> Iterator[Case]:
    """After a kill the index is sound, and the scan after it registers every file once."""
    models = folder / "models"
    models.mkdir()
    for number in range(60):
        made_adapters.lora(models / f"{number:02d}.safetensors", number * 10)
    words = ["registry", "scan", models, "--hash"]
    whole = call(folder / "home", *words, folder=folder)
    assert whole.code == 0, whole.printed

    def once(moment: float) -> list[str]:
        home, found = _in_a_new_home(folder, words, moment)
        listed = call(home, "registry", "list", "--json", folder=folder)
        names = sorted(record["name"] for record in json.loads(listed.printed) if record["kind"] == "adapter")
        if names != [f"{number:02d}" for number in range(60)]:
            found.append(f"{len(names)} records of 60 files")
        return found

    yield Case("scan", whole.seconds, 0.2, once)


@case
def add(folder: Path) -> Iterator[Case]:
    """A download over http that is killed is resumed or begun again, and the file that is registered has its hash."""
    from tests.registry.server import serving

    data = large(folder / "a.safetensors", 1, 16).read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    with serving() as server:
        server.files["/a.safetensors"] = data
        words = ["registry", "add", f"{server.url}/a.safetensors", "--sha256", digest, "--json"]
        whole = call(folder / "first", *words, folder=folder)
        assert whole.code == 0, whole.printed

        def once(moment: float) -> list[str]:
            home, found = _in_a_new_home(folder, words, moment)
            files = [path for path in home.rglob("*.safetensors") if path.is_file()]
            if [sha256(path) for path in files] != [digest]:
                found.append(f"{len(files)} files, not one with the hash")
            return found

        yield Case("add", whole.seconds, 0.3, once)


@case
def train(folder: Path) -> Iterator[Case]:
    """A run that is killed and resumed ends with the tensors of one that was not; checkpoints are written at every other step."""
    from tests import tiny

    base, images = tiny.tiny_sd1(folder / "base"), tiny.tiny_dataset(folder / "discs")
    settings = [
        f"base={base}", f"data.path={images}", "resolution=32", "steps=30", "batch_size=2", "lora.rank=2", "preview.prompts=[]",
        "device=cpu", "checkpoint.every=2", "name=discs",
    ]  # fmt: skip
    home = folder / "home"
    whole = call(home, "train", *settings, f"out={folder / 'straight'}", folder=folder)
    assert whole.code == 0, whole.printed
    right = tensors(next((folder / "straight").glob("discs/*/discs.safetensors")))

    def once(moment: float) -> list[str]:
        out = folder / "killed"
        shutil.rmtree(out, ignore_errors=True)
        killed(home, "train", *settings, f"out={out}", folder=folder, after=moment)
        runs = [entry for entry in (out / "discs").glob("*") if not entry.name.startswith(".")] if out.exists() else []
        words = [f"resume={runs[0]}"] if runs else [*settings, f"out={out}"]
        found = ended_faults(call(home, "train", *words, folder=folder)) + index_faults(home)
        made = list(out.glob("discs/*/discs.safetensors"))
        if [tensors(path) for path in made] != [right]:
            found.append(f"{len(made)} adapters, not one with the tensors of the run that was not killed")
        return found + [f"left over: {path}" for path in left_over(out / "discs") if path.parent != out / "discs"]

    yield Case("train", whole.seconds, 0.4, once)


@case
def grid(folder: Path) -> Iterator[Case]:
    """A grid that is killed is drawn on by the same command: the same images, those that were drawn are not drawn again."""
    from tests import tiny

    base = tiny.tiny_sd1(folder / "base")
    words = ["grid", f"base={base}", "prompt=a disc", "axes.seed=[1,2,3,4,5,6]", "axes.guidance=[1,4]", "steps=6", "size=64", "device=cpu"]
    whole = call(folder / "home", *words, f"out={folder / 'straight'}", folder=folder)
    assert whole.code == 0, whole.printed
    right = _images(folder / "home")

    def once(moment: float) -> list[str]:
        home, out = folder / "killed", folder / "out"
        shutil.rmtree(home, ignore_errors=True)
        shutil.rmtree(out, ignore_errors=True)
        killed(home, *words, f"out={out}", folder=folder, after=moment)
        drawn = len(list(home.glob("cells/*/*.json")))
        again = call(home, *words, f"out={out}", folder=folder)
        found = ended_faults(again) + index_faults(home)
        if _images(home) != right:
            found.append("other images than the grid that was not killed")
        results = [json.loads(path.read_text()) for path in out.rglob("result.json")]
        if not results or min(one["rendered"] for one in results) > 12 - drawn:
            found.append(f"{drawn} cells were there, and more than the other {12 - drawn} were drawn")
        return found

    yield Case("grid", whole.seconds, 0.4, once)


def _images(home: Path) -> dict[str, str]:
    """Pixels of each cell by its key."""
    return {path.stem: json.loads(path.with_suffix(".json").read_text())["png_sha256"] for path in sorted(home.glob("cells/*/*.png"))}


def run(name: str, folder: Path, count: int, *, seed: int) -> list[str]:
    """The faults of `count` kills of a case, each with the seed and the moment that repeat it."""
    folder.mkdir(parents=True, exist_ok=True)
    with CASES[name](folder) as made:
        found = []
        for moment in moments(Random(f"{name} {seed}"), made.seconds, count, first=made.first):
            found += [f"{name}, seed {seed}, killed after {moment:.3f} of {made.seconds:.1f} s: {fault}" for fault in made.once(moment)]
    return found
