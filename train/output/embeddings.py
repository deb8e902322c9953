"""The embeddings of a run's new tokens: written beside the adapter, put back from a checkpoint, proven on a fresh base."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.architectures.text.textual_inversion import add_tokens, read_textual_inversion, with_tokens
from registry.errors import JobFailed
from registry.formats.atomic_file import write_safetensors
from registry.parts import Parts
from registry.record import Hashes
from train.loop.checkpoint import Checkpoint
from train.loop.prepare import Work
from train.output.header import embedding_header, write_adapter
from train.tokens.new_token import NewToken
from train.tokens.rows import embedding_file

if TYPE_CHECKING:
    from torch import Tensor

IN_CHECKPOINTS = "embedding-"  # begins the names of their files there


@dataclass(frozen=True, kw_only=True)
class Embedding:
    """An embedding that was written, and the vectors that it must hold."""

    token: NewToken
    path: Path
    hashes: Hashes
    vectors: Mapping[str, Tensor] = field(repr=False)  # text encoder -> (n, D), fp32


def checkpoint_file(token: NewToken) -> str:
    """The token's file in a checkpoint."""
    return f"{IN_CHECKPOINTS}{token.file_name}.safetensors"


def write_weights(work: Work, path: Path, step: int) -> None:
    """The adapter of a checkpoint, and the embeddings beside it."""
    write_adapter(work, path, step)
    for token in work.plan.tokens:
        _write(work, token, path.with_name(checkpoint_file(token)), step)


def write_embeddings(work: Work, step: int) -> list[Embedding]:
    """The embeddings of a run's end, in its folder. Raises JobFailed for vectors that training left as they were."""
    vectors = work.state.vectors
    if vectors is not None and not vectors.moved:
        raise JobFailed(
            "The new tokens' vectors are as they began: training changed nothing of them. Look at optim.token_lr and tokens.share."
        )
    found = []
    for token in work.plan.tokens:
        path = work.folder / embedding_file(token)
        path.parent.mkdir(exist_ok=True)
        found.append(_write(work, token, path, step))
    return found


def _write(work: Work, token: NewToken, path: Path, step: int) -> Embedding:
    """Write one. Raises JobFailed for a vector that is not finite: no such file is written."""
    import torch

    assert work.state.vectors is not None
    vectors = work.state.vectors.of_token(token)
    rate = "optim.token_lr" if work.plan.layers else "optim.lr"
    if not all(bool(torch.isfinite(rows).all()) for rows in vectors.values()):
        raise JobFailed(f"Vectors of {token.token!r} are not finite; no file is written. Resume with a lower {rate}.")
    tensors = {token.keys[component]: rows for component, rows in vectors.items()}
    hashes = write_safetensors(path, tensors, metadata=embedding_header(work, token, step))
    return Embedding(token=token, path=path, hashes=hashes, vectors=vectors)


def put_back(work: Work, found: Checkpoint) -> None:
    """The vectors of a checkpoint in place of those that were trained last."""
    if work.state.vectors is not None:
        work.state.vectors.put({token.token: _read(found.folder / checkpoint_file(token), token) for token in work.plan.tokens})


def _read(path: Path, token: NewToken) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
        return {component: tensors[key] for component, key in token.keys.items()}
    except (OSError, KeyError, SafetensorError) as error:
        raise JobFailed(f"{path} does not hold the vectors of {token.token!r} ({error}). Remove its checkpoint, and resume.") from error


def with_embeddings(fresh: Parts, written: list[Embedding]) -> Parts:
    """A fresh base with the files loaded by the registry's reader. Raises JobFailed for other vectors than were trained."""
    if not written:
        return fresh
    read = [read_textual_inversion(one.path, fresh, token=None, name=one.token.file_name) for one in written]
    before = {component: len(fresh.text_encoders[component].get_input_embeddings().weight) for component in written[0].vectors}  # type: ignore[operator]
    loaded = with_tokens(fresh, read)
    add_tokens(loaded, read)
    for component, count in before.items():
        encoder: Any = loaded.text_encoders[component]
        rows = encoder.get_input_embeddings().weight[count:].cpu()
        place = 0
        for one, found in zip(written, read, strict=True):
            trained = one.vectors[component]
            if found.token != one.token.token or not rows[place : place + len(trained)].equal(trained.to(rows.dtype)):
                raise JobFailed(f"{one.path} gives other vectors for {one.token.token!r} than were trained; it is not registered.")
            place += len(trained)
    return loaded
