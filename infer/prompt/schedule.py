"""Prompts that change while an image is denoised, in A1111's grammar: [from:to:when], [to:when], [from::when] and [a|b|c].

`when` with a point is a share of the steps, without one a step. The text of step number s, counted from 1, has `from` up to s = when
and `to` after it; of [a|b|c] it has option (s - 1) mod 3. A1111 counts the denoiser's calls from 0 and takes the first text whose last
step is not below: so the first text is used for one call more than its steps. That is kept, so that the images are A1111's.
(AUTOMATIC1111/stable-diffusion-webui 1.10, modules/prompt_parser.py.)
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_NUMBER = re.compile(r"\s*([+-]?(?:\d+\.\d*|\.\d+|\d+)(?:[eE][+-]?\d+)?)\s*")
_AND = re.compile(r"\bAND\b")
_WEIGHT = re.compile(r"[-+]?(?:\d+\.?|\d*\.\d+)")
DEEPEST = 50  # nested schedules


@dataclass(frozen=True)
class Timed:
    """The text of a prompt up to a step."""

    last: int
    text: str


@dataclass(frozen=True)
class _Change:
    before: tuple[_Node, ...]
    after: tuple[_Node, ...]
    when: int


@dataclass(frozen=True)
class _Turns:
    options: tuple[tuple[_Node, ...], ...]


_Node = str | _Change | _Turns


@dataclass(frozen=True)
class _Steps:
    """The steps of a pass, and of the one before it."""

    count: int
    before: int

    def at(self, when: str) -> int:
        """The step, counted from 1, of a number in a schedule; below 1 before the first one."""
        value = (float(when) - (1.0 if self.before else 0.0)) * self.count if "." in when else float(when) - self.before
        return int(max(-1.0, min(float(self.count), value)))


class _BadGrammar(Exception):
    """The prompt holds what A1111's grammar cannot read; it then takes the whole prompt as one text."""


def scheduled(text: str, steps: int, before: int = 0) -> list[Timed]:
    """The texts of a prompt by their last step, in order; one of all steps where nothing changes.

    Of a second pass `before` are the steps of the first one: A1111 counts steps on from there, and shares from 1.
    """
    try:
        nodes = _nodes(text, _Steps(steps, before), depth=0)
    except _BadGrammar:
        return [Timed(steps, text)]
    ends = sorted({steps, *_ends(nodes, steps)})
    return [Timed(end, _text(nodes, end)) for end in ends]


def text_at(timed: Sequence[Timed], call: int) -> int:
    """The place of the text of a denoiser call, counted from 0; of a call behind the last step, the first text's (as A1111)."""
    return next((place for place, one in enumerate(timed) if call <= one.last), 0)


def composed(text: str) -> list[tuple[str, float]]:
    """The prompts that AND joins, each with its weight: `a cat AND a dog :0.5`. A weight at the end counts without AND too."""
    found = []
    for part in _AND.split(text):
        head, colon, tail = part.rpartition(":")
        weight = _WEIGHT.fullmatch(tail.strip()) if colon else None
        found.append((part, 1.0) if weight is None else (head.rstrip(), float(weight[0])))
    return found


# --- the grammar


def _nodes(text: str, steps: _Steps, *, depth: int) -> tuple[_Node, ...]:
    """The text cut at its schedules. A | outside of [a|b] is outside of the grammar, and so is a : in brackets of no schedule."""
    if depth > DEEPEST:
        raise _BadGrammar
    nodes: list[_Node] = []
    start = place = 0
    closing = _closings(text)
    while place < len(text):
        sign = text[place]
        if sign == "\\":
            place += 2
            continue
        if sign == "|":
            raise _BadGrammar
        if sign == "[" and (end := closing.get(place)) is not None:
            found = _bracket(text[place + 1 : end], steps, depth)
            if found is not None:
                nodes += [text[start:place], found]
                start = place = end + 1
                continue
        place += 1
    return tuple(node for node in [*nodes, text[start:]] if node != "")


def _bracket(inner: str, steps: _Steps, depth: int) -> _Change | _Turns | None:
    """The schedule of what stands in square brackets; None where it is none."""
    options = _top_level(inner, "|")
    if len(options) > 1:
        if any(len(_top_level(option, ":")) > 1 for option in options):
            raise _BadGrammar
        return _Turns(tuple(_nodes(option, steps, depth=depth + 1) for option in options))
    parts = _top_level(inner, ":")
    number = _NUMBER.fullmatch(parts[-1])
    if number is None or len(parts) not in (2, 3):
        return None
    before = parts[0] if len(parts) == 3 else ""
    return _Change(_nodes(before, steps, depth=depth + 1), _nodes(parts[-2], steps, depth=depth + 1), steps.at(number[1]))


def _closings(text: str) -> dict[int, int]:
    """Place of each [ that is closed -> place of its ]."""
    opened: list[tuple[str, int]] = []
    found: dict[int, int] = {}
    place = 0
    while place < len(text):
        sign = text[place]
        if sign == "\\":
            place += 1
        elif sign in "([":
            opened.append((sign, place))
        elif sign in ")]" and opened and opened[-1][0] == ("(" if sign == ")" else "["):
            start = opened.pop()[1]
            if sign == "]":
                found[start] = place
        place += 1
    return found


def _top_level(text: str, mark: str) -> list[str]:
    """The text cut at a mark that is in no brackets."""
    parts, start, depth, place = [], 0, 0, 0
    while place < len(text):
        sign = text[place]
        if sign == "\\":
            place += 1
        elif sign in "([":
            depth += 1
        elif sign in ")]":
            depth -= 1
        elif sign == mark and depth == 0:
            parts.append(text[start:place])
            start = place + 1
        place += 1
    return [*parts, text[start:]]


def _ends(nodes: Sequence[_Node], steps: int) -> Iterator[int]:
    """The last step of every text but the last one."""
    for node in nodes:
        if isinstance(node, _Turns):
            yield from range(1, steps + 1)
        elif isinstance(node, _Change):
            if node.when >= 1:
                yield node.when
            yield from _ends(node.before, steps)
            yield from _ends(node.after, steps)


def _text(nodes: Sequence[_Node], step: int) -> str:
    """The text at a step, counted from 1."""
    parts = []
    for node in nodes:
        if isinstance(node, str):
            parts.append(node)
        elif isinstance(node, _Turns):
            parts.append(_text(node.options[(step - 1) % len(node.options)], step))
        else:
            parts.append(_text(node.before if step <= node.when else node.after, step))
    return "".join(parts)
