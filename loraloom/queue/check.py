"""The words of a job, checked when it is added, by the command's own reading of them: nothing is loaded, no file is opened."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from registry.errors import Refused
from registry.printable import shell_line

NOT_QUEUED = {  # command -> why it is no job
    "queue": "it is about the queue itself",
    "control": "it asks something of a running training",
    "studio": "it serves a page until Ctrl-C",
}

# commands that serve a page for votes -> the switches with which they do not, by the names of their values
WAITS = {
    "vote": {"html": "--html FILE", "returned": "--import FILE", "export": "--export FILE"},
    "choose": {"no_vote": "--no-vote", "html": "--html FILE", "votes": "--votes FILE", "dry_run": "--dry-run"},
}


def check_words(words: Sequence[str]) -> tuple[str, ...]:
    """The words as they are to run. Raises what the command itself would refuse them with."""
    from loraloom.cli import arguments_of, find_commands, unknown_command

    checked = tuple(words)
    if not checked or checked[0].startswith("-"):
        raise Refused("A job is a command line without its `loraloom`: train KEY=VALUE ..., grid KEY=VALUE ..., registry scan DIR.")
    if any("\0" in word for word in checked):
        raise Refused("A word of a command line cannot hold a NUL character.")
    name, *rest = (word for word in checked if word != "--debug")
    if name == "loraloom":
        raise Refused(f"Leave out `loraloom`: {shell_line('loraloom', 'queue', 'add', *rest)}")
    table = find_commands()
    if name not in table:
        raise unknown_command(name, table)
    if name in NOT_QUEUED:
        raise Refused(f"`loraloom {name}` cannot be a job: {NOT_QUEUED[name]}.")
    if hasattr(table[name], "add_parser"):
        _refuse_waiting(name, arguments_of([name, *rest], table[name]))
    else:
        _check_settings(table[name], rest)
    return checked


def _refuse_waiting(name: str, arguments: argparse.Namespace) -> None:
    """Raise Refused for a page of votes: it would wait for a person, and every other job for it."""
    ends = WAITS.get(name)
    if ends and not any(getattr(arguments, dest) for dest in ends):
        raise Refused(f"`loraloom {name}` cannot be a job: it serves a page until Ctrl-C. Give one of {', '.join(ends.values())}.")


def _check_settings(command: Any, words: list[str]) -> None:
    """Raise what the settings of train, grid or merge are refused with before there is a plan."""
    from loraloom.hydra.arguments import read_arguments
    from loraloom.hydra.composer import Composer
    from loraloom.hydra.sweep import check_sweep

    if not words or words[0] == "reproduce" or any(word.startswith(("--from-kohya", "--from-onetrainer")) for word in words):
        return  # files that are read when the job starts
    job = command.job()
    arguments = read_arguments(job.name, words, aliases=job.aliases, synonyms=job.synonyms)
    composer = Composer(job, arguments)
    if arguments.help or arguments.hydra:
        raise Refused("Help and configs are shown at once: give these words without `queue add`.")
    if arguments.multirun:
        check_sweep(job, composer)
    else:
        composer.request()
