"""Weights in a prompt, in the grammars of A1111 and ComfyUI.

A1111: (x) is 1.1, [x] is 1 / 1.1, (x:1.3) is 1.3, all multiplied where they are nested; BREAK ends a chunk. ComfyUI: (x) is 1.1 times
what is around it, (x:1.3) is 1.3 whatever is around it; [x] has no meaning. In both a backslash takes a bracket's meaning away.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

from registry.architectures.text.weighted import Piece
from registry.errors import Refused

ROUND, SQUARE = 1.1, 1 / 1.1
DEEPEST = 100  # brackets in one another
_A1111 = re.compile(r"\\[()\[\]\\]|\\|[(\[]|:\s*([+-]?[.\d]+)\s*\)|[)\]]|[^\\()\[\]:]+|:")
_BREAK = re.compile(r"\s*\bBREAK\b\s*")


def a1111_pieces(text: str) -> list[Piece]:
    """The pieces of a prompt without schedules. Raises Refused for a weight that is no number and for BREAK inside brackets."""
    found: list[Piece] = []
    opened: dict[str, list[int]] = {"(": [], "[": []}  # places in `found` where brackets were opened

    def multiply(start: int, factor: float) -> None:
        for place in range(start, len(found)):
            if found[place].is_break:
                raise Refused(f"BREAK is inside brackets in {text!r}, where A1111 reads it as a word. Close the brackets before it.")
            found[place] = Piece(found[place].text, found[place].weight * factor)

    for match in _A1111.finditer(text):
        part, weight = match[0], match[1]
        if part.startswith("\\"):
            found.append(Piece(part[1:]))
        elif part in opened:
            opened[part].append(len(found))
        elif weight is not None and opened["("]:
            multiply(opened["("].pop(), _number(weight, text))
        elif part in (")", "]") and opened["(" if part == ")" else "["]:
            multiply(opened["(" if part == ")" else "["].pop(), ROUND if part == ")" else SQUARE)
        else:
            found += _split(part)
    for bracket, factor in (("(", ROUND), ("[", SQUARE)):
        for start in opened[bracket]:
            multiply(start, factor)
    return _joined(found)


def _split(text: str) -> Iterator[Piece]:
    """Text and the breaks in it."""
    for number, part in enumerate(_BREAK.split(text)):
        if number:
            yield Piece("", is_break=True)
        yield Piece(part)


def _number(text: str, prompt: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not abs(value) < 1e4:
        raise Refused(f"The weight {text!r} in {prompt!r} is no number. Expected (words:1.3).")
    return value


def _joined(pieces: list[Piece]) -> list[Piece]:
    """Neighbours of one weight as one piece; an empty prompt is one empty piece."""
    joined: list[Piece] = []
    for piece in pieces:
        last = joined[-1] if joined else None
        if last and not last.is_break and not piece.is_break and last.weight == piece.weight:
            joined[-1] = Piece(last.text + piece.text, last.weight)
        else:
            joined.append(piece)
    return joined or [Piece("")]


def comfy_pieces(text: str) -> list[Piece]:
    """The pieces of a prompt as ComfyUI's CLIPTextEncode reads it. A bracket that nothing closes is a letter.

    Raises Refused for brackets that are nested DEEPEST times.
    """
    if _depth(text) > DEEPEST:
        raise Refused(f"The prompt {text[:40]!r}... has more than {DEEPEST} brackets in one another. Leave some out.")
    found: list[Piece] = []
    todo = [(_hidden(text), 1.0)]  # still to be read, the first one last
    while todo:
        part, weight = todo.pop()
        groups = _groups(part)
        if groups == [part] and not _is_group(part):
            found.append(Piece(_shown(part), weight))
        else:
            todo += [_weighed(group, weight) if _is_group(group) else (group, weight) for group in reversed(groups)]
    return found or [Piece("")]


def _depth(text: str) -> int:
    deepest = depth = 0
    for sign in text:
        depth += (sign == "(") - (sign == ")")
        deepest = max(deepest, depth)
    return deepest


def _weighed(group: str, outer: float) -> tuple[str, float]:
    """What a group holds, and its weight."""
    head, colon, tail = group[1:-1].rpartition(":")
    try:
        value = float(tail) if colon and head else math.nan
    except ValueError:
        value = math.nan
    return (head, value) if math.isfinite(value) else (group[1:-1], outer * ROUND)


def _is_group(text: str) -> bool:
    return len(text) >= 2 and text[0] == "(" and text[-1] == ")"


def _groups(text: str) -> list[str]:
    """The text cut before each outermost ( and behind its ). A ) too many hides the next (."""
    parts, start, depth = [], 0, 0
    for place, sign in enumerate(text):
        if sign == "(":
            if depth == 0:
                parts.append(text[start:place])
                start = place
            depth += 1
        elif sign == ")":
            depth -= 1
            if depth == 0:
                parts.append(text[start : place + 1])
                start = place + 1
    return [part for part in (*parts, text[start:]) if part]


_OPEN, _CLOSE = "\x00\x01", "\x00\x02"  # of escaped brackets while the others are looked at; a prompt holds no NUL


def _hidden(text: str) -> str:
    return text.replace("\\)", _CLOSE).replace("\\(", _OPEN)


def _shown(text: str) -> str:
    return text.replace(_CLOSE, ")").replace(_OPEN, "(")
