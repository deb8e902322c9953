"""What a plan shows of new tokens: their vectors, the files, who loads them, and what is unusual."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from registry.architectures.text.textual_inversion import LEGACY_END, tokenizer_of
from registry.parts import Parts
from registry.printable import counted
from train.tokens.new_token import LOADS_IN, NewToken

FOLDER = "embeddings"  # of the run folder, as A1111 and ComfyUI call theirs


def embedding_file(token: NewToken) -> str:
    """The token's file in a run folder."""
    return f"{FOLDER}/{token.file_name}.safetensors"


def token_rows(
    tokens: Sequence[NewToken], counts: Mapping[str, int], *, images: int, rate: float, steps: int, of: int
) -> list[tuple[str, str]]:
    """Rows of the plan's text. `counts`: images with the token, of `images`; `rate`: the peak; trained in `steps` of `of`."""
    rows = []
    for token in tokens:
        begins = "random vectors" if token.init is None else repr(token.init)
        encoders = " and ".join(token.widths)
        where = f"in {counts[token.token]} of {counted(images, 'prompt')}"
        rows.append(
            f"{token.token!r}: {counted(token.vectors, 'vector')} of {encoders} ({token.parameters:,} weights), from {begins}, {where}"
        )
        keys = " and ".join(token.keys.values())
        typed = f"prompts have {token.file_name} in A1111 and Forge, embedding:{token.file_name} in ComfyUI, {token.token} in diffusers"
        rows.append(f"  {embedding_file(token)} ({keys}), loads in {LOADS_IN}: {typed}")
    if rows:
        share = "in every step" if steps == of else f"in the first {steps} of {counted(of, 'step')}"
        rows.append(f"trained at a peak rate of {rate:g} {share}, fp32; each prompt is encoded again in each step")
    return [("tokens" if not place else "", row) for place, row in enumerate(rows)]


def tokens_json(tokens: Sequence[NewToken], counts: Mapping[str, int]) -> list[dict[str, Any]]:
    """Plain values of the plan, stable keys."""
    return [
        {
            "token": token.token,
            "vectors": token.vectors,
            "init": token.init,
            "parameters": token.parameters,
            "images": counts[token.token],
            "file": embedding_file(token),
            "keys": dict(token.keys),
            "loads_in": LOADS_IN,
        }
        for token in tokens
    ]


def token_notes(tokens: Sequence[NewToken], counts: Mapping[str, int], *, images: int, parts: Parts) -> Iterator[str]:
    """What is allowed and probably not intended, and where runtimes read a token otherwise."""
    for token in tokens:
        if token.init is None:
            yield f"{token.token!r} begins from random vectors; a word for what it is (init: drawing, woman) begins much nearer"
        if counts[token.token] < images:
            yield (
                f"{token.token!r} stands in {counts[token.token]} of {counted(images, 'prompt')}; "
                f"data.trigger={token.token} adds it to the others"
            )
        known = [name for name in token.keys if f"{token.file_name}</w>" in parts.tokenizers[tokenizer_of(name)].get_vocab()]
        if known:
            yield (
                f"A1111 and Forge read the word {token.file_name!r}, the name of {token.token!r}'s file, as the embedding in every prompt:"
                " rename the file there, or give a token that is no word"
            )
    old = [
        name for name in (tokens[0].keys if tokens else ()) if getattr(parts.text_encoders[name].config, "eos_token_id", None) == LEGACY_END
    ]
    if old and len(parts.text_encoders) > 1:  # then the last one's pooled state is read
        yield (
            f"the config of {' and '.join(old)} has eos_token_id 2, by which diffusers takes the pooled state at a new token in place of"
            " the end; here, as in ComfyUI and A1111, it is that of the end. For the same images in diffusers set"
            f" pipe.{old[-1]}.text_model.eos_token_id to the tokenizer's"
        )
