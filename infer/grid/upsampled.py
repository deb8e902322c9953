"""What a plan shows of upsampled prompts: each with its text, and those that stay as they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from infer.draw.render import Render
from registry.printable import some

MOST_TEXTS = 20  # in a plan that a person reads


def upsampled_prompts(renders: Iterable[Render]) -> list[dict[str, Any]]:
    """{upsample, prompt, text} of every distinct prompt that was upsampled, in order."""
    found = dict.fromkeys((str(one.upsample), one.typed_prompt, one.prompt) for one in renders if one.typed_prompt is not None)
    return [{"upsample": how, "prompt": typed, "text": text} for how, typed, text in found]


def unchanged_prompts(renders: Iterable[Render]) -> Iterator[str]:
    """A note for each way that leaves prompts as they are."""
    same: dict[str, dict[str, None]] = {}
    for row in upsampled_prompts(renders):
        if row["prompt"] == row["text"]:
            same.setdefault(row["upsample"], {})[repr(row["prompt"])] = None
    for how, texts in same.items():
        why = "they hold no vague word that the rules know" if how == "concrete" else "there is nothing to add"
        yield f"upsample={how} leaves {len(texts)} prompt(s) as typed ({why}): {some(texts, 4)}."
