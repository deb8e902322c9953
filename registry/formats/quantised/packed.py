"""The quantised weights of a file: what each is made of, as its header (and its small tables) declare it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from registry.formats.safetensors_header import TensorInfo
from registry.quantised.stored import FileCoding

if TYPE_CHECKING:
    from torch import Tensor

Read = Callable[[str], "Tensor"]  # a tensor of the file by its key, as it is stored


@dataclass(frozen=True)
class Packed:
    """One weight: its shape, its coding, and what reads its buffers with a reader of single tensors."""

    coding: FileCoding
    info: TensorInfo  # as the model has it: its shape, with the file's dtype
    buffers: Callable[[Read], tuple[Tensor, ...]]


@dataclass
class Found:
    """Of one file: its quantised weights by key, the tensors that belong to them, and what is wrong, all together."""

    packed: dict[str, Packed] = field(default_factory=dict)
    beside: set[str] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)


Tensors = Mapping[str, TensorInfo]
