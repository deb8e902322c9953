"""Slots: storage exchanged whatever its dtype, two at a time, counted, and a cap that holds."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from registry.swapping.slots import HeldBlock, Ledger, Slots

CPU = torch.device("cpu")


def block(name: str, *tensors: torch.Tensor) -> HeldBlock:
    return HeldBlock(name, tensors)


def bytes_of(tensor: torch.Tensor) -> list[int]:
    found: list[int] = tensor.detach().reshape(-1).view(torch.uint8).tolist()
    return found


def quantised() -> nn.Module:
    """A layer whose frozen numbers are in every dtype of quantised weights."""
    layer = nn.Linear(4, 3).requires_grad_(False)
    for name, tensor in {
        "int8": torch.arange(-6, 6, dtype=torch.int8).view(3, 4),
        "uint8": torch.arange(7, dtype=torch.uint8),
        "float8": torch.tensor([0.5, -1.0, 448.0]).to(torch.float8_e4m3fn),
        "scale": torch.tensor(0.25, dtype=torch.bfloat16),
        "mask": torch.tensor([True, False]),
    }.items():
        layer.register_buffer(name, tensor)
    return layer


def test_every_dtype_moves_into_a_slot_and_back() -> None:
    layer = quantised()
    tensors = [*layer.parameters(), *layer.buffers()]
    before = [(tensor.data_ptr(), tensor.clone()) for tensor in tensors]
    slots, held = Slots([block("a", *tensors)], CPU), block("a", *tensors)
    slots.use(held)
    buffer = slots._slots[0].buffer
    inside = range(buffer.data_ptr(), buffer.data_ptr() + buffer.nbytes)
    for tensor, (place, value) in zip(tensors, before, strict=True):
        assert tensor.data_ptr() in inside and tensor.data_ptr() != place and tensor.data_ptr() % 64 == place % 64
        assert tensor.dtype == value.dtype and tensor.shape == value.shape and bytes_of(tensor) == bytes_of(value)
    assert layer.get_buffer("float8") is tensors[4], "the modules keep their own tensors"
    slots.drop(held)
    assert [tensor.data_ptr() for tensor in tensors] == [place for place, _ in before]


class Copies(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's modes are untyped
    """How many copies are made."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten.copy_.default
        return func(*args, **(kwargs or {}))


def test_a_block_that_lies_together_is_fetched_by_one_copy() -> None:
    layer = quantised()
    tensors = [*layer.parameters(), *layer.buffers()]
    held, before = block("a", *tensors), [(tensor.data_ptr() % 64, tensor.clone()) for tensor in tensors]
    held.gather(torch.empty(held.size, dtype=torch.uint8))
    slots = Slots([held], CPU)
    with Copies() as copies:
        slots.use(held)
    assert copies.count == 1
    assert all(
        bytes_of(tensor) == bytes_of(value) and tensor.dtype == value.dtype for tensor, (_, value) in zip(tensors, before, strict=True)
    )
    assert [tensor.data_ptr() % 64 for tensor in tensors] == [place for place, _ in before]
    slots.drop(held)
    tensors[0].data.fill_(3.0)  # written in main memory
    slots.use(held)
    assert bool(tensors[0].eq(3.0).all())
    slots.drop(held)
    tensors[0].data = torch.full_like(tensors[0], 5.0)  # put elsewhere: what lies together is not it
    with Copies() as copies:
        slots.use(held)
    assert copies.count == len(tensors) and bool(tensors[0].eq(5.0).all())
    assert all(bytes_of(tensor) == bytes_of(value) for tensor, (_, value) in zip(tensors[1:], before[1:], strict=True))


def test_weights_of_a_file_that_lie_anywhere_begin_at_whole_lines_where_they_are_gathered() -> None:
    """As on a device that takes other kernels for weights that do not; in a file they begin at multiples of 8 bytes."""
    file = torch.arange(4096, dtype=torch.uint8)
    tensors = [file[begin : begin + 320].view(torch.float16).view(16, 10) for begin in (40, 408)]
    held, before = block("a", *tensors), [tensor.clone() for tensor in tensors]
    assert [tensor.data_ptr() % 16 for tensor in tensors] == [8, 8]
    whole = torch.empty(held.size, dtype=torch.uint8)
    held.gather(whole)
    slots = Slots([held], CPU)
    slots.use(held)
    begins = [tensor.data_ptr() - slots._slots[0].buffer.data_ptr() for tensor in tensors]
    assert begins == [0, 512] and all(bytes_of(tensor) == bytes_of(value) for tensor, value in zip(tensors, before, strict=True))


def test_a_weight_that_begins_between_two_numbers_moves_into_a_slot_too() -> None:
    """As one of a file whose header has an odd length."""
    weight = torch.frombuffer(bytearray(range(100)), dtype=torch.float32, offset=2, count=6)
    held, before = block("a", weight), bytes_of(weight)
    slots = Slots([held], CPU)
    slots.use(held)
    assert weight.data_ptr() % 4 == 0 and bytes_of(weight) == before
    slots.drop(held)
    assert weight.data_ptr() % 4 == 2 and bytes_of(weight) == before


def test_what_is_written_in_main_memory_is_fetched_the_next_time() -> None:
    weight = torch.ones(3)
    held = block("a", weight)
    slots = Slots([held], CPU)
    slots.use(held)
    slots.drop_all()
    weight.fill_(2.0)
    slots.use(held)
    assert weight.tolist() == [2.0, 2.0, 2.0]


def test_two_blocks_are_resident_at_most_and_one_computes() -> None:
    a, b, c = (block(name, torch.full((256,), float(number))) for number, name in enumerate("abc"))
    slots = Slots([a, b, c], CPU)
    assert slots.ledger.cap == 2 * 1536
    slots.use(a)
    slots.fetch_ahead(b)
    slots.fetch_ahead(c)  # no room: nothing happens
    assert slots.ledger.resident == 2048 and slots.ledger.fetches == {"a": 1, "b": 1}
    slots.use(b)  # was on its way
    assert slots.ledger.resident == 1024 and slots.ledger.fetches == {"a": 1, "b": 1} and float(b.tensors[0][0]) == 1.0
    slots.fetch_ahead(c)
    slots.use(a)  # another one than was expected
    assert slots.ledger.fetches == {"a": 2, "b": 1, "c": 1} and float(a.tensors[0][0]) == 0.0
    slots.drop_all()
    assert slots.ledger.resident == 0 and slots.ledger.peak == 2048


def test_more_than_the_cap_is_never_taken() -> None:
    ledger = Ledger(cap=1000)
    ledger.take(block("a", torch.zeros(150)))
    with pytest.raises(MemoryError, match="b needs 600 bytes, and 400 of 1000 are free"):
        ledger.take(block("b", torch.zeros(150)))
    assert ledger.resident == 600 and ledger.fetches == {"a": 1}
