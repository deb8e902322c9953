"""The checkpoints in a run's folder, which references name `name@step-300`."""

import re
from pathlib import Path

STEP = re.compile(r"step-0*(\d+)")
ADAPTER = "adapter.safetensors"  # the file of a checkpoint that a grid can use


def checkpoint_step(alias: str) -> int | None:
    """The step in an alias or folder name, step-300 or step-000300; None for other names."""
    found = STEP.fullmatch(alias)
    return int(found[1]) if found else None


def checkpoint_folders(run: Path) -> dict[int, Path]:
    """Step -> adapter file of every finished checkpoint in a run's folder, in the order of the steps."""
    folder = run / "checkpoints"
    if not folder.is_dir():
        return {}
    found = {}
    for entry in folder.iterdir():
        step = checkpoint_step(entry.name)
        if step is not None and (entry / ADAPTER).is_file():
            found[step] = entry / ADAPTER
    return dict(sorted(found.items()))
