"""Means along the sphere: coefficients come from the angle between whole tensors, which a first pass measures."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any

from registry.merging.method import Alpha, Chunks, merge_method
from registry.merging.methods.linear import combination
from registry.options import Meaning
from registry.tensors.chunks import Held, gram

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray
    from torch import Tensor

STRAIGHT = 0.9995  # cosine from which the arc is taken as a line (mergekit's threshold, and Shoemake's advice)
Norms = Annotated[bool, Meaning("give the result the interpolated length of the sources")]


def measure_angle(chunks: Chunks, **_options: Any) -> NDArray[numpy.float64]:
    """Inner products of the whole tensors."""
    return gram(chunks)


@merge_method("slerp", sources=2, measure=measure_angle)
def slerp(a: Tensor, b: Tensor, *, alpha: Alpha = 0.5, rescale: Norms = False, known: NDArray[numpy.float64] | None = None) -> Tensor:
    """sin((1-t)w)/sin w a + sin(tw)/sin w b, w the angle between the whole tensors (Shoemake 1985).

    Lerp where the cosine is beyond 0.9995 in size, or a tensor is zero. `rescale` takes the directions alone and gives them
    the length (1-t)|a| + t|b| (sd-mecha's slerp); without it the tensors' own lengths take part (mergekit's).
    """
    products = known if known is not None else gram(Held(a, b))
    lengths = math.sqrt(products[0, 0]), math.sqrt(products[1, 1])
    if alpha in (0.0, 1.0):
        return (b if alpha else a).clone()
    if 0.0 in lengths:
        return a.lerp(b, alpha)
    cosine = float(products[0, 1]) / (lengths[0] * lengths[1])
    if abs(cosine) > STRAIGHT:
        return a.lerp(b, alpha)
    angle = math.acos(cosine)
    shares = [math.sin((1 - alpha) * angle) / math.sin(angle), math.sin(alpha * angle) / math.sin(angle)]
    if rescale:  # both directions on the unit sphere, and so their arc
        length = (1 - alpha) * lengths[0] + alpha * lengths[1]
        shares = [share * length / own for share, own in zip(shares, lengths, strict=True)]
    return combination((a, b), shares)
