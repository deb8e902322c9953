"""The one writer of adapter files: factors and raw tensors of named modules, spelled in a row of DIALECTS."""

# R rank, I in-width, O out-width

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.errors import JobFailed
from registry.formats.atomic_file import torch_dtype, write_safetensors
from registry.formats.dialects import Writing
from registry.record import Hashes

if TYPE_CHECKING:
    from torch import Tensor


LOST = 5e-6  # of a factor's norm: what half precision may lose of numbers too small for it; the proof of a conversion allows 1e-5


@dataclass(frozen=True)
class Pair:
    """down (R, I, ...) and up (O, R, ...) in their own dtype. The change is up @ down * alpha / R."""

    down: Tensor
    up: Tensor
    alpha: float
    dora: Tensor | None = None  # magnitude of each row of the changed weight, (O,)
    bias: Tensor | None = None  # what it adds to the layer's bias, (O,); alpha / R is in it

    @property
    def rank(self) -> int:
        return int(self.down.shape[0])

    @property
    def scale(self) -> float:
        return self.alpha / self.rank if self.rank else 0.0

    def at_scale_one(self) -> Pair:
        """The same change with alpha = R: alpha / R is multiplied into the factors, in fp32 where their dtype does not hold it.

        Its powers of two go to the larger factor first, so that half precision holds both.
        """
        if self.alpha == self.rank:
            return self
        mantissa, exponent = math.frexp(self.scale)
        mantissa, exponent = 2 * mantissa, exponent - 1  # 1 for powers of two, which are exact
        first = _share(exponent, self.down, self.up)
        down, up = times(self.down, 2.0**first), times(self.up, mantissa * 2.0 ** (exponent - first))
        if down.dtype != up.dtype:  # peft multiplies one by the other
            down, up = down.float(), up.float()
        return Pair(down, up, float(self.rank), self.dora, self.bias)

    def product(self) -> Tensor:
        """The change (O, I, ...) in fp32, without the magnitude."""
        up, down = self.up.float().flatten(1), self.down.float()
        return (up @ down.flatten(1)).reshape(len(up), *down.shape[1:]) * self.scale


@dataclass(frozen=True, kw_only=True)
class OutputModule:
    """One module of an adapter to write: its name as the file will have it, and its factors or, of other algorithms, its tensors."""

    name: str  # with its prefix
    pair: Pair | None = None
    raw: Mapping[str, Tensor] = field(default_factory=dict)  # ending -> tensor


def adapter_tensors(modules: Iterable[OutputModule], writing: Writing, *, dtype: str | None = None) -> dict[str, Tensor]:
    """Key -> tensor of a file in this dialect; all but alpha in `dtype` (a safetensors word) where one is given.

    Where a dialect has no tensor for alpha, alpha / rank is in the factors: many readers do not know the header's settings.
    Raises JobFailed for values that the dtype does not hold.
    """
    kind = None if dtype is None else torch_dtype(dtype)
    found: dict[str, Tensor] = {}
    for module in modules:
        tensors = {**module.raw, **(_spelled(module.pair, writing) if module.pair is not None else {})}
        for ending, tensor in tensors.items():
            key = f"{module.name}{ending}"
            fixed = kind is None or ending.endswith(".alpha") or not tensor.is_floating_point()
            found[key] = tensor if fixed else held(tensor.float(), kind, key)
        if module.pair is not None and writing.alpha is not None:
            found[f"{module.name}{writing.alpha}"] = _alpha(module.pair)
    return found


def _share(exponent: int, down: Tensor, up: Tensor) -> int:
    """How many of the powers of two go to `down`, so that both factors end as nearly of one size as they can."""
    sizes = [float(factor.float().abs().max()) if factor.numel() else 0.0 for factor in (down, up)]
    if not all(0 < size < math.inf for size in sizes):
        return exponent // 2
    wanted = round((exponent + math.log2(sizes[1] / sizes[0])) / 2)
    return max(min(0, exponent), min(max(0, exponent), wanted))


def times(tensor: Tensor, factor: float) -> Tensor:
    """The product in the tensor's own dtype where that holds it, else in fp32."""
    product = tensor.float() * factor
    narrow = product.to(tensor.dtype)
    held_enough = (narrow.float() - product).norm() <= LOST * product.norm()
    return narrow if bool(held_enough) else product


def _spelled(pair: Pair, writing: Writing) -> dict[str, Tensor]:
    """Ending -> tensor of a pair of factors."""
    pair = pair if writing.alpha is not None else pair.at_scale_one()
    tensors = {writing.down: pair.down, writing.up: pair.up} | ({writing.bias: pair.bias} if pair.bias is not None else {})
    if pair.dora is not None:
        if writing.dora_per_row:
            tensors[writing.dora] = pair.dora.reshape(-1, *[1] * (pair.up.ndim - 1))
        else:
            tensors[writing.dora] = pair.dora.reshape(1, -1, 1, 1) if pair.up.ndim == 4 else pair.dora
    return tensors


def _alpha(pair: Pair) -> Tensor:
    """alpha as a number of the factors' own dtype, of fp32 where that does not hold it exactly."""
    import torch

    narrow = torch.tensor(pair.alpha, dtype=pair.down.dtype)
    return narrow if float(narrow) == pair.alpha else torch.tensor(pair.alpha, dtype=torch.float32)


def held(values: Tensor, dtype: Any, name: str) -> Tensor:
    """The values in the dtype. Raises JobFailed where it cannot hold them."""
    import torch

    low, high = (float(bound) for bound in torch.aminmax(values)) if values.numel() else (0.0, 0.0)
    limit = torch.finfo(dtype).max
    if not (low >= -limit and high <= limit):
        raise JobFailed(f"{name} would have {low:g} .. {high:g}, which {dtype} does not hold. Write --dtype bf16 or fp32.")
    return values.to(dtype)


def write_adapter(
    path: Path, modules: Iterable[OutputModule], writing: Writing, *, metadata: Mapping[str, str], dtype: str | None = None
) -> Hashes:
    """Write an adapter file whole. Raises JobFailed for values that the dtype does not hold, Refused as `write_safetensors` does."""
    return write_safetensors(path, adapter_tensors(modules, writing, dtype=dtype), metadata=metadata)
