"""`loraloom COMMAND ...`: finds the command, runs it, and turns what it raised into one paragraph and an exit code.

Exit codes: 0 done, 1 the job failed, 2 the input was refused, 130 interrupted.
"""

import argparse
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from importlib import import_module
from pkgutil import iter_modules
from types import FrameType, ModuleType
from typing import Any, NoReturn

from loraloom import commands, console
from loraloom.version import __version__
from registry.errors import Refused, UnknownName
from registry.launch.importing import process_of_a_command
from registry.names import suggest

EPILOG = """\
Every command explains itself: loraloom COMMAND --help.  --debug, anywhere, shows the traceback of an error.
Exit codes: 0 done, 1 the job failed, 2 the input was refused, 130 interrupted.
"""


NUMBERS: dict[Any, str] = {int: "a whole number", float: "a number"}


class Parser(argparse.ArgumentParser):
    """argparse, with errors as Refused and the nearest choice for a mistyped one."""

    def error(self, message: str) -> NoReturn:
        raise Refused(f"{message}\n{self.format_usage().strip()}")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            known = suggest(str(value), map(str, action.choices))
            raise argparse.ArgumentError(None, f"{_shown(action)}: {value!r} is not known. {known}")

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        try:
            return super()._get_value(action, arg_string)
        except argparse.ArgumentError:
            if action.type not in NUMBERS:
                raise
            raise argparse.ArgumentError(None, f"{_shown(action)}: expected {NUMBERS[action.type]}, got {arg_string!r}.") from None


def _shown(action: argparse.Action) -> str:
    """An argument as a person writes it: --rank, or the name of what stands without a switch."""
    return action.option_strings[-1] if action.option_strings else str(action.metavar or action.dest)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; gives the exit code."""
    if argv is None:
        process_of_a_command()
    words = list(sys.argv[1:] if argv is None else argv)
    debug = take_switch(words, "--debug")
    console.listen(debug=debug)
    try:
        with stopped_by_signals():
            return run(words)
    except SystemExit as error:  # argparse ends so after --help and --version
        return error.code if isinstance(error.code, int) else 0
    except BaseException as error:
        return console.fail(error)


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Makes SIGTERM and SIGHUP what Ctrl-C is: a KeyboardInterrupt, exit code 130. A signal that the caller ignores (nohup) stays ignored.

    A closed terminal sends SIGHUP more than once: only the first signal of a process may be one that stops it by SIGHUP.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked: list[int] = []

    def stop(number: int, _frame: FrameType | None) -> None:
        first = not asked
        asked.append(number)
        if first or number != getattr(signal, "SIGHUP", None):
            raise KeyboardInterrupt

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]  # Windows has no SIGHUP
    before = {number: signal.signal(number, stop) for number in numbers if signal.getsignal(number) == signal.SIG_DFL}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def take_switch(words: list[str], *spellings: str) -> bool:
    """Whether one of the switches is among the words before a `--`; it is removed."""
    end = words.index("--") if "--" in words else len(words)
    found = [index for index, word in enumerate(words[:end]) if word in spellings]
    for index in reversed(found):
        del words[index]
    return bool(found)


def run(words: list[str]) -> int:
    """Find the command that the words name, and run it on the rest."""
    table = find_commands()
    if words[:1] in (["-sc"], ["--shell-completion"]):
        from loraloom.completion import complete

        return complete(words, table)
    if not words or words[0].startswith("-"):
        overview(table).parse_args(words)
        overview(table).print_help()
        return 0
    name, *rest = words
    if name not in table:
        raise unknown_command(name, table)
    command = table[name]
    if not hasattr(command, "add_parser"):  # a Hydra job
        return int(command.run(rest))
    arguments = arguments_of(words, command)
    return int(arguments.run(arguments))


def unknown_command(name: str, table: dict[str, ModuleType]) -> UnknownName:
    """The refusal of a command that there is not."""
    return UnknownName(f"Unknown command {name!r}. {_nearest(name, table)}")


def arguments_of(words: Sequence[str], command: Any) -> argparse.Namespace:
    """What the words of a command line, the first of which names the command, mean to its parser. Raises Refused."""
    name, *rest = words
    parser = Parser(prog="loraloom")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    command.add_parser(subparsers)
    asked = _asked(parser, words)
    try:
        arguments, unknown = parser.parse_known_args(words)
    except Refused as error:
        raise Refused(f"{_dashed(rest, asked)}{error}") from None
    if unknown:
        raise Refused(_dashed(unknown, asked) + _unknown(unknown, asked))
    if not hasattr(arguments, "run"):
        raise Refused(f"loraloom {name} needs a subcommand: loraloom {name} --help lists them.")
    return arguments


def _asked(parser: argparse.ArgumentParser, words: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of the subcommand that the words name."""
    for word in words:
        nested = next((action for action in parser._actions if isinstance(action, argparse._SubParsersAction)), None)
        if nested is None:
            break
        parser = nested.choices.get(word, parser)
    return parser


def _dashed(words: Sequence[str], parser: argparse.ArgumentParser) -> str:
    """A sentence for each file or folder whose name begins with a dash: argparse takes it for an option."""
    files = [word for word in words if word.startswith("-") and word not in parser._option_string_actions and os.path.lexists(word)]
    return "".join(f"{word} begins with a dash and is read as an option: write ./{word}. " for word in files)


def _unknown(words: Sequence[str], parser: argparse.ArgumentParser) -> str:
    """The refusal of words that the subcommand does not take, with the nearest of its switches."""
    switches = [word.partition("=")[0] for word in words if word.startswith("--")]
    close = [near for word in switches for near in get_close_matches(word, parser._option_string_actions, n=1)]
    hint = f"Did you mean {' and '.join(map(repr, close))}? " if close else ""
    return f"Not known here: {' '.join(words)}. {hint}`{parser.prog} --help` lists what is."


def _nearest(name: str, table: dict[str, ModuleType]) -> str:
    """The nearest command; also for a KEY=VALUE where a command was meant."""
    if "=" in name:
        return "A setting follows its command: loraloom train KEY=VALUE ..."
    close = get_close_matches(name, table, n=2)
    return f"Did you mean {' or '.join(map(repr, close))}?" if close else f"There are: {', '.join(table)}."


def find_commands() -> dict[str, ModuleType]:
    """Command name -> its module, by name."""
    found = [import_module(f"{commands.__name__}.{module.name}") for module in iter_modules(commands.__path__)]
    return dict(sorted((getattr(module, "NAME", module.__name__.rpartition(".")[2]), module) for module in found))


def overview(table: dict[str, ModuleType]) -> Parser:
    """The parser behind `loraloom --help` and `--version`."""
    width = max(map(len, table), default=0)
    listing = "\n".join(f"  {name.ljust(width)}   {module.HELP}" for name, module in table.items())
    parser = Parser(
        prog="loraloom",
        usage="loraloom COMMAND ...",
        description=f"Train, keep, merge and compare LoRA adapters for text-to-image diffusion models.\n\ncommands:\n{listing}",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"loraloom {__version__}")
    return parser
