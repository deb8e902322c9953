"""Runs damaged inputs through the readers and commands of this process; an outcome that no person could act on is a fault.

A case is reproduced by its target, seed and number: `run(target, 1, seed=..., first=number)`.
"""

from __future__ import annotations

import contextlib
import io
import signal
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random
from types import FrameType

from loraloom import console
from tests.faults.targets import Target

SECONDS = 120.0  # a case that takes longer hangs
COMMANDS = 0.05  # share of the cases that go through the command line: it is slower than the readers behind it


@dataclass
class Tally:
    """Outcomes of a target's cases: done, refused (exit 2), failed (exit 1); the faults, each with the words that repeat it."""

    outcomes: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


class TooLong(BaseException):
    """A case did not end."""


def run(target: Target, count: int, *, seed: int, first: int = 0) -> Tally:
    """The outcomes of `count` damaged versions of a target."""
    tally = Tally()
    for number in range(first, first + count):
        rng = Random(f"{target.name} {seed} {number}")
        target.file.write_bytes(target.damage(rng, target.original))
        seam = rng.choice(target.commands if target.commands and rng.random() < COMMANDS else target.seams)
        outcome, shown = outcome_of(seam)
        tally.outcomes[outcome] += 1
        if outcome == "fault":
            tally.faults.append(f"target {target.name}, seed {seed}, number {number}, {seam.__name__}: {shown}")
    target.file.write_bytes(target.original)
    return tally


def outcome_of(seam: Callable[[], object]) -> tuple[str, str]:
    """(done, refused, failed or fault; what a person is shown) of one call, as the command line would end."""
    try:
        with _silent(), limited():
            seam()
    except (TooLong, Exception) as error:
        text = console._paragraph(error)
        if isinstance(error, TooLong) or "fault of loraloom" in text or "weights_only" in text:
            places = [f"{frame.filename.rpartition('/')[2]}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)[-4:]]
            return "fault", f"{type(error).__name__}: {str(error)[:200]} at {' '.join(places)}"
        return ("refused" if getattr(error, "exit_code", 1) == 2 else "failed"), text
    return "done", ""


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Output goes to where every text must be encodable, as on a terminal, and is dropped."""
    streams = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2)]
    with warnings.catch_warnings(), contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]):
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def limited() -> Iterator[None]:
    """Raise TooLong in a block that does not end."""

    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise TooLong(f"more than {SECONDS:.0f} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def main() -> None:
    """python -m tests.faults.mutations FOLDER COUNT SEED [TARGET ...]: the outcomes and faults of targets, on stdout."""
    from pathlib import Path

    from tests.faults.targets import TARGETS

    folder, count, seed, *names = sys.argv[1:]
    for name in names or TARGETS:
        began = time.monotonic()
        with TARGETS[name](Path(folder) / name.replace("/", "_")) as target:
            tally = run(target, int(count), seed=int(seed))
        print(f"{name}: {dict(tally.outcomes)}, {time.monotonic() - began:.1f} s", flush=True)
        for fault in tally.faults:
            print(f"  {fault}", flush=True)


if __name__ == "__main__":
    main()
