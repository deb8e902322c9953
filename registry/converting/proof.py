"""The proof that a converted adapter does what its source does: products compared layer by layer, from the file that was written."""

# O out-width, I in-width

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from registry.converting.dialects import swapped, swaps
from registry.converting.units import Unit, pair_of, tensor_of
from registry.errors import JobFailed
from registry.formats.layers import Layer
from registry.progress import Report, Tick, silent

if TYPE_CHECKING:
    from torch import Tensor

TOLERANCE = {"F32": 1e-5, "F16": 2e-3, "BF16": 1.6e-2}  # of the product's norm: some roundings of two factors in this dtype
Layers = dict[tuple[str, str], list[Unit]]


def prove(before: Sequence[Unit], after: Sequence[Unit], *, dtype: str | None, report: Report = silent) -> float:
    """The largest difference of any layer's product, as a share of its norm. `dtype`: what the factors were rounded to; None: nothing.

    Raises JobFailed where a layer is missing, is there too much, or does something else.
    """
    mine, theirs = _by_layer(before), _by_layer(after)
    apart = [
        f"{component} {module}" for component, module in mine.keys() ^ theirs.keys() if _does_something(mine, theirs, (component, module))
    ]
    if apart:
        raise JobFailed(
            f"The converted file changes other layers than its source: {len(apart)} differ, first {sorted(apart)[0]}. Nothing is kept."
        )
    worst = 0.0
    limit = TOLERANCE.get(dtype or "F32", TOLERANCE["F32"])
    for number, place in enumerate(sorted(mine.keys() & theirs.keys()), 1):
        found = _difference(mine[place], theirs[place])
        worst = max(worst, found)
        if not found <= limit:
            raise JobFailed(
                f"{mine[place][0].source.name} does something else in the converted file: its product differs by {found:.3g} of its norm, "
                f"at most {limit:g} is rounding. Nothing is kept." + (" Write a wider --dtype." if dtype else "")
            )
        report(Tick("compare", number, len(mine), place[1]))
    return worst


def _by_layer(units: Sequence[Unit]) -> Layers:
    found: Layers = {}
    for unit in units:
        found.setdefault((unit.component, unit.layer.modules[0]), []).append(unit)
    return found


def _does_something(mine: Layers, theirs: Layers, place: tuple[str, str]) -> bool:
    """Whether a layer of one of both changes anything: one that does not may be left out."""
    units = mine.get(place) or theirs[place]
    return any(not unit.is_pair or "dora" in unit.source.roles or bool(pair_of(unit).up.any()) for unit in units)


def _difference(before: Sequence[Unit], after: Sequence[Unit]) -> float:
    if not before[0].is_pair:
        return 0.0 if _same_tensors(before[0], after[0]) else float("inf")
    if _same_factors(before, after):
        return 0.0
    product, other = _product(before), _product(after)
    if product.shape != other.shape:
        return float("inf")
    magnitude, its = _magnitude(before), _magnitude(after)
    if (magnitude is None) != (its is None) or (magnitude is not None and its is not None and not _close(magnitude, its)):
        return float("inf")
    norm = float(product.norm())
    away = float((product - other).norm())
    return away / norm if norm > 0 else (0.0 if away == 0 else float("inf"))


def _same_tensors(one: Unit, other: Unit) -> bool:
    return one.source.roles == other.source.roles and all(
        same_bits(tensor_of(one.source, role), tensor_of(other.source, role)) for role in one.source.roles
    )


def _same_factors(before: Sequence[Unit], after: Sequence[Unit]) -> bool:
    """Whether both have the same factors, bit for bit, with the same scale: then the products need not be made."""
    if [unit.part for unit in before] != [unit.part for unit in after] or len(before) != 1 or before[0].layer.swapped:
        return False
    one, other = pair_of(before[0]), pair_of(after[0])
    magnitudes = one.dora, other.dora
    if None in magnitudes and magnitudes != (None, None):
        return False
    pairs = [(one.up, other.up), (one.down, other.down), *([magnitudes] if one.dora is not None else [])]
    return one.alpha == other.alpha and all(same_bits(mine, its) for mine, its in pairs)  # type: ignore[arg-type]  # both are there


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are equal bit for bit: also where they are not numbers."""
    import torch

    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    return torch.equal(one.reshape(-1).view(torch.uint8), other.reshape(-1).view(torch.uint8))


def _product(units: Sequence[Unit]) -> Tensor:
    """The change of a whole layer in the first code's arrangement of rows, zeros where nothing changes it."""
    import torch

    layer = units[0].layer
    if units[0].part is None or len(layer.modules) == 1:
        pair = pair_of(units[0])
        return (swapped(pair) if swaps(layer, pair) and units[0].part is not None else pair).product()
    parts = {unit.part: pair_of(unit).product() for unit in units}
    like = next(iter(parts.values()))
    rows = layer.rows(like.shape[1])
    return torch.cat([parts[part] if part in parts else like.new_zeros(count, *like.shape[1:]) for part, count in enumerate(rows)])


def _magnitude(units: Sequence[Unit]) -> Tensor | None:
    """DoRA's magnitude of each row of a whole layer, in the same arrangement."""
    import torch

    layer: Layer = units[0].layer
    pairs = [pair_of(unit) for unit in sorted(units, key=lambda unit: unit.part or 0)]
    if units[0].part is not None:
        pairs = [swapped(pair) if swaps(layer, pair) else pair for pair in pairs]
    given = [pair.dora.float() for pair in pairs if pair.dora is not None]
    return torch.cat(given) if given else None


def _close(one: Tensor, other: Tensor) -> bool:
    import torch

    return one.shape == other.shape and torch.allclose(one, other, rtol=1e-2, atol=0.0)
