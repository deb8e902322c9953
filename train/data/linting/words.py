"""Captions as words and phrases, and how near two words are."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

WORD = re.compile(r"\w[\w'’-]*")
BETWEEN = re.compile(r"[,;.!?\n]")  # most captions that are sentences have none, and are not split
SEGMENT = re.compile(r"[,;.!?\n]+(?:\s|$)|\n")
_SMALL = """
    a an the and or but nor of in on at to by for from with without into onto over under above below near beside behind between across
    around along through as is are was were be been being am has have having it its this that these those there here he she they him his
    her them their we us our you your i my who which what where when while up down out off not no very some any each every other both all
    one two during toward towards against upon within than then so do does did holds holding shows showing looks looking
    features featuring including
"""
SMALL_WORDS = frozenset(_SMALL.split())  # they name nothing that is seen


def segments(text: str) -> list[str]:
    """The parts between commas and at the ends of sentences."""
    if not BETWEEN.search(text):
        return [part] if (part := text.strip()) else []
    return [part for part in map(str.strip, SEGMENT.split(text)) if part]


def words(text: str) -> list[str]:
    """Lower-case words."""
    found = WORD.findall(text)
    return "\n".join(found).casefold().split("\n") if found else []  # no word has a line break


def phrases(text: str, longest: int) -> Iterator[str]:
    """Runs of up to `longest` words inside one segment, as they are written there."""
    for segment in segments(text):
        ends = [match.span() for match in WORD.finditer(segment)]
        for first in range(len(ends)):
            for last in range(first, min(first + longest, len(ends))):
                yield segment[ends[first][0] : ends[last][1]]


def plain_form(text: str) -> str:
    """The letters and digits alone, in lower case."""
    return re.sub(r"[\W_]+", "", text.casefold())


def distance(one: str, other: str, most: int) -> int:
    """Insertions, deletions, replacements and exchanges of neighbours that make one of the other, or most + 1 where there are more.

    The optimal string alignment distance.
    """
    if abs(len(one) - len(other)) > most:
        return most + 1
    before: Sequence[int] = []
    row: Sequence[int] = range(len(other) + 1)
    for place, letter in enumerate(one, 1):
        below = [place]
        for column, against in enumerate(other, 1):
            cost = min(row[column] + 1, below[-1] + 1, row[column - 1] + (letter != against))
            if place > 1 and column > 1 and letter == other[column - 2] and one[place - 2] == against:
                cost = min(cost, before[column - 2] + 1)
            below.append(cost)
        if min(below) > most:
            return most + 1
        before, row = row, below
    return min(row[-1], most + 1)
