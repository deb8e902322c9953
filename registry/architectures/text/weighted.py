"""Prompts with a weight on each token, as A1111 and ComfyUI encode them: chunks of CLIP's context, then the states are weighted.

a1111 (AUTOMATIC1111/stable-diffusion-webui 1.10, "Original"): z' = w z, then z' mean(z) / mean(z') over the chunk.
a1111_no_norm ("No norm"): z' = w z. comfy: z' = e + w (z - e), e being the states of an empty prompt. (z: hidden states.)
"""

# B texts, N chunks, T tokens of a chunk with its BOS and EOS, D width

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from registry.architectures.text.clip import token_limit
from registry.architectures.text.clip_chunks import MARKS, MOST
from registry.errors import JobFailed, Refused

if TYPE_CHECKING:
    from torch import Tensor, nn

BACKTRACK = 20  # tokens behind the last comma of a full chunk that A1111 moves into the next one
NO_MEAN = 1e-5  # of the states' mean size: a mean below it is rounding
LONG_WORD = 8  # tokens from which ComfyUI cuts a piece where a chunk is full


@dataclass(frozen=True)
class Piece:
    """A part of a prompt whose tokens have one weight; a break ends the chunk."""

    text: str
    weight: float = 1.0
    is_break: bool = False


@dataclass
class Chunk:
    """Tokens of one chunk without its marks, and the weight of each."""

    ids: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)

    def add(self, ids: Sequence[int], weight: float) -> None:
        """Append tokens of one weight."""
        self.ids += ids
        self.weights += [weight] * len(ids)

    def cut(self, at: int) -> Chunk:
        """Take off what is behind the first `at` tokens, as a chunk of its own."""
        rest = Chunk(self.ids[at:], self.weights[at:])
        del self.ids[at:], self.weights[at:]
        return rest


# --- chunks


def a1111_chunks(
    pieces: Sequence[Piece],
    ids_of: Callable[[str], list[int]],
    *,
    inside: int,
    comma: int | None,
    vectors: Mapping[int, int] = MappingProxyType({}),
) -> list[Chunk]:
    """Chunks of at most `inside` tokens. In a full one, what is behind its last comma moves on where that is BACKTRACK tokens or less.

    A textual inversion embedding of several `vectors` (id of its first token -> their number) is not cut: it begins the next chunk.
    """
    chunks, last_comma = [Chunk()], -1
    for piece in pieces:
        if piece.is_break:
            chunks.append(Chunk())
            last_comma = -1
            continue
        for one, *others in _units(ids_of(piece.text), vectors):
            full = len(chunks[-1].ids) == inside
            if one == comma:
                last_comma = len(chunks[-1].ids)
            elif full and last_comma != -1 and inside - last_comma <= BACKTRACK:
                chunks.append(chunks[-1].cut(last_comma + 1))
                full, last_comma = False, -1
            if full or len(chunks[-1].ids) + 1 + len(others) > inside:
                chunks.append(Chunk())
                last_comma = -1
            chunks[-1].add([one, *others], piece.weight)
    return chunks if chunks[-1].ids or len(chunks) == 1 else chunks[:-1]


def comfy_chunks(
    pieces: Sequence[Piece], ids_of: Callable[[str], list[int]], *, inside: int, vectors: Mapping[int, int] = MappingProxyType({})
) -> list[Chunk]:
    """Chunks of at most `inside` tokens. A piece of less than LONG_WORD tokens is not cut: it moves into the next chunk.

    A textual inversion embedding, and what is before and behind it, are pieces of their own.
    """
    chunks = [Chunk()]
    for piece in pieces:
        for group in _groups(ids_of(piece.text), vectors):
            _fill(chunks, group, piece.weight, inside)
    return chunks


def _fill(chunks: list[Chunk], ids: list[int], weight: float, inside: int) -> None:
    """Put the tokens of a piece into the last chunk, or into new ones as ComfyUI does."""
    is_long = len(ids) >= LONG_WORD
    while ids:
        room = inside - len(chunks[-1].ids)
        if len(ids) <= room:
            chunks[-1].add(ids, weight)
            return
        if is_long:
            chunks[-1].add(ids[:room], weight)
            ids = ids[room:]
        chunks.append(Chunk())


def _units(ids: Sequence[int], vectors: Mapping[int, int]) -> Iterator[list[int]]:
    """The tokens one by one, those of an embedding together."""
    place = 0
    while place < len(ids):
        count = vectors.get(ids[place], 1)
        yield list(ids[place : place + count])
        place += count


def _groups(ids: Sequence[int], vectors: Mapping[int, int]) -> list[list[int]]:
    """The tokens in runs: each embedding, and all that is between two."""
    groups: list[list[int]] = [[]]
    for unit in _units(ids, vectors):
        if unit[0] in vectors:
            groups += [unit, []]
        else:
            groups[-1] += unit
    return [group for group in groups if group]


# --- states


def _restored_mean(states: Tensor, weights: Tensor, _empty: Tensor | None, counts: Tensor) -> Tensor:
    weighted = states * weights[..., None]

    def mean(values: Tensor) -> Tensor:
        return (values.mean((1, 2)) * counts).sum() / counts.sum()

    found = mean(weighted)
    if not abs(float(found)) > NO_MEAN * float(weighted.abs().mean()):
        raise JobFailed(
            f"The weighted prompt's states have a mean of {float(found):.1e}, which cannot be restored as A1111 does it."
            " Use prompt_dialect=a1111_no_norm."
        )
    return weighted * (mean(states) / found)


def _not_restored(states: Tensor, weights: Tensor, _empty: Tensor | None, _counts: Tensor) -> Tensor:
    return states * weights[..., None]


def _from_empty(states: Tensor, weights: Tensor, empty: Tensor | None, _counts: Tensor) -> Tensor:
    assert empty is not None
    return ((states - empty) * weights[..., None] + empty).where(weights[..., None] != 1.0, states)


@dataclass(frozen=True)
class Emphasis:
    """How the states of a chunk are weighted, of the texts of one schedule together: A1111 restores the mean over all of them."""

    weigh: Callable[[Tensor, Tensor, Tensor | None, Tensor], Tensor]  # states (B, T, D), weights (B, T), empty (T, D), counts (B)
    is_comfy: bool = False  # chunks are cut as ComfyUI does, and the states of the empty prompt are needed


EMPHASIS: Mapping[str, Emphasis] = {
    "a1111": Emphasis(_restored_mean),
    "a1111_no_norm": Emphasis(_not_restored),
    "comfy": Emphasis(_from_empty, is_comfy=True),
}


@dataclass(frozen=True)
class WeightedText:
    """One text of a prompt: its pieces, and for how many steps' turns it is used."""

    pieces: Sequence[Piece]
    count: int = 1


def weighted_chunks(tokenizer: Any, encoder: nn.Module, pieces: Sequence[Piece], emphasis: Emphasis) -> list[Chunk]:
    """The chunks of a prompt for one encoder. Raises Refused beyond MOST of them."""

    def ids_of(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False, truncation=False, verbose=False).input_ids)

    inside = token_limit(tokenizer, encoder) - MARKS
    vectors = getattr(tokenizer, "vectors", {})
    if longest := [count for count in vectors.values() if count > inside]:
        raise Refused(f"A textual inversion embedding has {longest[0]} vectors, and a chunk of this encoder takes {inside} tokens.")
    if emphasis.is_comfy:
        chunks = comfy_chunks(pieces, ids_of, inside=inside, vectors=vectors)
    else:
        chunks = a1111_chunks(pieces, ids_of, inside=inside, comma=tokenizer.get_vocab().get(",</w>"), vectors=vectors)
    if len(chunks) > MOST:
        raise Refused(f"The prompt has {len(chunks)} chunks of {inside} tokens. Expected at most {MOST}: shorten it.")
    return chunks


def weighted_states(
    tokenizer: Any,
    encoder: nn.Module,
    texts: Sequence[Sequence[Chunk]],
    emphasis: Emphasis,
    state: Callable[[Any, nn.Module], Tensor],
    *,
    counts: Sequence[int],
) -> tuple[Tensor, Any]:
    """(states (B, N T, D) weighted, the encoder's output of the first chunks). `state` picks the hidden state of an output.

    Every text has N chunks, the last ones empty where it needs fewer.
    """
    import torch

    heavy = any(weight != 1.0 for chunks in texts for chunk in chunks for weight in chunk.weights)
    empty = state(_output(tokenizer, encoder, [Chunk()]), encoder)[0] if heavy and emphasis.is_comfy else None
    outputs = [_output(tokenizer, encoder, [chunks[number] for chunks in texts]) for number in range(len(texts[0]))]
    weighted = []
    for number, output in enumerate(outputs):
        states = state(output, encoder)  # (B, T, D)
        own = [[1.0, *chunks[number].weights, *[1.0] * (states.shape[1] - 1 - len(chunks[number].weights))] for chunks in texts]
        if any(weight != 1.0 for row in own for weight in row):
            states = emphasis.weigh(states, torch.tensor(own).to(states), empty, torch.tensor(counts).to(states))
        weighted.append(states)
    return torch.cat(weighted, dim=1), outputs[0]


def same_length(texts: Sequence[Sequence[Chunk]], *, at_least: int = 1) -> list[list[Chunk]]:
    """The chunks of every text, with empty ones behind them up to the number of the longest."""
    longest = max(at_least, *map(len, texts))
    return [[*chunks, *(Chunk() for _ in range(longest - len(chunks)))] for chunks in texts]


def _row(tokenizer: Any, encoder: nn.Module, chunk: Chunk) -> list[int]:
    """The ids of a chunk: BOS, its tokens, EOS, padding."""
    bos, eos = tokenizer("", truncation=False, verbose=False).input_ids
    ids = [bos, *chunk.ids, eos]
    return [*ids, *[tokenizer.pad_token_id] * (token_limit(tokenizer, encoder) - len(ids))]


def _output(tokenizer: Any, encoder: nn.Module, chunks: Sequence[Chunk]) -> Any:
    """The encoder's output for one chunk of each text."""
    import torch

    ids = torch.tensor([_row(tokenizer, encoder, chunk) for chunk in chunks], device=next(encoder.parameters()).device)
    mask = None
    if getattr(encoder.config, "use_attention_mask", False):
        lengths = torch.tensor([len(chunk.ids) + MARKS for chunk in chunks], device=ids.device)
        mask = (torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]).to(ids.dtype)
    return encoder(ids, attention_mask=mask, output_hidden_states=True)
