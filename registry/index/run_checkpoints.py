"""The checkpoints in a run's folder, which references name `name@step-300`, `name@last` and `name@best`."""

import json
import re
from dataclasses import dataclass
from math import fsum
from pathlib import Path

STEP = re.compile(r"step-0*(\d{1,18})")  # more digits are no run's step, and more than Python reads
ADAPTER = "adapter.safetensors"  # the file of a checkpoint that a grid can use
STATE = "state.json"  # of a checkpoint: {"history": {"heldout": [{"step": N, "losses": [...]}]}}
TRAINING = "training.pt"  # the state of the training, which a resume reads
FOLDER = "checkpoints"  # in a run's folder
LAST, BEST = "last", "best"


@dataclass(frozen=True)
class RunCheckpoint:
    """A checkpoint in the folder of a run."""

    run: str
    step: int
    folder: str


def checkpoint_with(training: Path) -> RunCheckpoint | None:
    """The checkpoint that a file training.pt is of: by its place, and by the state.json beside it, which names the step and this file.

    None for any other file, whatever its name. Its content is not looked at.
    """
    folder = training.parent
    step = checkpoint_step(folder.name)
    if training.name != TRAINING or folder.parent.name != FOLDER or step is None or not (folder / ADAPTER).is_file():
        return None
    try:
        state = json.loads((folder / STATE).read_text(encoding="utf-8"))
        known = state["step"] == step and {ADAPTER, TRAINING} <= state["files"].keys()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return RunCheckpoint(str(folder.parent.parent), step, str(folder)) if known else None


def checkpoint_step(alias: str) -> int | None:
    """The step in an alias or folder name, step-300 or step-000300; None for other names."""
    found = STEP.fullmatch(alias)
    return int(found[1]) if found else None


def checkpoint_folders(run: Path) -> dict[int, Path]:
    """Step -> adapter file of every finished checkpoint in a run's folder, in the order of the steps."""
    folder = run / FOLDER
    if not folder.is_dir():
        return {}
    found = {}
    for entry in folder.iterdir():
        step = checkpoint_step(entry.name)
        if step is not None and (entry / ADAPTER).is_file():
            found[step] = entry / ADAPTER
    return dict(sorted(found.items()))


def best_step(run: Path) -> int | None:
    """The step with the lowest mean held-out loss so far, the earliest of equals; None where none was measured or the file is damaged."""
    folders = checkpoint_folders(run)
    if not folders:
        return None
    try:
        state = json.loads((list(folders.values())[-1].parent / STATE).read_text(encoding="utf-8"))
        means = [(fsum(row["losses"]) / len(row["losses"]), int(row["step"])) for row in state["history"]["heldout"]]
    except (OSError, ValueError, KeyError, TypeError, ArithmeticError, RecursionError):
        return None
    return min(means)[1] if means else None
