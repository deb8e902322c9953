"""What operations make on the meta device, remembered by the shapes they are given.

Most meta kernels are Python: they take a tenth of a millisecond, an empty tensor a thousandth. A model has the same operation on the same
shapes many times over.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import torch
from torch import Tensor

PLAIN = (bool, int, float, str, torch.dtype, torch.device, torch.layout, torch.memory_format)
SEQUENCES = (list, tuple)


class _Unknown(Exception):
    """An argument or a result that is not told by shapes."""


def described(func: Any, args: Any, kwargs: Any) -> Hashable | None:
    """What the result of an operation depends on; None for a view, for one that changes a tensor, and where more than shapes counts."""
    if func.is_view or func._schema.is_mutable:
        return None
    try:
        return func, _described(args), _described(tuple(kwargs.items()))
    except _Unknown:
        return None


def _described(value: Any) -> Hashable:
    kind = type(value)
    if kind is Tensor or kind is torch.nn.Parameter:
        if value.device.type != "meta":
            raise _Unknown
        return value.shape, value.stride(), value.dtype
    if kind in SEQUENCES:
        return kind, *map(_described, value)
    if value is None or kind in PLAIN:
        return kind, value  # 1, 1.0 and True are equal and make other dtypes
    raise _Unknown


class Made:
    """The shapes of a result, which is made of them again."""

    def __init__(self, made: Any) -> None:
        self._made = _shapes(made)

    def again(self) -> Any:
        return _tensors(self._made)

    @classmethod
    def of(cls, made: Any, args: Any, kwargs: Any) -> Made | None:
        """None for a result that shares memory with an argument, or has more of it than its shape needs."""
        given = {tensor.untyped_storage()._cdata for tensor in (*_inside(args), *_inside(tuple(kwargs.values())))}
        own = [tensor.untyped_storage() for tensor in _inside(made)]
        if len({*(storage._cdata for storage in own), *given}) < len(own) + len(given):
            return None
        try:
            found = cls(made)
        except _Unknown:
            return None
        again = [tensor.untyped_storage().nbytes() for tensor in _inside(found.again())]
        return found if again == [storage.nbytes() for storage in own] else None


def _inside(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [tensor for each in value for tensor in _inside(each)] if isinstance(value, SEQUENCES) else []


def _shapes(made: Any) -> Any:
    if type(made) is Tensor and made.device.type == "meta":
        return made.shape, made.stride(), made.dtype
    if type(made) in SEQUENCES:
        return [type(made), *map(_shapes, made)]
    if made is None:
        return None
    raise _Unknown


def _tensors(shapes: Any) -> Any:
    if shapes is None:
        return None
    if isinstance(shapes, tuple):
        return torch.empty_strided(shapes[0], shapes[1], dtype=shapes[2], device="meta")
    return shapes[0](map(_tensors, shapes[1:]))
