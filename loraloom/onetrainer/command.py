"""`loraloom train --from-onetrainer FILE.json [KEY=VALUE ...]`: convert, then print the command or run it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from registry.errors import Faults, LoomError, Refused
from registry.home import expanded

if TYPE_CHECKING:
    from loraloom.hydra.job import Job
    from loraloom.onetrainer.base import BaseFacts

SWITCH = "--from-onetrainer"


def is_asked(argv: Sequence[str]) -> bool:
    """Whether the words hold the switch."""
    return any(word.partition("=")[0] == SWITCH for word in argv)


def words_of(argv: Sequence[str], job: "Job[Any]") -> list[str] | None:
    """The words of `loraloom train` that mean the same; None where they are printed. Raises Faults with what cannot be converted."""
    from loraloom.kohya.command import answered, steps_of
    from loraloom.onetrainer.convert import convert

    words, path = list(argv), None
    for place, word in enumerate(words):
        if word.partition("=")[0] == SWITCH:
            wide = 1 if "=" in word else 2
            path = word.partition("=")[2] or (words[place + 1] if place + 1 < len(words) else None)
            words[place : place + wide] = []
            break
    if not path or not path.endswith(".json"):
        raise Refused(f"{SWITCH} needs OneTrainer's JSON file after it: {SWITCH} config.json.")
    given = [word for word in words if "=" in word and not word.startswith("-")]
    found = convert(expanded(path), chosen=given, facts=_facts, steps=lambda settings: steps_of(job, settings))
    return answered(found, given, words, "OneTrainer")


def _facts(base: str) -> "BaseFacts":
    from loraloom.onetrainer.base import BaseFacts
    from registry.detect.loading import family_of
    from registry.store import Store

    try:
        record = Store().find(base, kind="checkpoint")
        family = family_of(record)
    except LoomError as error:
        raise Faults("The base is needed to know what OneTrainer would train:", [str(error)]) from error
    names = family.text_encoders
    prediction = "flow" if "flow" in family.predictions else record.prediction.value or "epsilon"
    clips = tuple(name for name in names if name in family.learning_encoders)
    return BaseFacts(
        prediction=prediction,
        guided=family.training_guidance is not None,
        clips=clips,
        others=tuple(name for name in names if name not in clips),
    )
