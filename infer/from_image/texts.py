"""The prompts, and how they are encoded."""

from __future__ import annotations

from infer.draw.render import SETTINGS
from infer.draw.values import number
from infer.from_image.taking import A1111_LIKE, Taking
from infer.prompt.dialect import PLAIN, pieces_of
from registry.errors import Refused
from registry.family import Family


def take_texts(taking: Taking) -> None:
    found, family = taking.metadata, taking.family
    texts = {"prompt": found.prompt, "negative": found.negative}
    dialect = found.dialect
    if family is not None and dialect != PLAIN and family.encode_weighted is None:
        for name, text in texts.items():
            bare = _without_weights(text, dialect) if text else text
            if bare != text:
                taking.leave(name, text, f"a prompt of {family.title} has no weights: they are left out")
            texts[name] = bare
        dialect = PLAIN
    if dialect != PLAIN and "prompt_dialect" not in taking.given:
        taking.settings["prompt_dialect"] = SETTINGS["prompt_dialect"].type[dialect]
    taking.put("prompt", texts["prompt"])
    unguided = found.guidance is not None and found.guidance <= 1 and "guidance" not in taking.given
    if texts["negative"] and unguided:
        taking.leave("negative prompt", texts["negative"], f"at a CFG scale of {number(found.guidance or 0)} nothing reads it")
    else:
        taking.put("negative", texts["negative"])
    _take_clip_skip(taking, family)


def _take_clip_skip(taking: Taking, family: Family | None) -> None:
    """A1111 counts from 1, the last layer, and skips on bases alone that read the last one by themselves."""
    layer = taking.metadata.clip_skip
    own = 1 if family is None else family.clip_layer
    if layer is None or layer == own or "clip_skip" in taking.given:
        return
    if taking.metadata.tool in A1111_LIKE and own > 1:
        taking.leave("Clip skip", layer, f"it has no effect on {family.title if family else 'this base'} in {taking.metadata.tool}")
    elif layer < own or (family is not None and family.one_chunk is not None):
        taking.leave("Clip skip", layer, f"the prompts of {family.title if family else 'this base'} are not read from that layer")
    else:
        taking.put("clip_skip", layer - own)


def _without_weights(text: str, dialect: str) -> str:
    try:
        return "".join(piece.text for piece in pieces_of(text, dialect))
    except Refused:
        return text
