"""Alternatives in captions: {a red|a blue} hat is one of the two each time. {{ and }} are the signs themselves, as in sd-scripts."""

from __future__ import annotations

import re
from collections.abc import Callable

CHOICE = re.compile(r"\{([^{}]*)\}")
SIGNS = (("{{", "\x01"), ("}}", "\x02"))  # the signs while choices are read; no text has these characters
WEIGHTED = re.compile(r"\$\$|(?:^|\|)\s*\d+(?:\.\d+)?::")  # dynamicprompts' counts and weights
EMPTY = re.compile(r"\s*,(?:\s*,)+")


def wildcard_fault(caption: str) -> str | None:
    """Why the caption's alternatives cannot be read, or None."""
    text = _hidden(caption)
    if any(WEIGHTED.search(found[1]) for found in CHOICE.finditer(text)):
        return "its caption has counts or weights in {...} (2$$, 2::), which are not read; write an alternative several times"
    if set("{}") & set(CHOICE.sub("", text)):
        return (
            "its caption has a { or } without its partner, or one {...} in another; {a|b} is a choice, {{ and }} are the signs themselves"
        )
    return None


def has_choice(caption: str) -> bool:
    """Whether there are two alternatives or more to choose from."""
    return any(len(set(found[1].split("|"))) > 1 for found in CHOICE.finditer(_hidden(caption)))


def resolved(caption: str, choose: Callable[[int], int]) -> str:
    """The caption with one alternative of each choice; `choose` gives one of 0 .. n - 1. An empty one leaves no doubled comma."""
    chosen: list[str] = []

    def one(found: re.Match[str]) -> str:
        alternatives = found[1].split("|")
        chosen.append(alternatives[choose(len(alternatives))].strip())
        return chosen[-1]

    text = CHOICE.sub(one, _hidden(caption))
    for signs, place in SIGNS:
        text = text.replace(place, signs[0])
    return EMPTY.sub(",", text).strip(" ,") if "" in chosen else text


def _hidden(caption: str) -> str:
    for signs, place in SIGNS:
        caption = caption.replace(signs, place)
    return caption
