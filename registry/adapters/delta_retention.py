"""What adapters add to one tensor of a checkpoint, and how much of it the output's dtype leaves."""

# R rank, I in-width (a convolution's kernel with it), O out-width

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from registry.adapters.delta import bias_delta, delta, factors, finite
from registry.adapters.reader import Module
from registry.adapters.targets import TargetSlice
from registry.errors import JobFailed
from registry.formats.atomic_file import torch_dtype
from registry.merging.method import Method, Place

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Part:
    """One module's share of one tensor of the checkpoint."""

    module: Module
    target: TargetSlice
    weight: float
    bias: bool = False

    @property
    def by_rows(self) -> bool:
        """Whether its change can be made row by row, from its factors."""
        return self.module.is_product and not self.bias


@dataclass
class Retention:
    """How much of the change D is left after the output's dtype rounded W + D to W', and how far the rounding moved the weights."""

    parts: dict[tuple[str, int], tuple[float, float, float]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, at: Place, kept: float, wanted: float, moved: float) -> None:
        """One chunk's (W' - W) . D, |D|^2 and |W' - (W + D)|^2."""
        with self.lock:
            self.parts[(at.key, at.begin)] = (kept, wanted, moved)

    @property
    def share(self) -> float | None:
        """(W' - W) . D / |D|^2 over all tensors: 1 is all of it; None when nothing was to change."""
        kept, wanted, _ = self._sums()
        return kept / wanted if wanted > 0 else None

    @property
    def noise(self) -> float | None:
        """|W' - (W + D)| / |D|: above 1 the rounding of the weights is larger than what the adapters change."""
        _, wanted, moved = self._sums()
        return float((moved / wanted) ** 0.5) if wanted > 0 else None

    def _sums(self) -> tuple[float, float, float]:
        values = [self.parts[place] for place in sorted(self.parts)]
        kept, wanted, moved = (sum(value[index] for value in values) for index in range(3))
        return kept, wanted, moved


@dataclass(frozen=True)
class Rows:
    """A plain LoRA's factors for the rows first..last of a weight: up (last - first, R), the weight in it, and down (R, I)."""

    first: int
    last: int
    up: Tensor
    down: Tensor


@dataclass(frozen=True)
class Change:
    """What is added to one tensor: factors, which are multiplied row by row, and the rest, whole and flat."""

    factors: tuple[Rows, ...]
    rest: Tensor | None

    def chunk(self, begin: int, count: int, width: int) -> Tensor:
        """Elements begin..begin+count of the change, whole rows of this width; fp32."""
        import torch

        found = torch.zeros(count) if self.rest is None else self.rest[begin : begin + count].clone()
        rows, top = found.reshape(-1, width), begin // width
        for part in self.factors:
            first, last = max(part.first, top), min(part.last, top + len(rows))
            if first < last:
                rows[first - top : last - top].addmm_(part.up[first - part.first : last - part.first], part.down)
        return found


def change_of(chunks: Iterable[tuple[Tensor, ...]], *, parts: Sequence[Part], shape: tuple[int, ...], **_options: Any) -> Change:
    """What all parts together add to a tensor. Raises JobFailed for an adapter's numbers that are none."""
    by_rows = [_rows(part, shape) for part in parts if part.by_rows]
    others = [part for part in parts if not part.by_rows]
    return Change(tuple(by_rows), _whole(chunks, others, shape) if others else None)


def _rows(part: Part, shape: tuple[int, ...]) -> Rows:
    up, down = factors(part.module)
    first, last = part.target.rows or (0, shape[0])
    up = up[part.target.origin : part.target.origin + last - first] * part.weight
    return Rows(first, last, finite(up, part.module), finite(down, part.module))


def _whole(chunks: Iterable[tuple[Tensor, ...]], parts: Sequence[Part], shape: tuple[int, ...]) -> Tensor:
    import torch

    base: Tensor | None = None
    if any(part.module.needs_base for part in parts):
        base = torch.cat([chunk[0].float() for chunk in chunks]).reshape(shape)
        if not bool(base.isfinite().all()):
            raise JobFailed(
                f"{parts[0].target.key} of the base has numbers that are none (NaN or infinite), and {parts[0].module.name} "
                "changes it by what it is. Nothing was written. Use another copy of the base."
            )
    total = torch.zeros(shape)
    for part in parts:
        first, last = part.target.rows or (0, shape[0])
        own = None if base is None else base[first:last]  # of a fused layer the rows that are the module's
        if part.bias:
            bias = bias_delta(part.module, own)
            assert bias is not None
            rows = finite(bias, part.module).flatten()[part.target.origin : part.target.origin + last - first]
            total[first:last] += rows.reshape(total[first:last].shape) * part.weight
            continue
        change = finite(delta(part.module, own, weight=part.weight), part.module)
        if change.ndim > 1:
            change = change.reshape(change.shape[0], -1)[part.target.origin : part.target.origin + last - first]
        total[first:last] += change.reshape(total[first:last].shape)
    return total.reshape(-1)


def add_change(
    base: Tensor, *, parts: Sequence[Part], shape: tuple[int, ...], dtype: str, retained: Retention, known: Change, at: Place
) -> Tensor:
    """W + D, and a note of what the output's dtype leaves of D."""
    change = known.chunk(at.begin, base.numel(), at.width)
    merged = base + change
    rounded = merged.to(torch_dtype(dtype)).to(base.dtype)
    wanted, moved = change.double(), (rounded - merged).double()
    retained.note(at, float((rounded - base).double() @ wanted), float(wanted @ wanted), float(moved @ moved))
    return merged


FUSE = Method(
    name="fuse", apply=add_change, least=1, most=None, base=True, options={}, measure=change_of, placed=True, rowwise=True, holds=True
)


def options_of(parts: Sequence[Part], *, shape: tuple[int, ...], dtype: str, retained: Retention) -> Mapping[str, Any]:
    """The options of a tensor that parts change."""
    return {"parts": tuple(parts), "shape": shape, "dtype": dtype, "retained": retained}
