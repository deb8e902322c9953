"""Merges of two or three models that weigh each place by how the sources differ there."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from registry.merging.method import Alpha, Chunks, Place, merge_method
from registry.options import Meaning
from registry.tensors.chunks import Held

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray
    from torch import Tensor

SUPERMERGER = 1.8  # the factor its authors found to balance the damping (supermerger, mergers.py)
Side = Annotated[Literal["a", "b"], Meaning("a: by the cosine of each column; b: half of it by the cosine of the whole tensor")]
Near = Annotated[float, Meaning("difference at and below which the second source is taken whole", 0.0, None)]


@merge_method("train_difference", sources=3)
def train_difference(a: Tensor, b: Tensor, c: Tensor, *, alpha: Alpha = 1.0) -> Tensor:
    """a + 1.8 alpha (b - c) |b - a| / (|b - a| + |b - c|): what b learned over c, less where a has it already (supermerger)."""
    import torch

    learned, near = b - c, (b - a).abs()
    total = near + learned.abs()
    share = torch.where(total > 0, near / total, torch.zeros_like(total))
    return a.add(learned * share, alpha=SUPERMERGER * alpha)


@merge_method("nearswap", sources=2)
def nearswap(a: Tensor, b: Tensor, *, threshold: Near = 0.001) -> Tensor:
    """a moved to b by min(1, threshold / |a - b|): b where they are close, a where they are far (mergekit's nearswap)."""
    import torch

    return torch.lerp(a, b, (threshold / (a - b).abs()).nan_to_num(nan=1.0, posinf=1.0).clamp(0.0, 1.0))


@dataclass(frozen=True)
class Cosines:
    """Cosines of two tensors: of each column (over the first axis), and of the whole."""

    columns: NDArray[numpy.float64]
    whole: float


def measure_cosines(chunks: Chunks, **_options: Any) -> Cosines:
    """The cosines, from sums over the rows; a vector is one column."""
    import numpy

    width = math.prod(chunks.shape[1:]) if len(chunks.shape) > 1 else 1
    sums = numpy.zeros((3, width))
    for a, b in chunks:
        one, two = (tensor.reshape(-1, width).numpy().astype(numpy.float64) for tensor in (a, b))
        sums += numpy.stack([(one * two).sum(axis=0), (one * one).sum(axis=0), (two * two).sum(axis=0)])
    columns = sums[0] / numpy.sqrt(numpy.maximum(sums[1] * sums[2], 1e-300))
    whole = sums.sum(axis=1)
    return Cosines(columns, float(whole[0] / math.sqrt(max(float(whole[1] * whole[2]), 1e-300))))


@merge_method("cosine", sources=2, measure=measure_cosines, rowwise=True)
def cosine(a: Tensor, b: Tensor, *, alpha: Alpha = 0.0, side: Side = "a", known: Cosines | None = None, at: Place | None = None) -> Tensor:
    """lerp(a, b, k), k = 1 - clip(cosine - alpha, 0, 1): b where the two disagree, a where they are alike (sd-mecha's add_cosine).

    supermerger instead spreads the cosines of all tensors to 0 .. 1 before; then each tensor depends on all others.
    """
    import torch

    cosines = known if known is not None else measure_cosines(Held(a, b))
    likeness = cosines.columns if side == "a" else (cosines.columns + cosines.whole) / 2
    share = 1 - torch.from_numpy(likeness).sub(alpha).clamp(0.0, 1.0).to(a.dtype)
    return torch.lerp(a.reshape(-1, len(share)), b.reshape(-1, len(share)), share).reshape(a.shape)
