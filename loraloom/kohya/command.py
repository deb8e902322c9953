"""`loraloom train --from-kohya FILE.toml [FILE.toml ...] [KEY=VALUE ...]`: convert, then print the command or run it."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loraloom import console
from registry.errors import Faults, LoomError, Refused
from registry.home import expanded

if TYPE_CHECKING:
    from loraloom.hydra.job import Job
    from loraloom.kohya.converted import Converted

SWITCH = "--from-kohya"
PRINT = "--print"


def is_asked(argv: Sequence[str]) -> bool:
    """Whether the words hold the switch."""
    return any(word.partition("=")[0] == SWITCH for word in argv)


def words_of(argv: Sequence[str], job: "Job[Any]") -> list[str] | None:
    """The words of `loraloom train` that mean the same; None where they are printed. Raises Faults with what cannot be converted."""
    from loraloom.kohya.convert import convert

    paths, rest = _apart(argv)
    given = [word for word in rest if "=" in word and not word.startswith("-")]
    found = convert(paths, chosen=given, facts=_facts, steps=lambda settings: steps_of(job, settings))
    return answered(found, given, rest, "sd-scripts")


def answered(found: "Converted", given: Sequence[str], rest: Sequence[str], tool: str) -> list[str] | None:
    """The settings before the words of the command line; None where they are printed, with where each comes from."""
    from loraloom.kohya.convert import overrides, to_json, to_text

    if PRINT in rest:
        console.answer_json(to_json(found)) if "--json" in rest else console.answer_lines(to_text(found, given, tool))
        return None
    for name, reason in found.ignored.items():
        console.say(f"ignored: {name}: {reason}")
    for note in dict.fromkeys(found.notes):
        console.say(f"note: {note}")
    return [*overrides(found), *rest]


def _apart(argv: Sequence[str]) -> tuple[list[Path], list[str]]:
    """The files, and all other words."""
    paths: list[Path] = []
    rest: list[str] = []
    words = list(argv)
    while words:
        word = words.pop(0)
        name, equals, value = word.partition("=")
        if name != SWITCH:
            rest.append(word)
            continue
        paths += [expanded(value)] if equals else []
        while not equals and words and words[0].endswith(".toml") and ("=" not in words[0] or Path(words[0]).is_file()):
            paths.append(expanded(words.pop(0)))
    if not paths:
        raise Refused(f"{SWITCH} needs sd-scripts' TOML files after it: {SWITCH} config.toml dataset.toml.")
    return paths, rest


def _facts(base: str) -> tuple[bool, bool]:
    from registry.detect.loading import family_of
    from registry.store import Store

    try:
        family = family_of(Store().find(base, kind="checkpoint"))
    except LoomError as error:
        raise Faults("The base is needed to know what sd-scripts would train:", [str(error)]) from error
    return "flow" in family.predictions, family.clip_layer > 1


def steps_of(job: "Job[Any]", settings: list[str]) -> tuple[int, float]:
    """(steps, epochs) of the plan with these settings."""
    from loraloom.hydra.arguments import Arguments
    from loraloom.hydra.composer import Composer
    from registry.store import Store
    from train.run import plan

    request = Composer(job, Arguments(overrides=settings, hydra=[])).request()
    with console.progress() as report:
        made = plan(request.config, Store(), given=request.given, report=report)
    return made.config.steps, made.epochs
