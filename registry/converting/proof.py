"""The proof that a converted adapter does what its source does: products compared layer by layer, from the file that was written."""

# O out-width, I in-width

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from registry.adapters.writer import Pair
from registry.converting.adapter_layers import AdapterLayer, pair_of
from registry.converting.respelling import swapped
from registry.errors import JobFailed
from registry.progress import Report, Tick, silent

if TYPE_CHECKING:
    from torch import Tensor

TOLERANCE = {"F32": 1e-5, "F16": 2e-3, "BF16": 1.6e-2}  # of the product's norm: some roundings of two factors in this dtype
Layers = dict[tuple[str, str], list[AdapterLayer]]


def prove(before: Sequence[AdapterLayer], after: Sequence[AdapterLayer], *, dtype: str | None, report: Report = silent) -> float:
    """The largest difference of any layer's product, as a share of its norm. `dtype`: what the factors were rounded to; None: nothing.

    Raises JobFailed where a layer is missing, is there too much, or does something else.
    """
    before_layers, after_layers = _by_layer(before), _by_layer(after)
    apart = [
        f"{component} {module}"
        for component, module in before_layers.keys() ^ after_layers.keys()
        if _does_something(before_layers, after_layers, (component, module))
    ]
    if apart:
        raise JobFailed(
            f"The converted file changes other layers than its source: {len(apart)} differ, first {sorted(apart)[0]}. Nothing is kept."
        )
    worst = 0.0
    limit = TOLERANCE.get(dtype or "F32", TOLERANCE["F32"])
    for number, place in enumerate(sorted(before_layers.keys() & after_layers.keys()), 1):
        found = _difference(before_layers[place], after_layers[place])
        worst = max(worst, found)
        if not found <= limit:
            raise JobFailed(
                f"{before_layers[place][0].source.name} has another product in the converted file: it differs by {found:.3g} of its norm; "
                f"at most {limit:g} is rounding. Nothing is kept." + (" Write a wider --dtype." if dtype else "")
            )
        report(Tick("compare", number, len(before_layers), place[1]))
    return worst


def _by_layer(units: Sequence[AdapterLayer]) -> Layers:
    found: Layers = {}
    for unit in units:
        found.setdefault((unit.component, unit.layer.modules[0]), []).append(unit)
    return found


def _does_something(before_layers: Layers, after_layers: Layers, place: tuple[str, str]) -> bool:
    """Whether a layer of one of both changes anything: one that does not may be left out."""
    units = before_layers.get(place) or after_layers[place]
    return any(not unit.is_pair or "dora" in unit.source.roles or _has_numbers(pair_of(unit)) for unit in units)


def _has_numbers(pair: Pair) -> bool:
    return bool(pair.up.any()) or (pair.bias is not None and bool(pair.bias.any()))


def _difference(before: Sequence[AdapterLayer], after: Sequence[AdapterLayer]) -> float:
    """The norm of what two layers' products differ by, as a share of the first one's."""
    if not before[0].is_pair:
        return 0.0 if _same_tensors(before[0], after[0]) else math.inf
    if _same_factors(before, after):
        return 0.0
    before_layers, its = _blocks(before), _blocks(after)
    if before_layers is None or its is None or not _same_magnitudes(before_layers, its):
        return math.inf
    norm = away = 0.0
    for one, other in zip(before_layers, its, strict=True):
        if one is not None and other is not None and _size(one) != _size(other):
            return math.inf
        squares = inner(one, one), inner(other, other)
        norm += squares[0]
        away += max(0.0, squares[0] + squares[1] - 2 * inner(one, other)) if math.isfinite(sum(squares)) else math.nan
    if math.isnan(away):
        return math.nan
    return max(_bias_difference(before_layers, its), _share(away, norm))  # NaN first: max keeps it


def _share(away: float, norm: float) -> float:
    """The root of a share of squares."""
    return math.sqrt(away / norm) if norm > 0 else (0.0 if away == 0 else math.inf)


def _bias_difference(before: Sequence[Pair | None], after: Sequence[Pair | None]) -> float:
    """The norm of what the biases differ by, as a share of the first ones'; none is zeros."""
    away = norm = 0.0
    for one, other in zip(before, after, strict=True):
        first, second = (None if pair is None or pair.bias is None else pair.bias.double() for pair in (one, other))
        if first is not None and second is not None and first.shape != second.shape:
            return math.inf
        apart = second if first is None else first if second is None else first - second
        norm += float(first.square().sum()) if first is not None else 0.0
        away += float(apart.square().sum()) if apart is not None else 0.0
    return math.nan if math.isnan(away) else _share(away, norm)


def _size(pair: Pair) -> tuple[int, ...]:
    return len(pair.up), *pair.down.shape[1:]


def inner(one: Pair | None, other: Pair | None) -> float:
    """<D1, D2> of two products = sum of (B1^T B2) * (A1 A2^T), in fp64: the products themselves are never made."""
    if one is None or other is None:
        return 0.0
    ups = one.up.double().flatten(1).T @ other.up.double().flatten(1)
    downs = one.down.double().flatten(1) @ other.down.double().flatten(1).T
    return float((ups * downs).sum()) * one.scale * other.scale


def _blocks(units: Sequence[AdapterLayer]) -> list[Pair | None] | None:
    """A whole layer's rows by module, in the original implementation's order; None where the rows are not those of the layer."""
    layer = units[0].layer
    pairs = [pair_of(unit) for unit in units]
    if layer.swapped and units[0].part is not None:
        pairs = [swapped(pair) for pair in pairs]
    if len(layer.modules) == 1:
        return list(pairs[:1])
    rows = layer.rows(int(pairs[0].down.shape[1]))
    if units[0].part is not None:
        parts = {unit.part: pair for unit, pair in zip(units, pairs, strict=True)}
        return [parts.get(part) for part in range(len(rows))]
    (whole,) = pairs
    if sum(rows) != len(whole.up):
        return None
    bounds = [(sum(rows[:part]), sum(rows[: part + 1])) for part in range(len(rows))]
    doras = [None if whole.dora is None else whole.dora[begin:end] for begin, end in bounds]
    biases = [None if whole.bias is None else whole.bias[begin:end] for begin, end in bounds]
    parts_of = zip(bounds, doras, biases, strict=True)
    return [Pair(whole.down, whole.up[begin:end], whole.alpha, dora, bias) for (begin, end), dora, bias in parts_of]


def _same_magnitudes(before_layers: Sequence[Pair | None], its: Sequence[Pair | None]) -> bool:
    """Whether DoRA's magnitudes of every row are there on both sides, equal but for rounding."""
    for one, other in zip(before_layers, its, strict=True):
        first, second = (pair.dora if pair is not None else None for pair in (one, other))
        if (first is None) != (second is None) or (first is not None and second is not None and not _close(first.float(), second.float())):
            return False
    return True


def _same_tensors(one: AdapterLayer, other: AdapterLayer) -> bool:
    return one.source.roles == other.source.roles and all(
        same_bits(one.source.raw(role), other.source.raw(role)) for role in one.source.roles
    )


def _same_factors(before: Sequence[AdapterLayer], after: Sequence[AdapterLayer]) -> bool:
    """Whether both have the same factors, bit for bit, with the same scale: then the products need not be made."""
    if len(before) != 1 or len(after) != 1 or before[0].layer.swapped or before[0].whole != after[0].whole:
        return False
    if len(before[0].layer.modules) > 1 and before[0].part != after[0].part:
        return False
    one, other = pair_of(before[0]), pair_of(after[0])
    if (one.dora is None) != (other.dora is None) or (one.bias is None) != (other.bias is None):
        return False
    pairs = (one.up, other.up), (one.down, other.down), (one.dora, other.dora), (one.bias, other.bias)
    return one.alpha == other.alpha and all(same_bits(first, second) for first, second in pairs if first is not None and second is not None)


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are equal bit for bit: also where they are not numbers."""
    import torch

    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    return torch.equal(one.reshape(-1).view(torch.uint8), other.reshape(-1).view(torch.uint8))


def _close(one: Tensor, other: Tensor) -> bool:
    import torch

    return one.shape == other.shape and torch.allclose(one, other, rtol=1e-2, atol=0.0)
