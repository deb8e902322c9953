"""Walks a folder for models: links are followed, loops are not, hidden entries are skipped; what cannot be read is a Problem."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Collection, Generator, Iterator
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

from registry.errors import BadFile
from registry.plain_values import storable

MODELS = (".safetensors", ".sft", ".gguf")  # read and registered
NAMED = (".ckpt", ".pt", ".pth", ".bin", ".pkl")  # reported, not read
ENDINGS = (*MODELS, *NAMED)
NAME = attrgetter("name")
COMPONENT_WEIGHTS = re.compile(r"diffusion_pytorch_model(\.\w+)?(-\d+-of-\d+)?\.safetensors")


@dataclass(frozen=True)
class Problem:
    """A path that could not be registered, and why."""

    path: str
    code: str
    message: str


class Entry(NamedTuple):
    """A model's path with its stat; a diffusers folder, or that of a lone VAE or ControlNet, counts as one."""

    path: str
    stat: os.stat_result
    folder: bool
    beside: Collection[str] = ()  # names in its folder


def walk(folder: Path, embedded: Collection[Path], problems: list[Problem], known: Collection[str] = ()) -> Iterator[Entry]:
    """Every model below a folder, sorted by name; hidden and unfinished entries are skipped. Files among `known` stay models."""
    visited: set[tuple[int, int]] = set()
    waiting = [str(folder)]
    while waiting:
        here = waiting.pop()
        try:
            seen = os.stat(here)
            if (seen.st_dev, seen.st_ino) in visited or Path(here) in embedded:
                continue
            visited.add((seen.st_dev, seen.st_ino))
            descriptor = _open_folder(here)
        except OSError as error:
            problems.append(_unreadable(here, error))
            continue
        try:
            waiting += yield from _models_in(here, seen, descriptor, problems, known)
        finally:
            if descriptor is not None:
                os.close(descriptor)


def _open_folder(path: str) -> int | None:
    """A descriptor from which its entries are found without going through the whole path again; None where there is no such."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) if os.scandir in os.supports_fd else None


def _models_in(
    here: str, seen: os.stat_result, descriptor: int | None, problems: list[Problem], known: Collection[str]
) -> Generator[Entry, None, list[str]]:
    """The models in one folder; returns the folders in it, the first last."""
    try:
        with os.scandir(here if descriptor is None else descriptor) as listing:
            entries = sorted([entry for entry in listing if not entry.name.startswith(".")], key=NAME)
    except OSError as error:
        problems.append(_unreadable(here, error))
        return []
    names = {entry.name for entry in entries}
    if "model_index.json" in names:
        yield Entry(here, seen, True)
        return []
    beginning = os.path.join(here, "")
    weights = {beginning + name for name in names if COMPONENT_WEIGHTS.fullmatch(name)} if "config.json" in names else set()
    if weights and _is_alone(here) and (here in known or not any(path in known for path in weights)):
        yield Entry(here, seen, True)
        entries = [entry for entry in entries if (path := beginning + entry.name) not in weights or path in known]
    folders = []
    for entry in entries:
        if _is_folder(entry):
            folders.append(beginning + entry.name)
        elif entry.name.lower().endswith(ENDINGS) and (found := _stat(entry, path := beginning + entry.name, problems)) is not None:
            yield Entry(path, found, False, names)
    return folders[::-1]


def _is_alone(folder: str) -> bool:
    """Whether its config.json names a component that is used on its own."""
    from registry.detect.inspect import is_lone_component  # not at the top: it imports every family

    return is_lone_component(Path(folder))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a loop of links
        return False


def _stat(entry: os.DirEntry[str], path: str, problems: list[Problem]) -> os.stat_result | None:
    """The stat of a regular file; None where it is none, or cannot be read, with its problem."""
    try:
        if not path.isascii():
            path.encode("utf-8")
        seen = entry.stat()
        if not stat.S_ISREG(seen.st_mode):
            raise OSError(0, "it is a pipe, a socket or a device")
    except UnicodeEncodeError:
        shown = os.fsencode(path).decode("utf-8", "replace")
        problems.append(Problem(shown, "unreadable", "Its name is not valid Unicode. Rename it to register it."))
    except OSError as error:
        problems.append(_unreadable(path, error))
    else:
        return seen
    return None


def problem_of(path: str, error: Exception) -> Problem:
    """The row of a file that raised this while it was read or put into the index."""
    if isinstance(error, BadFile):
        return Problem(str(error.path), error.code, error.message)
    if isinstance(error, OSError):
        return _unreadable(path, error)
    shown = os.fsencode(path).decode("utf-8", "replace")
    if isinstance(error, MemoryError):
        return Problem(shown, "too-large", "Reading it needs more memory than there is.")
    return Problem(shown, "unknown-format", f"It could not be understood: {type(error).__name__}: {storable(str(error))}.")


def _unreadable(path: str, error: OSError) -> Problem:
    shown = os.fsencode(path).decode("utf-8", "replace")
    return Problem(shown, "unreadable", f"It cannot be read: {error.strerror or error}.")
