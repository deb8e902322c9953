"""Slots on the device that swapped blocks take turns in: copied on a stream of their own, counted, never more than there is room for.

On a GPU the copies run beside the arithmetic. Three orders make that safe, all of them on the GPU, so that the CPU waits for nothing:
a copy into a slot waits for `free`, recorded behind the last kernel that read the block before; the arithmetic waits for `ready`, recorded
behind the copy; and the slots' memory is known to the allocator as used by both streams. Elsewhere the same code copies at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from registry.swapping.blocks import LINE, SLOTS, room

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class HeldBlock:
    """A block whose frozen tensors lie in main memory, but for the time in which it has a slot.

    The storage behind each parameter and buffer is exchanged, whatever its dtype; the modules stay as they are.
    """

    def __init__(self, name: str, tensors: Sequence[Tensor]) -> None:
        self.name = name
        self.tensors = tensors
        self.weights = sum(tensor.nbytes for tensor in tensors)
        self.size = sum(room(tensor.nbytes) for tensor in tensors)
        self._home: list[Tensor] | None = None
        self._whole: Tensor | None = None  # one piece of main memory that all of them lie in
        self._gathered: list[int] = []  # where in memory they lie there

    def gather(self, whole: Tensor) -> None:
        """Put the tensors into one piece of main memory (`size` bytes), laid out as in a slot, so that one copy fetches them.

        Each begins at a multiple of ALIGNED, as in torch's CUDA allocator, wherever in its file it lay: CUDA's products of 8 and 16 bits
        need multiples of 16 bytes, or take other kernels.
        """
        place = 0
        for tensor in self.tensors:
            view = whole[place : place + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
            place += room(tensor.nbytes)
            tensor.data = view.copy_(tensor.data)
        self._whole, self._gathered = whole, [tensor.data_ptr() for tensor in self.tensors]

    def views(self, buffer: Tensor) -> list[Tensor]:
        """Where each tensor lies in a slot's buffer (bytes)."""
        found, place = [], 0
        for number, tensor in enumerate(self.tensors):
            inside = tensor.data_ptr() % LINE // tensor.itemsize * tensor.itemsize  # a file whose header is not filled up begins anywhere
            begin = place + inside if self._whole is None else self._gathered[number] - self._whole.data_ptr()
            found.append(buffer[begin : begin + tensor.nbytes].view(tensor.dtype).view(tensor.shape))
            place += room(tensor.nbytes)
        return found

    def copy_to(self, slot: Slot) -> None:
        """Begin to copy the tensors into a slot: at once where they lie together, unless one was put elsewhere since."""
        if self._whole is not None and self._gathered == [tensor.data_ptr() for tensor in self.tensors]:
            slot.buffer[: self.size].copy_(self._whole, non_blocking=True)
            return
        for view, tensor in zip(slot.of(self), self.tensors, strict=True):
            view.copy_(tensor.data, non_blocking=True)

    def move(self, views: Sequence[Tensor]) -> None:
        """Compute with what lies in a slot."""
        self._home = [tensor.data for tensor in self.tensors]
        for tensor, view in zip(self.tensors, views, strict=True):
            tensor.data = view

    def back(self) -> None:
        """Have the tensors in main memory again; what is in the slot is dropped."""
        for tensor, own in zip(self.tensors, self._home or (), strict=False):
            tensor.data = own
        self._home = None


@dataclass
class Ledger:
    """What swapped blocks take of the device now and at most, and how often each was fetched."""

    cap: int  # bytes
    resident: int = 0
    peak: int = 0
    fetches: Counter[str] = field(default_factory=Counter)

    def take(self, block: HeldBlock) -> None:
        """Count a block that is fetched. Raises MemoryError above the cap."""
        if self.resident + block.weights > self.cap:
            raise MemoryError(f"{block.name} needs {block.weights} bytes, and {self.cap - self.resident} of {self.cap} are free")
        self.resident += block.weights
        self.peak = max(self.peak, self.resident)
        self.fetches[block.name] += 1

    def give(self, block: HeldBlock) -> None:
        """Count a block that is dropped."""
        self.resident -= block.weights


@dataclass(eq=False)
class Slot:
    """Room for one block on the device."""

    buffer: Tensor  # bytes
    free: Any = None  # CUDA events; None elsewhere
    ready: Any = None
    block: HeldBlock | None = None
    used: bool = False  # the block computes with it; else it was fetched ahead
    views: dict[str, list[Tensor]] = field(default_factory=dict)  # of each block

    def of(self, block: HeldBlock) -> list[Tensor]:
        """The block's tensors in this slot, made once."""
        if block.name not in self.views:
            self.views[block.name] = block.views(self.buffer)
        return self.views[block.name]


class Slots:
    """The slots of a device: at most one block computes, and one more is on its way."""

    def __init__(self, blocks: Sequence[HeldBlock], device: torch.device) -> None:
        import torch

        size, count = max(block.size for block in blocks), min(SLOTS, len(blocks))
        self.ledger = Ledger(count * size)
        self._device = device
        self._slots = [Slot(torch.empty(size, dtype=torch.uint8, device=device)) for _ in range(count)]
        self._stream: Any = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            self._stream.wait_stream(torch.cuda.current_stream(device))  # the memory may have been another tensor's until now
            for slot in self._slots:
                slot.buffer.record_stream(self._stream)
                slot.free, slot.ready = torch.cuda.Event(), torch.cuda.Event()  # type: ignore[no-untyped-call]

    def use(self, block: HeldBlock) -> None:
        """Have the block on the device, and no other that computes: those before it are dropped."""
        slot = self._find(block)
        if slot is not None and slot.used:
            return
        for other in self._slots:
            if other.block is not block:
                self._drop(other)
        slot = slot or self._fetch(block)
        if self._stream is not None:
            self._current().wait_event(slot.ready)
        block.move(slot.of(block))
        slot.used = True

    def fetch_ahead(self, block: HeldBlock) -> None:
        """Begin to copy a block that is needed next, where a slot is free."""
        if self._find(block) is None and any(slot.block is None for slot in self._slots):
            self._fetch(block)

    def drop(self, block: HeldBlock) -> None:
        """The block has computed: its slot is free."""
        if (slot := self._find(block)) is not None:
            self._drop(slot)

    def drop_all(self) -> None:
        """Every block is in main memory."""
        for slot in self._slots:
            self._drop(slot)

    def wait(self) -> None:
        """Return when no copy is under way: before weights in main memory are written."""
        if self._stream is not None:
            self._stream.synchronize()

    def _find(self, block: HeldBlock) -> Slot | None:
        return next((slot for slot in self._slots if slot.block is block), None)

    def _fetch(self, block: HeldBlock) -> Slot:
        slot = next(slot for slot in self._slots if slot.block is None)
        self.ledger.take(block)
        slot.block = block
        with self._copying(slot):
            block.copy_to(slot)
        if self._stream is not None:
            slot.ready.record(self._stream)
        return slot

    def _copying(self, slot: Slot) -> AbstractContextManager[Any]:
        """The copies' own stream, behind what still reads the slot."""
        import torch

        if self._stream is None:
            return nullcontext()
        self._stream.wait_event(slot.free)
        return torch.cuda.stream(self._stream)

    def _drop(self, slot: Slot) -> None:
        if slot.block is None:
            return
        if slot.used:
            slot.block.back()
            if self._stream is not None:
                slot.free.record(self._current())
        self.ledger.give(slot.block)
        slot.block, slot.used = None, False

    def _current(self) -> Any:
        import torch

        return torch.cuda.current_stream(self._device)
