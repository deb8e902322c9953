"""A file of weights as the model sees it: plain and quantised weights under their keys, without the tables that belong to the latter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.budget.freed import give_back
from registry.errors import BadFile
from registry.formats.atomic_file import torch_dtype
from registry.formats.quantised.bitsandbytes import find_four_bits, find_rows
from registry.formats.quantised.gguf_file import gguf_header
from registry.formats.quantised.packed import Found, Packed
from registry.formats.quantised.scaled_fp8 import find_scaled
from registry.formats.quantised.torchao import find_torchao
from registry.formats.safetensors_header import FP8, Header, TensorInfo, fp8_scale, read_header
from registry.printable import some
from registry.quantised.stored import StoredWeight

if TYPE_CHECKING:
    import torch
    from torch import Tensor

SHOWN = 3
ReadWeight = Callable[[str], "Tensor | StoredWeight"]


@dataclass(frozen=True)
class WeightsFile:
    """What a file holds: `tensors` in the shapes of the model; `packed` are those of them that are quantised."""

    path: Path
    header: Header
    tensors: Mapping[str, TensorInfo]
    packed: Mapping[str, Packed] = field(default_factory=dict)
    mapped: bool = True  # safetensors' own reader reads it, under the same keys
    prefix: str = ""  # of its keys here, which it does not have in the file

    @property
    def metadata(self) -> Mapping[str, str]:
        return self.header.metadata

    @contextmanager
    def reading(self) -> Iterator[ReadWeight]:
        """Its tensors by key, each read into memory of its own: a mapped file would fill it with what was read before."""
        with raw_reading(self.path, self.header) as read:
            yield self._reader(read)

    def sizes(self, key: str) -> Tensor | StoredWeight:
        """The same on the meta device."""
        return self._reader(self._meta)(key)

    def with_prefix(self, prefix: str) -> WeightsFile:
        """The same file with a prefix to all keys."""
        tensors = {prefix + key: info for key, info in self.tensors.items()}
        packed = {prefix + key: one for key, one in self.packed.items()}
        return replace(self, tensors=tensors, packed=packed, mapped=False, prefix=prefix)

    def _reader(self, read: Callable[[str], Tensor]) -> ReadWeight:
        def one(key: str) -> Tensor | StoredWeight:
            packed = self.packed.get(key)
            if packed is None:
                return read(key.removeprefix(self.prefix))
            weight = StoredWeight(packed.coding, packed.buffers(read), packed.info.shape)
            if weight.buffers[0].device.type != "meta" and not weight.has_finite_scales:
                raise BadFile(
                    self.path, "quantised", f"has a scale of {key} that is not finite ({packed.coding.title}). Fetch the file again."
                )
            return weight

        return one

    def _meta(self, key: str) -> Tensor:
        import torch

        info = self.header.tensors[key]
        return torch.empty(info.shape, dtype=torch_dtype(info.dtype), device="meta")


def weights_file(path: Path) -> WeightsFile:
    """The file, its header and its small tables read. Raises BadFile with what is wrong of its quantised weights."""
    found = Found()
    if path.suffix.lower() == ".gguf":
        header = gguf_header(path, found)
        _refuse(path, found)
        return WeightsFile(
            path, header, {**header.tensors, **{key: one.info for key, one in found.packed.items()}}, found.packed, mapped=False
        )
    header = read_header(path)
    with raw_reading(path, header) as read:
        find_four_bits(header.tensors, read, found)
        find_rows(header.tensors, found)
        find_torchao(header.tensors, header.metadata, read, found)
        find_scaled(header.tensors, header.metadata, read, found)
    tensors = {key: info for key, info in header.tensors.items() if key not in found.beside}
    left = fp8_scale({key: info for key, info in tensors.items() if info.dtype not in FP8 or key in found.packed})
    if left is not None and not found.faults:
        found.faults.append(f"{left} is a scale of an unknown form")
    _refuse(path, found)
    return WeightsFile(path, header, tensors | {key: one.info for key, one in found.packed.items()}, found.packed)


def _refuse(path: Path, found: Found) -> None:
    if found.faults:
        raise BadFile(
            path,
            "quantised",
            f"is quantised in a way that is not read here: {some(found.faults, SHOWN, between='; ')}. Give the bf16 or fp16 file.",
        )


@contextmanager
def raw_reading(path: Path, header: Header) -> Iterator[Callable[[str], Tensor]]:
    """The stored tensors of a safetensors file by key."""
    import torch

    with open(path, "rb") as file:

        def read(key: str) -> Tensor:
            give_back(header.tensors[key].elements)  # the room of those that were read before, which glibc would not use again
            info, (begin, end) = header.tensors[key], header.offsets[key]
            tensor = torch.empty(info.shape, dtype=torch_dtype(info.dtype))
            if tensor.nbytes != end - begin:
                raise OSError(f"{path} has {end - begin} bytes for {key}, and {tensor.nbytes} were expected.")
            file.seek(header.data_start + begin)
            place: Any = tensor.reshape(-1).view(torch.uint8).numpy()
            if tensor.nbytes and file.readinto(place) != tensor.nbytes:
                raise OSError(f"{path} ends inside {key}.")
            return tensor

        yield read


def is_converted(tensors: Iterable[TensorInfo], dtype: torch.dtype) -> bool:
    """Whether more than half of the bytes of plain weights are in another floating dtype."""
    in_it: Counter[bool] = Counter()
    for info in tensors:
        own = torch_dtype(info.dtype)
        in_it[own == dtype or not own.is_floating_point] += info.elements * own.itemsize
    return in_it[False] > in_it[True]


def packed_titles(packed: Mapping[str, Packed], keys: Collection[str], *, rounded: bool = False) -> dict[str, int]:
    """Title of a coding -> how many weights of these keys are kept in it, the most first.

    `rounded`: without those whose codes are the model's own numbers.
    """
    kept = (one.coding for key, one in packed.items() if key in keys)
    return dict(Counter(coding.title for coding in kept if not (rounded and coding.exact)).most_common())
