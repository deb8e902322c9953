"""The names that other tools have for a job's settings, each answered with ours and its value."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

Given = Mapping[str, str]  # what the command line gives, as typed, and the defaults of what it does not


@dataclass(frozen=True)
class Answer:
    """Our settings for one of another tool, and what to know of them; no settings where there is nothing like it here."""

    settings: tuple[str, ...]  # NAME=VALUE
    note: str = ""

    def __str__(self) -> str:
        if not self.settings:
            return f"{self.note}."
        return f"here this is {' '.join(self.settings)}{f' ({self.note})' if self.note else ''}."


Alias = Callable[[str, Given], Answer]  # (the value as typed, the other settings) -> the answer
Aliases = Mapping[str, Alias]


def alias_answer(aliases: Aliases, name: str, value: str, given: Given) -> str | None:
    """What to say of a setting of another tool; None for a name that none has. Dashes and upper case are taken as kohya's parser does."""
    known, plain = name.lstrip("+-").replace("-", "_").lower(), value.strip("\"'")
    return str(aliases[known](plain, {**given, known: plain})) if known in aliases else None


# --- the kinds of rows


def same(*names: str, note: str = "") -> Alias:
    """A setting of another name: the value is ours as it is."""
    return lambda value, _given: Answer(tuple(f"{name}={value or 'VALUE'}" for name in names), note)


def switch(*, on: Answer, off: Answer) -> Alias:
    """A setting that is true or false, or a switch without a value."""
    return lambda value, _given: off if value.lower() in ("false", "0", "no", "off", "none") else on


def choice(*rows: tuple[str, Answer], other: Callable[[str], Answer]) -> Alias:
    """A setting with named values: (words, answer) rows; case and dashes do not matter. `other` answers for what is not listed."""
    words = {word: answer for several, answer in rows for word in several.split()}

    def answer(value: str, _given: Given) -> Answer:
        found = words.get("".join(letter for letter in value.lower() if letter.isalnum()))
        return other(value) if found is None else found

    return answer


def missing(nearest: str) -> Alias:
    """Nothing here: what comes nearest, or why it is not needed."""
    return lambda _value, _given: Answer((), f"there is no such setting here: {nearest}")


def needless(why: str) -> Alias:
    """What is done anyway."""
    return lambda _value, _given: Answer((), f"leave it out: {why}")
