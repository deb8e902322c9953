"""Weighted pieces of text, spelt in the grammar that A1111 and ComfyUI share: (words:1.3), brackets of the text itself escaped."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from infer.draw.values import number

_OUTER = re.compile(r"^(\s*)(.*?)(\s*)$", re.DOTALL)


@dataclass(frozen=True)
class Weighted:
    """A piece of a prompt and its weight."""

    text: str
    weight: float = 1.0


def spelt(pieces: Iterable[Weighted], *, square: bool = False) -> str:
    """The pieces as a prompt. Round brackets of the texts are escaped; with `square`, for A1111, square ones and backslashes too."""
    signs = re.compile(r"([\\()\[\]])" if square else r"([()])")
    joined: list[Weighted] = []
    for one in pieces:
        if joined and joined[-1].weight == one.weight:
            joined[-1] = Weighted(joined[-1].text + one.text, one.weight)
        elif one.text:
            joined.append(one)
    return "".join(_spelt(one, signs) for one in joined)


def _spelt(one: Weighted, signs: re.Pattern[str]) -> str:
    text = signs.sub(r"\\\1", one.text)
    match = _OUTER.match(text)
    if abs(one.weight - 1.0) < 1e-9 or match is None or not match[2]:
        return text
    return f"{match[1]}({match[2]}:{number(round(one.weight, 6))}){match[3]}"
