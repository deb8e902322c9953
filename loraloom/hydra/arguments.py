"""The words after `loraloom train`: settings, and the switches of loraloom and of Hydra."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from loraloom.hydra.aliases import Aliases, alias_answer
from registry.errors import Faults, Refused
from registry.home import expanded
from registry.names import suggest
from registry.references import check_texts

SWITCHES = {"--help": "help", "-h": "help", "--json": "json", "--multirun": "multirun", "-m": "multirun"}
HYDRA = {  # switch -> how many words belong to it
    "--cfg": 1,
    "-c": 1,
    "--package": 1,
    "-p": 1,
    "--resolve": 0,
    "--hydra-help": 0,
    "--shell-completion": 0,
    "-sc": 0,
}
NO_OP = ("--run", "-r")  # Hydra's spelling of what is done anyway
SHOWN = ("job", "hydra", "all")  # by --cfg
INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
REFUSED = {
    "--config-name": "a job has one config, conf/<job>.yaml. Presets of your own: --config-dir DIR, then experiment=mine.",
    "--config-path": "the presets that come with loraloom are always read. Add a folder of your own: --config-dir DIR.",
    "--experimental-rerun": "loraloom keeps no pickled configs. `loraloom train resume=RUN_FOLDER` continues a run.",
}
FILES = {"train": ("--from-kohya", "--from-onetrainer")}  # job -> switches that are read before these words
SHORT = {"-cn": "--config-name", "-cp": "--config-path"}


@dataclass(kw_only=True)
class Arguments:
    """One command line of a job, taken apart."""

    overrides: list[str]  # KEY=VALUE as typed
    hydra: list[str]  # switches that Hydra answers by itself
    help: bool = False
    json: bool = False
    multirun: bool = False
    config_dir: Path | None = None

    @property
    def completion(self) -> bool:
        """Whether the words are install=bash, query=zsh and the like, no settings."""
        return "--shell-completion" in self.hydra or "-sc" in self.hydra


def read_arguments(
    job: str, argv: Sequence[str], *, aliases: Aliases = MappingProxyType({}), synonyms: Mapping[str, str] = MappingProxyType({})
) -> Arguments:
    """Settings and switches apart. Raises Refused for an unknown switch, naming the nearest; Faults for several.

    A switch of another tool (`--network_dim 32`, `--network_dim=32`) is answered with our setting.
    """
    check_texts(argv)
    found = Arguments(overrides=[], hydra=[])
    unknown: list[str] = []
    given = _switches(argv)
    words = list(argv)
    while words:
        word = words.pop(0)
        switch, equals, value = word.partition("=")
        if not word.startswith("-"):
            found.overrides.append(f"{synonyms.get(switch, switch)}{equals}{value}")
        elif word in SWITCHES:
            setattr(found, SWITCHES[word], True)
        elif switch in ("--info", "-i"):
            found.hydra += ["--info", _info(value if equals else None, words)]
        elif switch in HYDRA:
            found.hydra += [word] if equals or not HYDRA[switch] else [word, _next(word, words)]
            if switch in ("--cfg", "-c") and (chosen := value if equals else found.hydra[-1]) not in SHOWN:
                raise Refused(f"{switch} {chosen} cannot be shown. {suggest(chosen, SHOWN)}")
        elif switch in ("--config-dir", "-cd"):
            found.config_dir = _folder(value if equals else _next(word, words))
        elif word not in NO_OP:
            name = switch.lstrip("-").replace("-", "_").lower()
            if not equals and words and not words[0].startswith("-") and "=" not in words[0]:
                word, value = f"{word} {words[0]}", words.pop(0)
            answer = alias_answer(aliases, name, value, given)
            unknown.append(f"{word}: {answer}" if answer is not None else _unknown(job, word, switch, value))
    if len(unknown) > 1:
        raise Faults(f"loraloom {job} was not started:", unknown)
    if unknown:
        raise Refused(unknown[0])
    return found


def _switches(argv: Sequence[str]) -> dict[str, str]:
    """NAME -> value of words such as `--max_train_steps=500`, `--max_train_steps 500` and `steps=500`."""
    found = {}
    for number, word in enumerate(argv):
        name, equals, value = word.partition("=")
        after = argv[number + 1] if number + 1 < len(argv) and not argv[number + 1].startswith("-") else ""
        if equals or word.startswith("--"):
            found[name.lstrip("-+").replace("-", "_").lower()] = value if equals else after
    return found


def _next(word: str, words: list[str]) -> str:
    if not words:
        raise Refused(f"{word} needs a value after it.")
    return words.pop(0)


def _info(value: str | None, words: list[str]) -> str:
    """What --info shows: the word after it, where that is no setting; else all of it."""
    if value is None:
        value = words.pop(0) if words and not words[0].startswith("-") and "=" not in words[0] else "all"
    if value not in INFO:
        raise Refused(f"--info {value} cannot be shown. {suggest(value, INFO)}")
    return value


def _folder(text: str) -> Path:
    path = expanded(text).absolute()
    if not path.is_dir():
        raise Refused(f"--config-dir {text} is no folder. Expected a folder with presets, such as experiment/mine.yaml.")
    return path


def _unknown(job: str, word: str, switch: str, value: str) -> str:
    """`word` is the switch with its value, whether `=` or a space is between them."""
    name = SHORT.get(switch, switch)
    if name in REFUSED:
        return f"{switch}: {REFUSED[name]}"
    known = [name for name in (*SWITCHES, *HYDRA, "--info", "--config-dir", *FILES.get(job, ()), "--debug") if name.startswith("--")]
    with_value = [name for name, count in HYDRA.items() if count] + ["--info", "--config-dir", *FILES.get(job, ())]
    near = suggest(switch, with_value if value else known)
    setting = switch.lstrip("-").replace("-", "_")
    if setting and ("=" in word or (value and "Did" not in near)):
        return f"{word}: settings have no dashes. Did you mean '{setting}={value}'?"
    if setting == "dry_run":
        return f"{switch}: settings have no dashes. Did you mean 'dry_run=true'?"
    return f"loraloom {job} does not know {switch}. {near} A setting is KEY=VALUE, without dashes."
