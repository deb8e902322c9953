"""The entries of a folder, read once: visible files and subfolders in the order of their names, and hidden entries."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

KEPT = ".loraloom-edits"  # in a set: its edits, and what was there before; hidden, so that no reader takes it for images


@dataclass(frozen=True)
class Listing:
    """What is in a folder; names that begin with a dot are hidden, whether files or folders."""

    files: list[Path]
    folders: list[Path]
    hidden: list[Path]


def listed(folder: Path) -> Listing:
    """The entries of a folder. Raises OSError."""
    files, folders, hidden = [], [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                hidden.append(entry.name)
            elif _is_file(entry):
                files.append(entry.name)
            elif _is_folder(entry):
                folders.append(entry.name)
    return Listing(*([folder / name for name in sorted(names)] for names in (files, folders, hidden)))


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link to itself is neither a file nor a folder for pathlib
        return Path(entry.path).is_file()


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return Path(entry.path).is_dir()
