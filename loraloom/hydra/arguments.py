"""The words after `loraloom train`: settings, and the few switches that we and Hydra know."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from registry.errors import Refused
from registry.names import suggest

OURS = {"--help": "help", "-h": "help", "--json": "json", "--multirun": "multirun", "-m": "multirun"}
HYDRAS = {"--cfg": 1, "-c": 1, "--package": 1, "-p": 1, "--resolve": 0}  # switch -> words after it

SHOWN = ("job", "hydra", "all")  # by --cfg


@dataclass(kw_only=True)
class Arguments:
    """One command line of a job, taken apart."""

    overrides: list[str]  # KEY=VALUE as typed
    hydra: list[str]  # switches that Hydra answers by itself
    help: bool = False
    json: bool = False
    multirun: bool = False
    config_dir: Path | None = None


def read_arguments(job: str, argv: Sequence[str]) -> Arguments:
    """Settings and switches apart. Raises Refused for an unknown switch, naming the nearest."""
    found = Arguments(overrides=[], hydra=[])
    words = list(argv)
    while words:
        word = words.pop(0)
        switch, equals, value = word.partition("=")
        if not word.startswith("-"):
            found.overrides.append(word)
        elif word in OURS:
            setattr(found, OURS[word], True)
        elif switch in HYDRAS:
            found.hydra += [word] if equals or not HYDRAS[switch] else [word, _next(word, words)]
            if switch in ("--cfg", "-c") and (chosen := value if equals else found.hydra[-1]) not in SHOWN:
                raise Refused(f"{switch} {chosen} cannot be shown. {suggest(chosen, SHOWN)}")
        elif switch in ("--config-dir", "-cd"):
            found.config_dir = _folder(value if equals else _next(word, words))
        else:
            raise Refused(_unknown(job, switch, equals, value))
    return found


def _next(word: str, words: list[str]) -> str:
    if not words:
        raise Refused(f"{word} needs a value after it.")
    return words.pop(0)


def _folder(text: str) -> Path:
    path = Path(text).expanduser().absolute()
    if not path.is_dir():
        raise Refused(f"--config-dir {text} is no folder. Expected a folder with presets, such as experiment/mine.yaml.")
    return path


def _unknown(job: str, switch: str, equals: str, value: str) -> str:
    if equals:
        return f"{switch}={value}: settings have no dashes. Did you mean '{switch.lstrip('-').replace('-', '_')}={value}'?"
    known = [name for name in (*OURS, *HYDRAS, "--config-dir", "--debug") if name.startswith("--")]
    return f"loraloom {job} does not know {switch}. {suggest(switch, known)} A setting is KEY=VALUE, without dashes."
