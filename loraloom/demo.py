"""`loraloom demo`: a style LoRA learns on the embedded base, is registered, and is shown beside the base. Offline, on a CPU, in minutes.

The journey is the real one: what `loraloom train experiment=ink` and `loraloom grid` do. A second run finds the adapter and the
images by their content and makes only what is missing; one that was stopped goes on where it was.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loraloom import console
from registry.errors import Refused
from registry.files.write_failure import refuse_file_as_folder
from registry.home import expanded
from registry.printable import counted, shell_line
from registry.progress import Report

if TYPE_CHECKING:
    from infer.grid.job import GridOutcome
    from registry.store import Store
    from train.config import TrainConfig
    from train.run_types import Outcome

EXPERIMENT = "ink"  # conf/experiment/ink.yaml: black ink drawings, a style the base has never seen
WEIGHTS = (0.5, 1.0)
SEEDS = (11, 12)
# Held-out drawings by file name: half of the 16 nouns that the LoRA never trains on, those that the base itself draws clearly.
SHOWN = ("bell", "dog-face", "doughnut", "hamburger", "mushroom", "rabbit-face", "tractor", "tulip")
STEPS, GUIDANCE = 20, 4.0


@dataclass(frozen=True)
class Figures:
    """What the demo measured: held-out loss, and mean colour saturation (0 grey .. 255 pure colour) of images."""

    heldout_base: float
    heldout_adapter: float
    saturation_base: float
    saturation_adapter: float
    saturation_truth: float

    def sentences(self) -> Iterator[str]:
        """The figures, each with what it means."""
        change = 100 * (self.heldout_adapter / self.heldout_base - 1)
        yield f"held-out loss      base {self.heldout_base:.3f} -> LoRA {self.heldout_adapter:.3f} ({change:+.0f} %)"
        yield "    How well each predicts ink drawings that were never trained on; lower is better."
        saturations = f"base {self.saturation_base:.0f} -> LoRA {self.saturation_adapter:.0f}"
        yield f"colour saturation  {saturations}; the true held-out drawings have {self.saturation_truth:.0f}"
        yield "    Mean over the images at full weight: 0 is black and white, 255 is pure colour. Ink has none."


def main(out: Path) -> int:
    """Run the demo into the folder `out`; gives the exit code."""
    from registry.store import Store

    began, out, store = time.monotonic(), expanded(out).absolute(), Store()
    refuse_file_as_folder(f"--out {out}", out)
    with console.progress() as report:
        trained = learn(out, store, report)
        data = Path(_inputs(trained.folder)["dataset"]["path"])
        adapter = _reference(trained, store)
        drawn = draw(out, adapter, _shown(data), store, report)
    figures = measure(trained, drawn, adapter, data)
    console.say("")
    for line in figures.sentences():
        console.say(line)
    console.say("")
    console.say(
        f"adapter   {trained.result['adapter']}   (loraloom registry show {trained.result['adapter']}; loraloom registry lineage ...)"
    )
    console.say(f"training  {trained.result['report']}")
    console.say(f"sheet     {drawn.result['sheet']}")
    console.say(f"report    {drawn.result['report']}   open it in a browser")
    console.say(f"studio    {shell_line('loraloom', 'studio', out, '--open')}   this run and its grid in a local page, and what to do next")
    result = drawn.result
    console.say(f"{counted(result['rendered'], 'image')} drawn, {result['reused']} found again, {time.monotonic() - began:.0f} s in all")
    console.answer(str(drawn.folder))
    return 1 if result["failed"] else 0


# --- learning


def learn(out: Path, store: Store, report: Report) -> Outcome:
    """The trained adapter: of an earlier run with the same settings, base and data when there is one, else of a new run."""
    from train.run import plan, resume, run

    config = replace(_experiment(), out=str(out / "runs"))
    planned = plan(config, store)
    found = _same_run(planned, store)
    if found is None:
        return run(config, store, report=report, out=console.say)
    if (found / "result.json").is_file():
        console.say(f"found the adapter that an earlier demo trained: {found}")
    return resume(found, {}, store, report=report, out=console.say)


def _experiment() -> TrainConfig:
    """The preset's settings, composed as `loraloom train experiment=ink` has them."""
    from loraloom.commands.train import job
    from loraloom.hydra.run import configure

    return configure(job(), f"experiment={EXPERIMENT}")


def _same_run(planned: Any, store: Store) -> Path | None:
    """The newest run folder of exactly these settings and inputs whose files are all there; finished or not."""
    from train.config import to_plain
    from train.output.inputs import inputs_of

    wanted = json.loads(json.dumps(inputs_of(planned, store)))
    settings = to_plain(planned.config)
    for folder in sorted(Path(planned.config.out, planned.config.name).glob("[0-9]*"), reverse=True):
        try:
            from train.output.folder import read_config

            inputs, own = _inputs(folder), to_plain(read_config(folder))
        except (OSError, ValueError, Refused):
            continue  # not a whole run folder: a new run is begun beside it
        same = own == settings and all(inputs.get(part) == wanted[part] for part in ("base", "dataset", "heldout"))
        if same and _whole(folder):
            return folder
    return None


def _whole(folder: Path) -> bool:
    """Whether a finished run still has its adapter; an unfinished one is whole as it is."""
    result = folder / "result.json"
    return not result.is_file() or all(Path(path).is_file() for path in json.loads(result.read_text())["files"].values())


def _inputs(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "inputs.json").read_text()))


def _reference(trained: Outcome, store: Store) -> str:
    """How the grid names the adapter: by its registered name where that is this very file, else by its path."""
    from registry.errors import LoomError

    path, name = Path(trained.result["files"]["diffusers"]), str(trained.result["adapter"])
    try:
        known = store.find(name, kind="adapter")
    except LoomError:
        known = store.add(path, name=name, kind="adapter")
    return name if known.path and Path(known.path) == path else str(path)


# --- drawing


def _shown(data: Path) -> list[Path]:
    """The held-out drawings whose captions are the grid's prompts."""
    return [data / "heldout" / f"{name}.png" for name in SHOWN]


def draw(out: Path, adapter: str, shown: Sequence[Path], store: Store, report: Report) -> GridOutcome:
    """The grid: the base, and the LoRA at WEIGHTS, over the captions of held-out drawings and SEEDS."""
    from infer.grid.config import Axes, GridConfig
    from infer.grid.job import run

    prompts = [path.with_suffix(".txt").read_text(encoding="utf-8").strip() for path in shown]
    columns = ["none", *(f"{adapter}:{weight:g}" for weight in WEIGHTS)]
    axes = Axes(prompt=prompts, adapter=columns, seed=list(SEEDS))
    config = GridConfig(name="demo", axes=axes, steps=STEPS, guidance=GUIDANCE, rows="adapter", columns="prompt", out=str(out / "grids"))
    return run(config, store, report=report)


# --- measuring


def measure(trained: Outcome, drawn: GridOutcome, adapter: str, data: Path) -> Figures:
    """The figures of the demo, from what the runs wrote."""
    images: dict[str, list[Path]] = {}
    for line in (drawn.folder / "cells.jsonl").read_text(encoding="utf-8").splitlines():
        cell: Mapping[str, Any] = json.loads(line)
        if cell["image"]:
            images.setdefault(str(cell["axes"]["adapter"]), []).append(drawn.folder / cell["image"])
    full = f"{adapter}:{WEIGHTS[-1]:g}"
    return Figures(
        heldout_base=trained.result["heldout"]["base"],
        heldout_adapter=trained.result["heldout"]["final"],
        saturation_base=saturation(images["none"]),
        saturation_adapter=saturation(images[full]),
        saturation_truth=saturation(_shown(data)),
    )


def saturation(paths: Sequence[Path]) -> float:
    """Mean HSV saturation over all pixels of the images, 0 .. 255. White paper counts as 0."""
    import numpy
    from PIL import Image

    values = []
    for path in paths:
        with Image.open(path) as image:
            values.append(numpy.asarray(image.convert("RGB").convert("HSV"))[..., 1].mean())
    return float(numpy.mean(values))
