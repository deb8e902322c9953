"""Activations that a forward pass keeps, in main memory until the backward pass needs them.

With gradient checkpointing these are the inputs of the checkpointed blocks and the few tensors between them. What is kept is a storage:
a tensor that several blocks take, or a view of one, lies in main memory once and comes back with its own strides and offset, so that
every kernel rounds as it would have. Between the passes nothing of it is on the device; in the backward pass the storages come back
from the last to the first, the next ones on a stream of their own beside the arithmetic (as in Unsloth's and torchtune's offloading).
"""

from __future__ import annotations

import logging
import weakref
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from registry.swapping.blocks import LINE
from registry.swapping.host import locked_memory

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

LOG = logging.getLogger(__name__)

LEAST = 1024  # bytes: smaller ones stay on the device (torchtune's min_offload_size)
AHEAD = 2  # storages that come back before they are asked for: a double block of a transformer has two inputs of its own
CLASSES = 8  # sizes of main memory within a power of two, so that passes of other images find the memory of the last one


@dataclass
class ActivationLedger:
    """Bytes of storages that were put away: on the device now and at most, and in main memory now and at most."""

    resident: int = 0
    peak: int = 0
    host: int = 0
    host_peak: int = 0

    def arrive(self, size: int) -> None:
        self.resident += size
        self.peak = max(self.peak, self.resident)

    def leave(self, size: int) -> None:
        self.resident -= size

    def put_away(self, size: int) -> None:
        self.host += size
        self.host_peak = max(self.host_peak, self.host)

    def freed(self, size: int) -> None:
        self.host -= size


class ActivationOffload:
    """What the forward passes inside `keeping` keep of activations lies in main memory.

    The weights of `modules` stay where they are. On the meta device no copy is made: a trace then counts what the device holds.
    """

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self.ledger = ActivationLedger()
        self._modules = modules
        self._memory = _HostMemory()
        self._stream: Any = None
        self._weights: set[int] = set()  # storages, by their address
        self._counted: set[int] = set()
        self._known: dict[int, weakref.ref[_Kept]] = {}  # storage on the device -> what was made of it
        self._order: list[weakref.ref[_Kept]] = []  # as they were put away, since the last backward pass
        self._next = 0  # number of the one that is expected next, from the last to the first
        self._ahead: list[weakref.ref[_Kept]] = []

    @contextmanager
    def keeping(self) -> Iterator[None]:
        """Around forward passes with gradients; the backward pass may come after it."""
        import torch

        weights = (weight for module in self._modules for weight in (*module.parameters(), *module.buffers()))
        self._weights = {weight.untyped_storage()._cdata for weight in weights}
        with torch.autograd.graph.saved_tensors_hooks(self._pack, self._unpack):
            yield

    def _pack(self, tensor: Tensor) -> Tensor | _View:
        import torch
        from torch.utils._python_dispatch import is_traceable_wrapper_subclass

        kind: Any = tensor
        if tensor.layout is not torch.strided or is_traceable_wrapper_subclass(kind):
            return tensor
        storage = tensor.untyped_storage()
        size = storage.nbytes()
        real = tensor.device.type != "meta"
        foreign = real and storage.data_ptr() % LINE != 0  # memory that torch did not make: a copy would begin elsewhere in a cache line
        if size < LEAST or size % tensor.itemsize or foreign or storage._cdata in self._weights:
            return tensor
        known = self._known.get(storage._cdata)
        kept = known() if known else None
        if kept is None:
            kept = self._put_away(tensor, storage, size)
        else:
            kept.shared = True
        return _View(kept, tensor.dtype, tuple(tensor.shape), tuple(tensor.stride()), int(tensor.storage_offset()))

    def _put_away(self, tensor: Tensor, storage: torch.UntypedStorage, size: int) -> _Kept:
        import torch

        if self._next < len(self._order):  # a backward pass has been
            del self._order[:]
        kept = _Kept(len(self._order), size, tensor.device, there=weakref.ref(storage))
        if tensor.device.type != "meta":
            whole = torch.empty(0, dtype=torch.uint8, device=tensor.device).set_(storage)
            kept.host = self._memory.take(size, tensor.device)
            with self._copying(tensor.device):
                kept.host[:size].copy_(whole, non_blocking=True)
            if self._stream is not None:
                whole.record_stream(self._stream)
            weakref.finalize(kept, self._memory.give, kept.host)
        self.ledger.put_away(size)
        weakref.finalize(kept, self.ledger.freed, size)
        self._watch(storage, size)
        self._known[storage._cdata] = reference = weakref.ref(kept)
        weakref.finalize(storage, self._known.pop, storage._cdata, None)
        self._order.append(reference)
        self._next = len(self._order)
        return kept

    def _unpack(self, packed: Tensor | _View) -> Tensor:
        import torch

        if isinstance(packed, torch.Tensor):
            return packed
        kept = packed.kept
        storage = self._on_the_device(kept)
        if self._stream is not None and kept.ready is not None:
            torch.cuda.current_stream(kept.device).wait_event(kept.ready)
        kept.fetched = storage if kept.shared else None  # of the others what uses it holds it
        self._fetch_ahead(kept)
        whole = torch.empty(0, dtype=packed.dtype, device=kept.device)
        return whole.set_(storage, packed.offset, packed.shape, packed.strides)

    def _fetch_ahead(self, kept: _Kept) -> None:
        """Begin to copy what comes next, where this was not one of the first that many blocks take."""
        if not self._next - AHEAD <= kept.number < self._next:
            return
        self._next = kept.number
        ahead = self._order[max(0, self._next - AHEAD) : self._next]
        for one in (reference() for reference in self._ahead if reference not in ahead):
            if one is not None and not one.shared:
                one.fetched = None  # it was not asked for: no gradient goes there
        for one in (reference() for reference in reversed(ahead)):
            if one is not None:
                one.fetched = self._on_the_device(one)
        self._ahead = ahead

    def _on_the_device(self, kept: _Kept) -> torch.UntypedStorage:
        """The storage: the copy that is there, or a new one."""
        import torch

        there = kept.there()
        if there is not None:  # as the inputs of the model, which the caller holds
            return there
        whole = torch.empty(kept.size, dtype=torch.uint8, device=kept.device)
        if kept.host is not None:
            with self._copying(kept.device):
                whole.copy_(kept.host[: kept.size], non_blocking=True)
            if self._stream is not None:
                whole.record_stream(self._stream)
                kept.ready = torch.cuda.Event()  # type: ignore[no-untyped-call]
                kept.ready.record(self._stream)
        storage = whole.untyped_storage()
        self._watch(storage, kept.size)
        kept.there = weakref.ref(storage)
        return storage

    def _watch(self, storage: torch.UntypedStorage, size: int) -> None:
        """Count a storage for as long as it is on the device: also what the caller holds."""
        address = storage._cdata
        if address not in self._counted:
            self._counted.add(address)
            self.ledger.arrive(size)
            weakref.finalize(storage, self._left, address, size)

    def _left(self, address: int, size: int) -> None:
        self._counted.discard(address)
        self.ledger.leave(size)

    @contextmanager
    def _copying(self, device: torch.device) -> Iterator[None]:
        """The copies' own stream, behind what made the tensor or still reads the memory that it gets."""
        import torch

        if device.type != "cuda":
            yield
            return
        if self._stream is None:
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(self._stream):
            yield


@dataclass(eq=False)
class _Kept:
    """A storage that was put away."""

    number: int  # in the order in which they were
    size: int  # bytes
    device: torch.device
    there: weakref.ref[torch.UntypedStorage]  # on the device, while something holds it
    shared: bool = False  # several blocks take it: it stays on the device once it is back
    host: Tensor | None = None  # bytes, at least as many; None on the meta device
    fetched: torch.UntypedStorage | None = None  # ahead, until it is asked for
    ready: Any = None  # CUDA event behind the copy


class _View(NamedTuple):
    """A tensor on a storage that was put away."""

    kept: _Kept
    dtype: torch.dtype
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int


@dataclass
class _HostMemory:
    """Pieces of main memory that are used again: locking pages takes longer than copying them.

    All copies are in the order of one stream, so that a piece may be given back while it is still read.
    """

    free: dict[int, list[Tensor]] = field(default_factory=lambda: defaultdict(list))
    warned: bool = False

    def take(self, size: int, device: torch.device) -> Tensor:
        """At least so many bytes, page-locked for a GPU."""
        import torch

        room = rounded(size)
        if self.free[room]:
            return self.free[room].pop()
        if device.type != "cuda":
            return torch.empty(room, dtype=torch.uint8)
        found, locked = locked_memory(room)
        if not locked and not self.warned:
            self.warned = True
            LOG.warning(
                "activations lie in memory that the system does not lock: their copies go on beside no arithmetic, and steps are slower"
            )
        return found

    def give(self, piece: Tensor) -> None:
        self.free[piece.nbytes].append(piece)


def rounded(size: int) -> int:
    """The next of CLASSES sizes within a power of two: at most an eighth more."""
    step = max(LEAST, 1 << max(0, (size - 1).bit_length() - 1)) // CLASSES
    return -(-size // step) * step
