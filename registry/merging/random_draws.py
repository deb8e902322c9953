"""Random numbers by position: seed, key, source and chunk determine them, never threads or the order of the work."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from registry.merging.method import Place

if TYPE_CHECKING:
    from torch import Tensor


def uniform(like: Tensor, *, seed: int, source: int, at: Place | None) -> Tensor:
    """Numbers in [0, 1), fp32, one for each element of a chunk of source number `source`."""
    import numpy
    import torch

    place = at if at is not None else Place("", 0)
    digest = hashlib.sha256(f"{seed}\n{source}\n{place.key}".encode()).digest()
    key = numpy.frombuffer(digest[:16], dtype="<u8").astype(numpy.uint64)
    stream = numpy.random.Philox(key=key, counter=numpy.array([0, 0, place.begin, 0], dtype=numpy.uint64))
    return torch.from_numpy(numpy.random.Generator(stream).random(like.numel(), dtype=numpy.float32)).reshape(like.shape)
