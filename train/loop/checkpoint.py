"""Checkpoints: folders `checkpoints/step-000300/`, written atomically, with everything a resume needs.

adapter.safetensors     the LoRA as diffusers loads it
embedding-*.safetensors the vectors of new tokens, where there are any
training.pt             optimizer state and random states (tensors and plain values; read with weights_only)
state.json              step, held-out history, sha256 of the other files
requested               an empty file, of those that were asked for (loraloom control RUN save)
"""

from __future__ import annotations

import hashlib
import os
import random
import re
import secrets
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from registry.errors import JobFailed, Refused
from registry.formats.atomic_file import atomic_file, sync_folder, write_json
from registry.plain_values import from_json
from train.output.folder import UNFINISHED

VERSION = 1
ADAPTER = "adapter.safetensors"
TRAINING = "training.pt"
STATE = "state.json"
REQUESTED = "requested"  # an empty file: the checkpoint was asked for while the run trained, and stays until it is deleted by hand
DAMAGED = "damaged"  # folder of a run for checkpoints that are not what was saved
NAME = re.compile(r"step-(\d{6,})")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read and verified."""

    folder: Path
    step: int
    training: Mapping[str, Any] = field(repr=False)  # optimizer, random states
    history: Mapping[str, Any] = field(repr=False)

    @property
    def adapter(self) -> Path:
        return self.folder / ADAPTER


def folder_name(step: int) -> str:
    return f"step-{step:06d}"


def save(
    run: Path,
    step: int,
    *,
    write_adapter: Callable[[Path], object],
    training: Mapping[str, Any],
    history: Mapping[str, Any],
    requested: bool = False,
) -> Path:
    """Write a checkpoint under a temporary name outside checkpoints/, sync it, then put it in its place. `requested`: it is not pruned."""
    import torch

    final = run / "checkpoints" / folder_name(step)
    if final.exists():
        try:
            read(final)
            _mark(final, requested)
            return final  # the same step of the same run has the same content
        except Damaged:
            _move_away(run, final)
    made = run / f"{UNFINISHED}{secrets.token_hex(8)}"
    made.mkdir()
    try:
        write_adapter(made / ADAPTER)
        with atomic_file(made / TRAINING) as file:
            torch.save(dict(training), file)
        files = {name: _sha256(made / name) for name in sorted(entry.name for entry in made.iterdir())}
        write_json(made / STATE, {"version": VERSION, "step": step, "files": files, "history": dict(history)})
        _mark(made, requested)
        sync_folder(made)
        os.rename(made, final)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise
    sync_folder(final.parent)
    return final


def _mark(folder: Path, requested: bool) -> None:
    if requested:
        (folder / REQUESTED).touch()


def steps_of(run: Path) -> dict[int, Path]:
    """Checkpoint folders by step, in order."""
    found = {}
    for entry in (run / "checkpoints").iterdir() if (run / "checkpoints").is_dir() else ():
        match = NAME.fullmatch(entry.name)
        if match:
            found[int(match[1])] = entry
    return dict(sorted(found.items()))


class Damaged(JobFailed):
    """A checkpoint that is not what was saved."""


def newest(run: Path, out: Callable[[str], None]) -> Checkpoint | None:
    """The newest intact checkpoint; damaged ones are reported and skipped. None: the run starts at step 0."""
    found = steps_of(run)
    for step, folder in reversed(found.items()):
        try:
            return read(folder)
        except Damaged as error:
            earlier = any(other < step for other in found)
            out(f"{error} {'The previous one is used.' if earlier else 'There is none before it: the run starts at step 0.'}")
    return None


def set_aside(run: Path, *, after: int, out: Callable[[str], None]) -> None:
    """Move the damaged checkpoints of later steps out of checkpoints/: no reference finds them there, and training makes them again.

    Raises Refused for an intact one: another process has trained on since the run was read.
    """
    for step, folder in steps_of(run).items():
        if step <= after:
            continue
        try:
            read(folder)
        except Damaged:
            out(f"the damaged checkpoint of step {step} is moved to {_move_away(run, folder)}; training makes it again")
            continue
        raise Refused(f"{run} is at step {step} by now: another process has trained in it. Resume it again.")


def _move_away(run: Path, folder: Path) -> Path:
    """Where a damaged checkpoint is from now on: damaged/step-000300 of the run, with a number where there is one already."""
    parent = run / DAMAGED
    parent.mkdir(exist_ok=True)
    place = next(
        place for number in count(1) if not (place := parent / (folder.name if number == 1 else f"{folder.name}-{number}")).exists()
    )
    os.rename(folder, place)
    sync_folder(parent)
    sync_folder(folder.parent)
    return place


def read(folder: Path) -> Checkpoint:
    """Read a checkpoint and verify its hashes. Raises Damaged; JobFailed for one that this program or this user cannot read."""
    try:
        state = from_json((folder / STATE).read_bytes())
        version, step, files = state["version"], int(state["step"]), state["files"]
        wrong = [name for name in {ADAPTER: 1, TRAINING: 1, **files} if _sha256(folder / Path(name).name) != files[name]]
        training = _training(folder / TRAINING) if not wrong else {}
        history = dict(state["history"])
    except PermissionError as error:
        raise JobFailed(f"The checkpoint {folder} cannot be read ({error}). Give this user the right to read it.") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise Damaged(f"The checkpoint {folder} is damaged ({error}).") from error
    if wrong:
        raise Damaged(f"The checkpoint {folder} is damaged: {', '.join(wrong)} is not what was saved.")
    if version != VERSION:
        raise JobFailed(f"The checkpoint {folder} is of version {version}, this program reads version {VERSION}. Update loraloom.")
    return Checkpoint(folder, step, training, history)


def _training(path: Path) -> dict[str, Any]:
    """Optimizer and random states: tensors and plain values alone. Raises ValueError for a file that asks for code, or is none of these."""
    import torch

    try:
        found = torch.load(path, weights_only=True, map_location="cpu")
    except (OSError, MemoryError):
        raise
    except Exception as error:  # torch's text advises to load without its protection
        raise ValueError(f"{path.name} asks for code to be run, or is no file of tensors") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path.name} does not hold a training's state")
    return found


def prune(run: Path, *, keep: int, best: int | None, every: int, steps: int) -> None:
    """Remove all but the `keep` newest of every `every` steps and of the last step, the newest of all, the best one, and requested ones.

    A held-out loss that falls makes a checkpoint at each measurement: counted as newest, they would leave none of those that were set.
    """
    found = {step: folder for step, folder in steps_of(run).items() if not (folder / REQUESTED).exists()}
    regular = [step for step in found if step % every == 0 or step == steps]
    kept = {*regular[-keep:], *list(found)[-1:], *([best] if best is not None else [])}
    for step, folder in found.items():
        if step not in kept:
            away = run / f"{UNFINISHED}{secrets.token_hex(8)}"
            os.rename(folder, away)  # one atomic rename: a partial checkpoint is never seen
            shutil.rmtree(away, ignore_errors=True)


def random_states() -> dict[str, Any]:
    """States of the global generators; training draws do not use them, a model's own code may."""
    import numpy
    import torch

    state: Any = numpy.random.get_state()
    name, keys, position, has_gauss, cached = state
    states: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "python": _listed(random.getstate()),
        "numpy": [str(name), torch.from_numpy(keys.astype("int64")), int(position), int(has_gauss), float(cached)],
    }
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state_all()
    return states


def set_random_states(states: Mapping[str, Any]) -> None:
    """Restore the global generators."""
    import numpy
    import torch

    torch.set_rng_state(states["torch"])
    version, inner, gauss = states["python"]
    random.setstate((version, tuple(inner), gauss))
    name, keys, position, has_gauss, cached = states["numpy"]
    numpy.random.set_state((name, keys.numpy().astype("uint32"), position, has_gauss, cached))
    if "cuda" in states and torch.cuda.is_available() and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])


def _listed(state: tuple[Any, ...]) -> list[Any]:
    version, inner, gauss = state
    return [version, list(inner), gauss]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
