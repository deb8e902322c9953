"""Random numbers by position: seed, key, source and chunk determine them, never threads or the order of the work."""

from __future__ import annotations

import hashlib
import math
import threading
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from registry.merging.method import Place

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray
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
    first = _first_beyond(limit)
    if first >= ONES:
        return torch.ones_like(like)
    words = words[: like.numel()].reshape(like.shape)
    found = words.view(numpy.float32) if like.dtype == torch.float32 else torch.empty_like(like).numpy()
    numpy.less(words, numpy.uint32(first), out=found, casting="unsafe")  # fp32 in the place of the words: less to hold in the cache
    return torch.from_numpy(found)


@lru_cache(maxsize=8)
def _first_beyond(limit: float) -> int:
    """The first number of 32 bits that is not below; torch compares with the limit in fp32, too."""
    import numpy

    return math.ceil(float(numpy.float32(limit)) * (1 << 24)) << 8


class _Generator:
    """A thread's own, which is set to a place again and again: a new one each time would ask the system for a seed first."""

    def __init__(self) -> None:
        import numpy

        self.stream = numpy.random.Philox()
        self.place: dict[str, NDArray[numpy.uint64]] = {"counter": numpy.zeros(4, dtype=numpy.uint64)}
        self.state: Any = {
            "bit_generator": "Philox",
            "state": self.place,
            "buffer": numpy.zeros(4, dtype=numpy.uint64),
            "buffer_pos": 4,  # nothing is left over
            "has_uint32": 0,
            "uinteger": 0,
        }


_own = threading.local()


def _bits(seed: int, source: int, at: Place | None) -> numpy.random.Philox:
    """This thread's generator, at the place."""
    own = getattr(_own, "generator", None)
    if own is None:
        own = _own.generator = _Generator()
    own.place["key"] = _key(f"{seed}\n{source}\n{at.key if at is not None else ''}")
    own.place["counter"][2] = at.begin if at is not None else 0
    own.stream.state = own.state  # which it copies
    return own.stream


@lru_cache(maxsize=64)
def _key(place: str) -> NDArray[numpy.uint64]:
    """Philox's key: the first half of a sha256."""
    import numpy

    return numpy.frombuffer(hashlib.sha256(place.encode()).digest()[:16], dtype="<u8").astype(numpy.uint64)
