"""Adapters of fused layers: separate factors joined into one pair, and one pair taken apart again, with the same products.

Where all modules share one down factor, the rank stays and the up factors stand one below the other. Where they do not, the rank
is the sum of the ranks: down factors one below the other, up factors along the diagonal.
"""

# R rank, I in-width, O out-width of a module; a fused layer has the rows of its modules, top to bottom

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from registry.adapters.writer import Pair

if TYPE_CHECKING:
    from torch import Tensor


def fuse(parts: Sequence[Pair | None], rows: Sequence[int]) -> Pair:
    """One pair for a layer whose modules have these rows; None is a module without an adapter, which gets rows of zeros."""
    present = [part for part in parts if part is not None]
    dora, bias = _stacked([part.dora for part in parts if part is not None]), _biases(parts, rows)
    if all(_same_down(present[0], part) for part in present[1:]):
        return Pair(present[0].down, _below(parts, rows), present[0].alpha, dora, bias)
    return replace(_along_the_diagonal(parts, rows), dora=dora, bias=bias)


def _same_down(one: Pair, other: Pair) -> bool:
    import torch

    return one.alpha == other.alpha and one.down.dtype == other.down.dtype and torch.equal(one.down, other.down)


def _below(parts: Sequence[Pair | None], rows: Sequence[int]) -> Tensor:
    import torch

    like = next(part.up for part in parts if part is not None)
    return torch.cat(
        [part.up if part is not None else like.new_zeros(count, *like.shape[1:]) for part, count in zip(parts, rows, strict=True)]
    )


def _along_the_diagonal(parts: Sequence[Pair | None], rows: Sequence[int]) -> Pair:
    """The scale of all is the first one's that is not 0; where another's differs, its up factor takes the difference."""
    import torch

    present = [part for part in parts if part is not None]
    scale = next((part.scale for part in present if part.scale), 1.0)
    ups = [part.up if part.scale == scale else _scaled(part.up, part.scale / scale) for part in present]
    dtype = ups[0].dtype
    for up in ups[1:]:
        dtype = torch.promote_types(dtype, up.dtype)
    rank = sum(part.rank for part in present)
    fused = torch.zeros(sum(rows), rank, *present[0].up.shape[2:], dtype=dtype)
    row = column = turn = 0
    for part, count in zip(parts, rows, strict=True):
        if part is not None:
            fused[row : row + count, column : column + part.rank] = ups[turn].to(dtype)
            column, turn = column + part.rank, turn + 1
        row += count
    alike = len({part.rank for part in present}) == len({part.alpha for part in present}) == 1
    alpha = present[0].alpha * len(present) if alike else scale * rank
    return Pair(torch.cat([part.down for part in present]), fused, alpha)


def _scaled(up: Tensor, factor: float) -> Tensor:
    """up times a factor, in its own dtype where that holds it exactly, else in fp32."""
    exact = up.double() * factor
    narrow = exact.to(up.dtype)
    return narrow if bool((narrow.double() == exact).all()) else exact.float()


def _stacked(magnitudes: Sequence[Tensor | None]) -> Tensor | None:
    import torch

    given = [magnitude for magnitude in magnitudes if magnitude is not None]
    return torch.cat(given) if given else None


def _biases(parts: Sequence[Pair | None], rows: Sequence[int]) -> Tensor | None:
    """The biases one below the other, with zeros for modules that have none; None where none has one."""
    import torch

    biases = [None if part is None else part.bias for part in parts]
    like = next((bias for bias in biases if bias is not None), None)
    if like is None:
        return None
    return torch.cat([like.new_zeros(count) if bias is None else bias for bias, count in zip(biases, rows, strict=True)])


def split(pair: Pair, rows: Sequence[int]) -> list[Pair | None]:
    """A pair for each module of a fused layer; None for a module whose rows and bias are zeros, which the layer leaves as it is.

    Up factors along the diagonal are taken apart with their own part of the down factor: `fuse` gave them this form.
    """
    import torch

    ups = torch.split(pair.up, list(rows))
    doras = torch.split(pair.dora, list(rows)) if pair.dora is not None else [None] * len(rows)
    biases = torch.split(pair.bias, list(rows)) if pair.bias is not None else [None] * len(rows)
    spans = _diagonal([_used_columns(up) for up in ups], pair.rank)
    found: list[Pair | None] = []
    for up, dora, bias, span in zip(ups, doras, biases, spans or [(0, pair.rank)] * len(ups), strict=True):
        biased = bias is not None and bool(bias.any())
        if not biased and (span[0] == span[1] or (dora is None and not bool(up.any()))):
            found.append(None)
            continue
        if span[0] == span[1]:
            span = (0, 1)  # a bias alone: factors of zeros beside it
        alpha = pair.alpha * (span[1] - span[0]) / pair.rank
        found.append(Pair(pair.down[span[0] : span[1]], up[:, span[0] : span[1]], alpha, dora, bias))
    return found


def _used_columns(up: Tensor) -> list[bool]:
    """Whether each of the R columns of an up factor has anything in it."""
    return [bool(used) for used in up.transpose(0, 1).flatten(1).any(dim=1)]


def _diagonal(used: Sequence[Sequence[bool]], rank: int) -> list[tuple[int, int]] | None:
    """The columns of each module where none are shared and they stand in order; None where the down factor is shared.

    Equal ranks are taken where they explain the zeros: a column that training left at zero belongs to its module.
    """
    busy = [module for module, columns in enumerate(used) if any(columns)]
    if len(busy) < 2:
        return None
    for owners in (list(range(len(used))), busy):
        if rank % len(owners) == 0:
            each = rank // len(owners)
            spans = [
                (owners.index(module) * each, (owners.index(module) + 1) * each) if module in owners else (0, 0)
                for module in range(len(used))
            ]
            if all(not any(columns[: span[0]]) and not any(columns[span[1] :]) for columns, span in zip(used, spans, strict=True)):
                return spans
    spans, begin = [], 0
    for module, columns in enumerate(used):
        if module not in busy:
            spans.append((begin, begin))
            continue
        end = rank if module == busy[-1] else rank - next(i for i, on in enumerate(reversed(columns)) if on)
        if any(columns[:begin]):
            return None
        spans.append((begin, end))
        begin = end
    return spans
