"""Random numbers by position: seed, key, source and chunk determine them, never threads or the order of the work."""

from __future__ import annotations

import hashlib
import math
import threading
from typing import TYPE_CHECKING

from registry.merging.method import Place

if TYPE_CHECKING:
    import numpy
    from torch import Tensor


ONES = 1 << 32  # numbers of 32 bits, of which the upper 24 make a fp32 number in [0, 1)


def uniform(like: Tensor, *, seed: int, source: int, at: Place | None) -> Tensor:
    """Numbers in [0, 1), fp32, one for each element of a chunk of source number `source`."""
    import numpy
    import torch

    stream = numpy.random.Generator(_bits(seed, source, at))
    return torch.from_numpy(stream.random(like.numel(), dtype=numpy.float32)).reshape(like.shape)


def below(limit: float, like: Tensor, *, seed: int, source: int, at: Place | None) -> Tensor:
    """1 where `uniform` is less than `limit`, 0 elsewhere, in the dtype of `like`: from the generator's bits, in half the time."""
    import numpy
    import torch

    words = _bits(seed, source, at).random_raw(-(-like.numel() // 2)).astype("<u8", copy=False).view("<u4")  # the lower half is drawn first
    first = math.ceil(float(numpy.float32(limit)) * (1 << 24)) << 8  # that is not below; torch compares with the limit in fp32, too
    if first >= ONES:
        return torch.ones_like(like)
    found = torch.empty_like(like)
    numpy.less(words[: like.numel()].reshape(like.shape), numpy.uint32(first), out=found.numpy(), casting="unsafe")
    return found


class _Own(threading.local):
    """A thread's generator, which is set to a place again and again: a new one each time would ask the system for a seed first."""

    def __init__(self) -> None:
        import numpy

        self.stream = numpy.random.Philox()


_own = _Own()


def _bits(seed: int, source: int, at: Place | None) -> numpy.random.Philox:
    """This thread's generator, at the place."""
    import numpy

    place = at if at is not None else Place("", 0)
    digest = hashlib.sha256(f"{seed}\n{source}\n{place.key}".encode()).digest()
    key = numpy.frombuffer(digest[:16], dtype="<u8").astype(numpy.uint64)
    counter = numpy.array([0, 0, place.begin, 0], dtype=numpy.uint64)
    _own.stream.state = {
        "bit_generator": "Philox",
        "state": {"counter": counter, "key": key},
        "buffer": numpy.zeros(4, dtype=numpy.uint64),
        "buffer_pos": 4,  # nothing is left over
        "has_uint32": 0,
        "uinteger": 0,
    }
    return _own.stream
