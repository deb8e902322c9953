"""The dialects of prompts: what a text becomes before it is encoded.

plain: every letter as it is, as diffusers' pipelines read it. a1111 and a1111_no_norm: weights, BREAK, AND, schedules, <lora:...>.
comfy: ComfyUI's weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from infer.prompt.attention import a1111_pieces, comfy_pieces
from infer.prompt.schedule import Timed, composed, scheduled
from registry.errors import Refused
from registry.family import Family
from registry.printable import counted, some

if TYPE_CHECKING:
    from registry.architectures.text.weighted import Piece

PLAIN, COMFY = "plain", "comfy"
A1111 = ("a1111", "a1111_no_norm")


@dataclass(frozen=True)
class Composed:
    """One of the prompts that AND joins: its weight, and its texts by their last step."""

    weight: float
    texts: Sequence[Timed]


def read_prompt(text: str, dialect: str, *, steps: int, before: int = 0, negative: bool = False) -> list[Composed]:
    """The prompts and texts of a prompt of a dialect that is not plain. A1111 reads no AND in a negative prompt.

    `before` are the steps of the pass before a second one.
    """
    if dialect == COMFY:
        return [Composed(1.0, [Timed(steps, text)])]
    if negative:
        return [Composed(1.0, scheduled(text, steps, before))]
    return [Composed(weight, scheduled(part, steps, before)) for part, weight in composed(text)]


def pieces_of(text: str, dialect: str) -> list[Piece]:
    """The weighted pieces of one text."""
    return comfy_pieces(text) if dialect == COMFY else a1111_pieces(text)


def dialect_faults(family: Family, dialect: str, texts: dict[str, str], *, steps: int, guided: bool, chunks: int) -> Iterator[str]:
    """What is wrong with the prompts (by their setting's name) in a dialect, and with the dialect for the family."""
    if dialect == PLAIN:
        return
    if family.encode_weighted is None:
        why = family.one_chunk or "it has no weighted encoding here"
        yield f"prompt_dialect is {dialect}, but a prompt of {family.title} is read as plain: {why}. Leave it out."
        return
    if chunks > 1:
        yield f"prompt_chunks is {chunks}, but in {dialect} a prompt has as many chunks as it needs. Leave it out."
    for name, text in texts.items():
        parts = read_prompt(text, dialect, steps=steps, negative=name != "prompt")
        if len(parts) > 1 and not guided:
            yield f"{name} joins {counted(len(parts), 'prompt')} by AND, which needs a pass without them. Expected a guidance above 1."
        faults: dict[str, None] = {}
        for timed in (timed for part in parts for timed in part.texts):
            try:
                pieces_of(timed.text, dialect)
            except Refused as error:
                faults[str(error)] = None
        yield from faults


def dialect_notes(texts: Sequence[str], dialect: str, *, steps: int) -> Iterator[str]:
    """Notes on what A1111's grammar does that a person may not mean."""
    if dialect not in A1111:
        return
    ends = [part.rpartition(":")[2].strip() for text in texts for part in _tails(text)]
    if ends:
        yield f"A number behind a colon at the end is the weight of the whole prompt, as in A1111: {some(ends, 4)}."
    whole = [text for text in texts if "|" in text and all(len(one.texts) == 1 for one in read_prompt(text, dialect, steps=steps))]
    if whole:
        yield f"A | outside of [a|b] makes A1111 read a prompt without any schedule: {some([repr(text) for text in whole], 2)}."


def _tails(text: str) -> Iterator[str]:
    parts = composed(text)
    if len(parts) == 1 and parts[0][0] != text:
        yield text
