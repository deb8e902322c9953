"""Choices in prompts, as sd-dynamic-prompts writes them: {a|b}, {2$$a|b|c}, {0.7::a|0.3::b} and __name__, a line of NAME.txt.

Each choice is drawn from the image's seed, from left to right; what is drawn may hold further ones. The text that comes out is the
image's prompt.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random

from registry.errors import Refused
from registry.names import suggest

DEEPEST = 20  # choices in one another
MOST_LETTERS = 20_000  # of a prompt that comes out
_NAME = re.compile(r"__([\w*/ -]+?)__")
_AMOUNT = re.compile(r"\s*(\d{1,4})(?:\s*-\s*(\d{1,4}))?\$\$(?:([^|{}]*?)\$\$)?")
_WEIGHT = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)::")

Lines = Mapping[str, Sequence[str]]  # name -> what it can be


def read_wildcards(folder: Path) -> dict[str, list[str]]:
    """The lines of every .txt file of a folder by its path without the ending; empty lines and comments (#) are left out.

    Raises Refused for what is no folder, holds no file, or holds one that is no UTF-8 or has no line.
    """
    files = sorted(folder.rglob("*.txt")) if folder.is_dir() else []
    if not files:
        raise Refused(f"wildcards={folder} is no folder with .txt files. Expected one, with a file of lines for each __NAME__.")
    found: dict[str, list[str]] = {}
    for file in files:
        try:
            lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines()]
        except (UnicodeDecodeError, OSError) as error:
            raise Refused(f"{file} cannot be read as UTF-8 ({error}).") from None
        name = file.relative_to(folder).with_suffix("").as_posix()
        found[name] = [line for line in lines if line and not line.startswith("#")]
        if not found[name]:
            raise Refused(f"{file} has no line that __{name}__ could be.")
    return found


def chosen(text: str, seed: int, lines: Lines) -> str:
    """The prompt with every choice made. Raises Refused for a name without a file, and for choices that are not closed or do not end."""
    return _chosen(text, Random(f"prompt {seed}"), lines, 0)


def _chosen(text: str, draw: Random, lines: Lines, depth: int) -> str:
    if depth > DEEPEST or (depth and len(text) > MOST_LETTERS):
        raise Refused(f"The choices in {text[:60]!r} do not end: a wildcard names itself, or they are nested more than {DEEPEST} times.")
    parts, place, ends = [], 0, _ends(text)
    while place < len(text):
        name = _NAME.match(text, place)
        if name is not None:
            parts.append(_chosen(draw.choice(_lines(name[1], lines)), draw, lines, depth + 1))
            place = name.end()
        elif text[place] == "{" and (end := ends.get(place)) is not None:
            parts.append(_choice(text[place + 1 : end], draw, lines, depth))
            place = end + 1
        else:
            if text[place] == "{" and _has_options(text, place, ends):
                raise Refused(f"The choices in {text[place : place + 60]!r} have no }} at their end.")
            parts.append(text[place])
            place += 1
    return "".join(parts)


def _has_options(text: str, place: int, ends: Mapping[int, int]) -> bool:
    """Whether a | of its own comes after a { that is not closed; A1111's [a|b] is none."""
    place += 1
    while place < len(text) and (place in ends or text[place] not in "{}[]|"):
        place = ends.get(place, place) + 1
    return text[place : place + 1] == "|"


def _choice(inner: str, draw: Random, lines: Lines, depth: int) -> str:
    """What {...} becomes: one of its options, or several, each at most once."""
    amount = _AMOUNT.match(inner)
    options = _options(inner[amount.end() :] if amount else inner)
    if amount is None and len(options) == 1:
        return "{" + _chosen(inner, draw, lines, depth + 1) + "}"
    weights = [float(found[1]) if (found := _WEIGHT.match(option)) else 1.0 for option in options]
    texts = [_WEIGHT.sub("", option, count=1) for option in options]
    count = 1 if amount is None else draw.randint(*sorted((int(amount[1]), int(amount[2] or amount[1]))))
    separator = ", " if amount is None or amount[3] is None else amount[3]
    taken: list[str] = []
    while texts and len(taken) < count and sum(weights) > 0:
        (place,) = draw.choices(range(len(texts)), weights)
        taken.append(_chosen(texts.pop(place), draw, lines, depth + 1))
        weights.pop(place)
    return separator.join(taken)


def _lines(name: str, lines: Lines) -> list[str]:
    if "*" in name:
        pattern = re.compile("".join(".*" if sign == "*" else re.escape(sign) for sign in name))
        found = [line for known, own in lines.items() if pattern.fullmatch(known) for line in own]
    else:
        found = list(lines.get(name, ()))
    if not found:
        raise Refused(f"__{name}__ names no file of wildcards. {suggest(name, lines)}" if lines else f"__{name}__ needs wildcards=FOLDER.")
    return found


def _ends(text: str) -> dict[int, int]:
    """Place of each { that is closed -> place of its }."""
    opened: list[int] = []
    found: dict[int, int] = {}
    for place, sign in enumerate(text):
        if sign == "{":
            opened.append(place)
        elif sign == "}" and opened:
            found[opened.pop()] = place
    return found


def _options(inner: str) -> list[str]:
    """The options of {...}: cut at each | that is in no further braces."""
    options, start, depth = [], 0, 0
    for place, sign in enumerate(inner):
        depth += (sign == "{") - (sign == "}")
        if sign == "|" and depth == 0:
            options.append(inner[start:place])
            start = place + 1
    return [*options, inner[start:]]
