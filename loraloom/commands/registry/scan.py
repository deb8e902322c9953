"""`registry scan`: look through a folder for models."""

from __future__ import annotations

import argparse
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

from loraloom import console
from loraloom.commands.registry.answers import show_table
from loraloom.commands.registry.subcommand import add_command, open_store
from registry.index.run_checkpoints import RunCheckpoint
from registry.printable import as_lines
from registry.record import Record

PLACE = 10
SHOWN = 6  # steps of a run in a row
CHECKPOINTS = "checkpoints of runs ({}): each an adapter (NAME@step-N of a registered run) and a training.pt, the state that a resume reads"


def add_parsers(words: Any) -> None:
    """Add the subcommands."""
    parser = add_command(words, "scan", scan, "look through a folder for models; reads headers only, changes nothing")
    parser.add_argument("folder", metavar="FOLDER")
    parser.add_argument("--hash", action="store_true", help="hash everything found as well")


def scan(arguments: argparse.Namespace) -> int:
    """Scan a folder."""
    with console.progress() as report:
        found = open_store().scan(arguments.folder, hash=arguments.hash, report=report)
    if arguments.json:
        with found.listing() as records:
            console.answer_json_parts((record.to_json() for record in records), of=found.summary(), key="records")
        return 0
    counts = ("added", "updated", "relinked", "unchanged", "missing")
    console.answer(", ".join(f"{getattr(found, name)} {name}" for name in counts))
    of_runs = {checkpoint.folder for checkpoint in found.checkpoints}
    twins: set[str] = set()
    with found.listing() as records:
        show_table(_shown(records, of_runs, twins))
    if found.checkpoints:
        console.answer_lines(f"\n{CHECKPOINTS.format(len(found.checkpoints))}")
        console.answer_table(["run", "steps"], [[run, _steps(steps)] for run, steps in _by_run(found.checkpoints).items()])
    if twins:
        console.answer_lines("\n" + as_lines(sorted(twins)))
    if found.problems:
        console.answer_lines(f"\nnot registered ({len(found.problems)}):")
        console.answer_table(["code", "path", "why"], [[one.code, one.path, one.message] for one in found.problems])
    return 0


def _shown(records: Iterable[Record], of_runs: Collection[str], twins: set[str]) -> Iterator[Record]:
    """The records that are no checkpoints of runs; what all of them say of duplicates is added to `twins`."""
    for record in records:
        twins |= {f"{record.name}: {warning.message}" for warning in record.warnings if warning.code == "duplicate"}
        if os.path.dirname(record.path or "") not in of_runs:
            yield record


def _by_run(checkpoints: Sequence[RunCheckpoint]) -> dict[str, list[int]]:
    """The steps of each run."""
    found: dict[str, list[int]] = {}
    for checkpoint in checkpoints:
        found.setdefault(checkpoint.run, []).append(checkpoint.step)
    return {run: sorted(steps) for run, steps in found.items()}


def _steps(steps: Sequence[int]) -> str:
    if len(steps) <= SHOWN:
        return ", ".join(map(str, steps))
    return f"{', '.join(map(str, steps[: SHOWN - 2]))}, ..., {steps[-1]} ({len(steps)})"
