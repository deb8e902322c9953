"""What a running training is asked to do from outside: files in its run folder, requests/save, requests/sample, requests/stop.

The loop looks after each step, acts, and removes the file. Signals say the same of a stop; these also reach a training whose process
is unknown, as on another machine that shares the disk.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from registry.errors import Refused
from registry.files.write_failure import explained
from train.output.folder import in_use, read_config

FOLDER = "requests"
SAVE, SAMPLE, STOP = KINDS = ("save", "sample", "stop")


def ask(run: Path, kind: str) -> None:
    """Ask the training in a run folder for a checkpoint, for previews, or to stop, at its next step. Asked twice it is done once.

    Raises Refused where no process trains there, or where the run has no previews to draw.
    """
    if not in_use(run):
        raise Refused(f"No process trains in {run}, so that nobody would answer. Nothing was asked.")
    if kind == SAMPLE and not read_config(run).preview.prompts:
        raise Refused(f"{run} has no previews to draw: it was started without preview.prompts. Nothing was asked.")
    path = run / FOLDER / kind
    with explained(path):
        path.parent.mkdir(exist_ok=True)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o666))  # an empty file is whole at once


@dataclass(frozen=True)
class Requests:
    """The requests of a run, as the process sees them that answers."""

    run: Path

    def pending(self) -> set[str]:
        """What is asked for. It is one look at a folder, which is missing where nothing was ever asked."""
        try:
            names = os.listdir(self.run / FOLDER)
        except OSError:
            return set()
        return {*KINDS} & {*names}

    def remove(self, kinds: Collection[str] = KINDS) -> None:
        """Remove requests that were answered, and the folder when it is empty."""
        for kind in kinds:
            (self.run / FOLDER / kind).unlink(missing_ok=True)
        try:
            os.rmdir(self.run / FOLDER)
        except OSError:  # another request has come
            return
