"""The folder that a run makes for itself, named by the time."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from registry.files.made_folders import note_made
from registry.files.write_failure import make_folder, write_failed


def new_folder(out: Path, name: str) -> Path:
    """A new `<out>/<name>/<stamp>`, absolute; two in one second do not collide."""
    parent = make_folder((out / name).absolute())
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    number = 1
    while True:
        folder = parent / (stamp if number == 1 else f"{stamp}-{number}")
        try:
            folder.mkdir()
            note_made(folder)
            return folder
        except FileExistsError:
            number += 1
        except OSError as error:
            raise write_failed(folder, error) from error
