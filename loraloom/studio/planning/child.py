"""`python -m loraloom.studio.planning.child JOB`: a line of JSON with words of a command in, a line with its plan or its faults out.

It ends with its input, so that it never outlives the server that started it.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from loraloom.hydra.arguments import read_arguments
from loraloom.hydra.composer import Composer
from loraloom.hydra.help import settings_of
from loraloom.hydra.job import Job
from loraloom.hydra.sweep import plans_text, sweep_plans
from loraloom.studio.planning.faults import setting_of
from registry.errors import Faults, LoomError
from registry.plain_values import from_json
from registry.printable import json_printable

JOBS = ("grid", "merge", "train")


def job_of(name: str) -> Job[Any]:
    """The job behind a command. Raises ValueError for a command that is none."""
    if name not in JOBS:
        raise ValueError(f"{name} is no job")
    found: Job[Any] = import_module(f"loraloom.commands.{name}").job()
    return found


def planned(job: Job[Any], words: Sequence[str]) -> dict[str, Any]:
    """The plan as `loraloom JOB WORDS dry_run=true` has it: `plan`, `text` and `notes`, or `faults`, each with its setting."""
    noted = io.StringIO()
    known: frozenset[str] = frozenset()
    try:
        with contextlib.redirect_stderr(noted):
            arguments = read_arguments(job.name, words, aliases=job.aliases, synonyms=job.synonyms)
            composer = Composer(job, arguments)
            known = frozenset(composer.schema.settings)
            value, text = _sweep(job, composer) if arguments.multirun else _single(job, composer)
        notes = [line.removeprefix("note: ") for line in noted.getvalue().splitlines() if line.startswith("note: ")]
        return {"plan": value, "text": text, "notes": notes}
    except Faults as error:
        faults = list(error.faults)
    except (LoomError, OSError) as error:
        faults = [str(error)]
    return {"faults": [{"setting": setting_of(fault, words, known), "text": fault} for fault in faults]}


def _single(job: Job[Any], composer: Composer) -> tuple[Any, str]:
    """The plan of one run, as plain values and as text."""
    try:
        request = composer.request()
    except Faults as error:
        raise composer.with_what_the_plan_finds(error) from error
    plan = job.plan(request)
    return plan.to_json(), plan.to_text()


def _sweep(job: Job[Any], composer: Composer) -> tuple[Any, str]:
    """The same of `--multirun`: a list with the plan of each run."""
    plans = sweep_plans(job, composer)
    return [plan.to_json() for plan in plans], plans_text(plans)


def described(job: Job[Any]) -> dict[str, Any]:
    """The settings of the job as `loraloom JOB --help --json` lists them, and its presets."""
    composer = Composer(job, read_arguments(job.name, []))
    groups = composer.presets.groups
    presets = {group: {name: composer.presets.meaning(group, name) for name in names} for group, names in groups.items()}
    return {"settings": settings_of(composer), "presets": presets, "chosen": composer.presets.chosen}


def main(argv: Sequence[str]) -> None:
    """Answer until the input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever prints goes to the terminal of the Studio
    job = job_of(argv[0])
    for line in sys.stdin.buffer:
        answers.write(answer(line, job) + "\n")
        answers.flush()


def answer(line: bytes, job: Job[Any]) -> str:
    """The answer to one question, on one line."""
    tasks: dict[str, Callable[[list[str]], dict[str, Any]]] = {
        "plan": lambda words: planned(job, words),
        "describe": lambda _words: described(job),
    }
    try:
        question = from_json(line)
        value = tasks[question["task"]](question["words"])
    except Exception as error:
        traceback.print_exc()
        text = f"{type(error).__name__}: {error}. This is a fault of loraloom itself; the terminal of the Studio shows where."
        value = {"faults": [{"setting": None, "text": text}]}
    return json_printable(json.dumps(value, ensure_ascii=True, default=str))


if __name__ == "__main__":
    main(sys.argv[1:])
