"""Commands of the registry that read or write for long, as jobs of the queue: only on files that this Studio may read or write."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loraloom.cli import arguments_of, find_commands
from loraloom.studio.context import Studio
from registry.errors import Refused
from registry.home import expanded
from registry.sources.source import is_source

if TYPE_CHECKING:
    from loraloom.queue.job import Job

Check = Callable[[Studio, argparse.Namespace], None]


def parsed(words: Sequence[str], names: Sequence[str]) -> argparse.Namespace:
    """The words of a `registry` command as that command reads them. Raises Refused for another one."""
    if len(words) < 2 or words[0] != "registry" or words[1] not in names:
        raise Refused(f"Expected the words of `loraloom registry {'|'.join(names)} ...`.")
    return arguments_of(words, find_commands()["registry"])


def add_job(studio: Studio, words: Sequence[str]) -> Job:
    """Start a command of the registry as a job. Raises Refused for paths outside this Studio's folders."""
    from loraloom.queue.queue import Queue

    arguments = parsed(words, list(CHECKS))
    CHECKS[words[1]](studio, arguments)
    return Queue(studio.home).add(words, folder=studio.folder)


def within(studio: Studio, path: str | Path) -> Path:
    """A path as a job has it, which runs in the Studio's folder."""
    return studio.folder / expanded(path)


def check_written(studio: Studio, path: str | Path) -> Path:
    """A file or folder that a command may make, below this Studio's folders; folders above it may have to be made, too."""
    wanted = within(studio, path).absolute()
    there = next(one for one in (wanted, *wanted.parents) if os.path.lexists(one))
    studio.places.writable(there)
    if ".." in wanted.relative_to(there).parts:
        raise Refused(f"{path}: write it without `..`.")
    return wanted


def _scan(studio: Studio, arguments: argparse.Namespace) -> None:
    studio.places.readable(within(studio, arguments.folder))


def _add(studio: Studio, arguments: argparse.Namespace) -> None:
    if not is_source(arguments.path):
        studio.places.readable(within(studio, arguments.path))


def _convert(studio: Studio, arguments: argparse.Namespace) -> None:
    check_written(studio, arguments.output)


def _export(studio: Studio, arguments: argparse.Namespace) -> None:
    from loraloom.commands.registry.export import given

    check_written(studio, given(arguments)[2])


def _verify(_studio: Studio, arguments: argparse.Namespace) -> None:
    if not arguments.references:
        raise Refused("Name what is verified: everything takes hours where there is much.")


CHECKS: Mapping[str, Check] = {
    "scan": _scan,
    "add": _add,
    "convert": _convert,
    "export": _export,
    "verify": _verify,
    "tag": lambda *_: None,
}


def plan(studio: Studio, words: Sequence[str]) -> Any:
    """The plan of `registry convert` or `registry export`, as its --dry-run gives it. Raises what that refuses."""
    arguments = parsed(words, ("convert", "export"))
    CHECKS[words[1]](studio, arguments)
    if words[1] == "convert":
        from loraloom.commands.registry.convert import request_of
        from registry.converting.job import plan_convert

        return plan_convert(request_of(arguments, studio.folder), studio.store).to_json()
    return _export_plan(studio, arguments).to_json()


def export_links(studio: Studio, words: Sequence[str]) -> Any:
    """Export models that are all linked as they are; one that must be converted is a job. Raises Refused for that."""
    from registry.exporting.job import run_export

    arguments = parsed(words, ("export",))
    _export(studio, arguments)
    planned = _export_plan(studio, arguments)
    if any(item.conversion is not None for item in planned.items):
        raise Refused("A model must be converted for it, which takes a while: export it as a job.")
    return planned.to_json(run_export(planned, studio.store))


def _export_plan(studio: Studio, arguments: argparse.Namespace) -> Any:
    from loraloom.commands.registry.export import given
    from registry.exporting.job import plan_export

    references, layout, folder = given(arguments)
    return plan_export(references, studio.store, within(studio, folder).absolute(), layout=layout)
