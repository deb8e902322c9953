"""A prompt as the text encoders see it: its tokens, chunk by chunk, what was cut, and the nearest words of each embedding."""

# V words of the vocabulary, D width

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from infer.draw.render import Render
from infer.hires.passes import passes_of
from infer.prompt.dialect import PLAIN, pieces_of, read_prompt
from registry.architectures.text.clip import token_limit
from registry.architectures.text.clip_chunks import MARKS
from registry.architectures.text.weighted import EMPHASIS, weighted_chunks
from registry.family import Family
from registry.parts import Parts

if TYPE_CHECKING:
    from torch import Tensor, nn

NEAREST = 5
ROWS = 8192  # words of the vocabulary that are compared at once


@dataclass(frozen=True, kw_only=True)
class Near:
    """A word of the vocabulary near another: the cosine of their embeddings."""

    text: str
    id: int
    cosine: float


@dataclass(frozen=True, kw_only=True)
class Token:
    """One token. `cut`: the text encoder never sees it. `nearest` are other words of the vocabulary, the nearest first."""

    text: str
    id: int
    chunk: int  # from 0
    weight: float = 1.0
    cut: bool = False
    special: bool = False
    nearest: tuple[Near, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """A text for one text encoder. `fit` tokens are read at most, marks included; None where that is not known."""

    name: str  # prompt, negative
    text: str
    encoder: str
    kind: str  # the class of the encoder
    tokens: tuple[Token, ...]
    fit: int | None
    chunks: int

    def to_json(self) -> dict[str, Any]:
        """Plain values with stable keys."""
        return asdict(self) | {"cut": sum(one.cut for one in self.tokens)}


def tokens_of(render: Render, family: Family, parts: Parts) -> list[Tokens]:
    """The prompt and the negative prompt of a resolved Render, for each of its base's text encoders.

    `parts` has the tokens of textual inversion embeddings in its tokenizers. In a dialect each text that the prompt has by step is one,
    those of a second pass too.
    """
    found = []
    for name, given in (("prompt", render.prompt), ("negative", render.negative if render.any_guided else None)):
        if given is None:
            continue
        for text in _texts(given, render, negative=name == "negative"):
            for encoder, tokenizer, module in pairs(parts):
                found.append(_tokens(name, text, encoder, tokenizer, module, render, family, parts))
    return found


def pairs(parts: Parts) -> list[tuple[str, Any, nn.Module]]:
    """(name, tokenizer, encoder) of each text encoder."""
    return [
        (name, tokenizer, encoder)
        for (name, encoder), tokenizer in zip(parts.text_encoders.items(), parts.tokenizers.values(), strict=False)
        if encoder is not None and tokenizer is not None
    ]


def is_clip(encoder: nn.Module) -> bool:
    """Whether an encoder is CLIP's text side."""
    return "clip" in str(encoder.config.model_type)  # type: ignore[union-attr]  # transformers is untyped


def without_marks(text: str, render: Render, *, negative: bool = False) -> str:
    """A prompt of a Render as plain text: without the weights of its dialect, as it is at the first step."""
    first = next(iter(_texts(text, render, negative=negative)), "")
    return first if render.prompt_dialect == PLAIN else "".join(piece.text for piece in pieces_of(first, render.prompt_dialect))


def _texts(text: str, render: Render, *, negative: bool) -> Iterable[str]:
    if render.prompt_dialect == PLAIN:
        return [text]
    found: dict[str, None] = {}
    before = 0
    for one in passes_of(render):  # the second one reads on where the first one ended
        steps = (one.render.steps if one.walked is None else one.walked) or 1
        if one.render.guided or not negative:
            read = read_prompt(text, render.prompt_dialect, steps=steps, before=before, negative=negative)
            found |= dict.fromkeys(timed.text for part in read for timed in part.texts)
        before += steps
    return found


def _tokens(
    name: str, text: str, component: str, tokenizer: Any, encoder: nn.Module, render: Render, family: Family, parts: Parts
) -> Tokens:
    fit: int | None
    if not is_clip(encoder):
        ids = list(tokenizer(text, truncation=False, verbose=False).input_ids)
        fit = _fit(ids, text, family, parts)
        rows = [(one, 0, 1.0, fit is not None and place >= fit) for place, one in enumerate(ids)]
        chunks = 1
    elif render.prompt_dialect == PLAIN:
        inside, chunks = token_limit(tokenizer, encoder) - MARKS, render.prompt_chunks
        fit = chunks * inside + MARKS
        own = tokenizer(text, truncation=False, verbose=False).input_ids[1:-1]
        rows = [(one, min(place // inside, chunks - 1), 1.0, place >= chunks * inside) for place, one in enumerate(own)]
    else:
        made = weighted_chunks(tokenizer, encoder, pieces_of(text, render.prompt_dialect), EMPHASIS[render.prompt_dialect])
        rows = [(one, at, weight, False) for at, chunk in enumerate(made) for one, weight in zip(chunk.ids, chunk.weights, strict=True)]
        fit, chunks = None, len(made)
    special = set(tokenizer.all_special_ids)
    near = nearest_words(tokenizer, encoder, [one for one, *_ in rows if one not in special])
    return Tokens(
        name=name,
        text=text,
        encoder=component,
        kind=type(encoder).__name__,
        tokens=tuple(
            Token(
                text=_first(shown) if not place else shown, id=one, chunk=at, weight=weight, cut=cut, special=one in special, nearest=words
            )
            for place, (one, at, weight, cut) in enumerate(rows)
            for shown, words in ((spelt(tokenizer, one), near.get(one, ())),)
        ),
        fit=fit,
        chunks=chunks,
    )


def _fit(ids: Sequence[int], text: str, family: Family, parts: Parts) -> int | None:
    """How many of a prompt's tokens an encoder that is not CLIP reads; None where the family's count is of another encoder.

    The family counts those of its instruction around the prompt, too.
    """
    needed, fit = family.count_tokens(replace(parts, prompt_chunks=1), text)
    if any(is_clip(one) for one in parts.text_encoders.values()) and needed != len(ids):
        return None
    return len(ids) - max(0, needed - fit) if needed > fit else fit


def nearest_words(tokenizer: Any, encoder: nn.Module, ids: Sequence[int], *, count: int = NEAREST) -> dict[int, tuple[Near, ...]]:
    """For each id the words of the vocabulary whose input embeddings have the largest cosine with its own; itself and marks aside.

    Ids behind the table (textual inversion embeddings) have none.
    """
    import torch

    table: Any = encoder.get_input_embeddings().weight.detach()  # type: ignore[operator]  # (V, D)
    wanted = [one for one in dict.fromkeys(ids) if one < len(table)]
    if not wanted:
        return {}
    own = _unit(table[wanted])
    cosines = torch.cat([own @ _unit(table[start : start + ROWS]).T for start in range(0, len(table), ROWS)], dim=1)  # (ids, V)
    known = min(len(table), len(tokenizer))
    cosines[:, known:] = -2  # rows without a word
    cosines[:, [one for one in tokenizer.all_special_ids if one < len(table)]] = -2
    cosines[torch.arange(len(wanted)), torch.tensor(wanted)] = -2
    best = cosines.topk(min(count, known), dim=1)
    return {
        one: tuple(
            Near(text=spelt(tokenizer, word), id=word, cosine=round(cosine, 4))
            for word, cosine in zip(words, values, strict=True)
            if cosine > -2
        )
        for one, words, values in zip(wanted, best.indices.tolist(), best.values.tolist(), strict=True)
    }


def _unit(rows: Tensor) -> Tensor:
    import torch

    return torch.nn.functional.normalize(rows.float().cpu(), dim=-1)


def _first(text: str) -> str:
    """The first token of a text begins a word, with a blank before it or without."""
    return text[1:] if text.startswith("-") and len(text) > 1 else text


def spelt(tokenizer: Any, token: int) -> str:
    """A token as a person reads it; `-` where a word goes on: behind one of CLIP's pieces, before one of the others'."""
    raw = str(tokenizer.convert_ids_to_tokens(token))
    text = str(tokenizer.convert_tokens_to_string([raw])).strip() or raw
    if raw in tokenizer.all_special_tokens:
        return raw
    if "\ufffd" in text:  # a part of a sign's bytes
        return raw.removesuffix("</w>")
    if raw.endswith("</w>"):
        return text.removesuffix("</w>").strip() or raw
    if type(tokenizer).__name__.startswith("CLIP"):
        return f"{text}-"
    return text if raw[:1] in "▁Ġ" else f"-{text}" if text[:1].isalnum() else text
