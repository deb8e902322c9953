"""Textual inversion embeddings (Gal et al. 2022): vectors that CLIP's text encoders use for a token of the prompt.

As diffusers loads them: a token with several vectors becomes `token`, `token_1`, `token_2`, ... The encoders get a longer input
embedding table, the tokenizers the new tokens; both can be restored to the bit.
"""

# N vectors of a token, D width of an encoder

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.errors import BadFile, Refused
from registry.formats.safetensors_header import TensorInfo, read_header
from registry.parts import Parts

if TYPE_CHECKING:
    from torch import nn

TOKEN = "loraloom.token"  # of a header: the token that the vectors were trained for
LEGACY_END = 2  # eos_token_id in configs of before transformers 4.32, where CLIP's end is the token with the highest id
NAMELESS = ("emb_params", "clip_l", "clip_g", "string_to_param")  # keys that are no token: A1111 uses the file's name


@dataclass(frozen=True, kw_only=True)
class TextualInversion:
    """A textual inversion embedding: its token in a prompt, its file, and the key of each text encoder's vectors in the file."""

    token: str
    path: Path
    keys: Mapping[str, str]  # component (text_encoder, text_encoder_2) -> key


def read_textual_inversion(path: Path | str, parts: Parts, *, token: str | None, name: str) -> TextualInversion:
    """The embedding of a file for this base, from its header alone; `name` is the token where the file has none and none is given.

    Raises Refused where the base has no CLIP text encoder, or one of another width; BadFile for what is no embedding.
    """
    path = Path(path)
    header = read_header(path)
    tensors = header.tensors
    if not tensors or any(len(info.shape) not in (1, 2) for info in tensors.values()):
        raise BadFile(path, "not-an-embedding", "holds no vectors of a textual inversion embedding.")
    encoders = clip_encoders(parts)
    if not encoders:
        raise Refused(f"{path.name} is a textual inversion embedding for CLIP, but this base's text encoders are none: it cannot read it.")
    own = next((key for key in tensors if len(tensors) == 1 and not key.startswith(NAMELESS)), header.metadata.get(TOKEN, name))
    embedding = TextualInversion(token=token or own, path=path, keys=_keys(path, tensors, encoders))
    _check_token(embedding, parts, tensors)
    return embedding


def clip_encoders(parts: Parts) -> dict[str, Any]:
    """The text encoders of a CLIP kind, by component."""
    encoders: Mapping[str, Any] = parts.text_encoders
    return {name: encoder for name, encoder in encoders.items() if str(encoder.config.model_type).startswith("clip")}


def _keys(path: Path, tensors: Mapping[str, TensorInfo], encoders: Mapping[str, Any]) -> dict[str, str]:
    """Which vectors each encoder reads: those of its width, clip_l before clip_g where widths are alike."""
    free = sorted(tensors, key=lambda key: (key == "clip_g", key))
    keys: dict[str, str] = {}
    for component, encoder in encoders.items():
        width = encoder.config.hidden_size
        found = next((key for key in free if tensors[key].shape[-1] == width), None)
        if found is None:
            widths = ", ".join(str(info.shape[-1]) for info in tensors.values())
            raise Refused(f"{path.name} has vectors of width {widths}; this base's {component} has width {width}.")
        keys[component] = found
        free.remove(found)
    return keys


def _check_token(embedding: TextualInversion, parts: Parts, tensors: Mapping[str, TensorInfo]) -> None:
    for component, key in embedding.keys.items():
        count = tensors[key].shape[0] if len(tensors[key].shape) == 2 else 1
        known = parts.tokenizers[tokenizer_of(component)].get_vocab()
        if taken := [spelt for spelt in spellings(embedding.token, count) if spelt in known or not spelt.strip()]:
            raise Refused(
                f"The token {embedding.token!r} of {embedding.path.name} is in the base's vocabulary already ({taken[0]!r})."
                " Give the textual inversion embedding another: {embedding: NAME, token: '<word>'}."
            )


def spellings(token: str, count: int) -> list[str]:
    """The tokens of an embedding of so many vectors: token, token_1, token_2."""
    return [token, *(f"{token}_{number}" for number in range(1, count))]


def tokenizer_of(component: str) -> str:
    """The name of a text encoder's tokenizer."""
    return component.replace("text_encoder", "tokenizer")


class TokenizerWithEmbeddings:
    """A tokenizer with the tokens of textual inversion embeddings; an embedding of several vectors becomes that many tokens.

    `vectors`: how many tokens each embedding is, by the id of its first.
    """

    def __init__(self, tokenizer: Any, embeddings: Sequence[tuple[str, int]]) -> None:
        self._tokenizer = copy.deepcopy(tokenizer)
        self._tokenizer.add_tokens([spelt for token, count in embeddings for spelt in spellings(token, count)])
        self.vectors = {int(self._tokenizer.convert_tokens_to_ids(token)): count for token, count in embeddings}
        self._several = {token: " ".join(spellings(token, count)) for token, count in embeddings if count > 1}

    def __call__(self, text: str | Sequence[str], **options: Any) -> Any:
        texts = self._expanded(text) if isinstance(text, str) else [self._expanded(one) for one in text]
        return self._tokenizer(texts, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def __len__(self) -> int:
        return len(self._tokenizer)

    def _expanded(self, text: str) -> str:
        used = set(self._tokenizer.tokenize(text, verbose=False)) if self._several else ()
        for token in used:
            text = text.replace(token, self._several.get(token, token))
        return text


def with_tokens(parts: Parts, embeddings: Sequence[TextualInversion]) -> Parts:
    """The parts with the embeddings' tokens in their tokenizers; the encoders are unchanged, which is enough to count tokens."""
    if not embeddings:
        return parts
    headers = {embedding.path: read_header(embedding.path).tensors for embedding in embeddings}
    tokenizers = dict(parts.tokenizers)
    for component in embeddings[0].keys:
        shapes = [headers[embedding.path][embedding.keys[component]].shape for embedding in embeddings]
        counted = [(embedding.token, shape[0] if len(shape) == 2 else 1) for embedding, shape in zip(embeddings, shapes, strict=True)]
        tokenizers[tokenizer_of(component)] = TokenizerWithEmbeddings(tokenizers[tokenizer_of(component)], counted)
    return replace(parts, tokenizers=tokenizers)


def add_tokens(parts: Parts, embeddings: Sequence[TextualInversion]) -> dict[str, nn.Module]:
    """Append the embeddings' vectors to the encoders' input embeddings, in the order of `with_tokens`; gives the original tables."""
    import torch
    from safetensors import safe_open

    own: dict[str, nn.Module] = {}
    for component in embeddings[0].keys if embeddings else ():
        encoder: Any = parts.text_encoders[component]
        own[component] = table = encoder.get_input_embeddings()
        rows = [table.weight]
        for embedding in embeddings:
            with safe_open(embedding.path, framework="pt") as file:
                vectors = file.get_tensor(embedding.keys[component])  # (D) or (N, D)
            rows.append(vectors.reshape(-1, vectors.shape[-1]).to(table.weight.device, table.weight.dtype))
        longer = torch.nn.Embedding(sum(map(len, rows)), rows[0].shape[1], device="meta")
        longer.weight = torch.nn.Parameter(torch.cat(rows), requires_grad=False)
        encoder.set_input_embeddings(longer)
    read_pooled_at_end(parts, own)
    return own


def remove_tokens(parts: Parts, own: Mapping[str, nn.Module]) -> None:
    """Restore the encoders' original input embeddings."""
    for component, table in own.items():
        encoder: Any = parts.text_encoders[component]
        encoder.set_input_embeddings(table)
        for module in encoder.modules():
            if hasattr(module, "eos_token_id") and encoder.config.eos_token_id == LEGACY_END:
                module.eos_token_id = LEGACY_END


def read_pooled_at_end(parts: Parts, components: Iterable[str]) -> None:
    """Let CLIP take its pooled state at the end of the text, as ComfyUI and A1111 do, where new tokens have the highest ids.

    Configs with eos_token_id 2 (SDXL's) let transformers search the highest id, which then is the new token's. `remove_tokens` undoes it.
    """
    for component in components:
        encoder: Any = parts.text_encoders[component]
        for module in encoder.modules():
            if getattr(module, "eos_token_id", None) == LEGACY_END:
                module.eos_token_id = parts.tokenizers[tokenizer_of(component)].eos_token_id
