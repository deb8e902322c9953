"""Shell completion: the words that may come next. The script is Hydra's: `loraloom train --shell-completion install=bash` prints it.

It calls `loraloom -sc query=bash` with the line in COMP_LINE; commands and switches are answered here, settings and presets by Hydra.
"""

import argparse
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from types import ModuleType

from loraloom import console
from registry.errors import LoomError


def complete(words: Sequence[str], table: Mapping[str, ModuleType]) -> int:
    """Answer `query=SHELL` for the line in COMP_LINE; what cannot be read has no completion."""
    line = os.environ.get("COMP_LINE", "").partition(" ")[2].lstrip()
    command, space, rest = line.partition(" ")
    if not space:
        _answer(name for name in table if name.startswith(command))
    elif command in table and hasattr(table[command], "job"):
        _job(table[command], words, rest)
    elif command in table:
        _answer(_argparse(table[command], command, rest))
    return 0


def _answer(found: Iterable[str]) -> None:
    console.answer(" ".join(sorted(found)))


def _job(module: ModuleType, words: Sequence[str], rest: str) -> None:
    """Settings and presets, as Hydra completes them."""
    from loraloom.hydra.run import run_job

    given = rest.split()
    folder = [word for at, word in enumerate(given) for flag in ("--config-dir", "-cd") if flag in given[at - 1 : at]]
    os.environ["COMP_LINE"] = f"loraloom {rest}"  # where Hydra reads it
    with suppress(LoomError, ValueError):
        run_job(module.job(), ["--shell-completion", *(["--config-dir", folder[-1]] if folder else []), *words[1:]])


def _argparse(module: ModuleType, command: str, rest: str) -> list[str]:
    """Subcommands, or the switches of the one that is named."""
    parser = argparse.ArgumentParser(prog="loraloom", add_help=False)
    module.add_parser(parser.add_subparsers())
    *before, word = rest.split(" ")
    for name in (command, *before):
        nested = next((action for action in parser._actions if isinstance(action, argparse._SubParsersAction)), None)
        if nested is None or name not in nested.choices:
            break
        parser = nested.choices[name]
    nested = next((action for action in parser._actions if isinstance(action, argparse._SubParsersAction)), None)
    known = [*(nested.choices if nested else ()), *(flag for flag in parser._option_string_actions if flag.startswith("--"))]
    return [one for one in known if one.startswith(word)]
