"""Orthogonal fine-tuning: the weight turned by rotations that a Cayley transform makes of skew-symmetric blocks.

LyCORIS turns the outputs (rows of W), peft the inputs (columns); they also differ in the transform's sign and in what is stored.
"""

# K blocks, N size of a block, I in-width (a convolution's kernel with it), O out-width

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from registry.adapters.reader import Module

if TYPE_CHECKING:
    from torch import Tensor


def rotation_fault(module: Module) -> str | None:
    """Why a rotation cannot be made of these tensors; None when it can."""
    if not module.peft:
        return None
    if module.algorithm == "boft" and module.stored["blocks"].info.shape[0] != 1:
        return "is boft of several butterfly factors in peft's order, which is not read here; merge it with peft."
    if module.algorithm == "oft" and "use_cayley_neumann" not in module.settings:
        return "is peft's oft, and the adapter_config.json with the transform it was trained with is missing."
    if module.settings.get("coft"):
        return "is peft's constrained oft (coft), which is not read here; merge it with peft."
    return None


def turn_fault(module: Module, shape: tuple[int, ...]) -> str | None:
    """Why the rotation does not turn a weight of this shape; None when it does."""
    blocks = module.stored["blocks"].info.shape
    vectors = module.peft and module.algorithm == "oft"
    needed = 2 if vectors else 3 if module.algorithm == "oft" else 4
    if len(blocks) != needed or not shape:
        return f"blocks of {list(blocks)} for a weight of {list(shape)}, where {needed} axes were expected"
    size = block_size(blocks[1]) if vectors else blocks[-1]
    if (size * (size - 1) // 2 != blocks[1]) if vectors else (blocks[-2] != size):
        return f"blocks of {list(blocks)}, which are not square"
    width, what = (math.prod(shape[1:]), "columns") if module.peft else (shape[0], "rows")
    shared = vectors and blocks[0] == 1  # one block may be shared by all
    turned = width // size * size if shared else blocks[0 if vectors else -3] * size
    if turned != width:
        return f"a rotation of {turned} {what} where the base has {width}"
    if module.algorithm == "boft" and not module.peft and width % _swapped(blocks[0], size):
        return f"a butterfly of {blocks[0]} factors of {size} x {size} where the base has {width} rows"
    scale = module.stored.get("scale")
    if scale is not None and scale.info.elements != shape[0]:
        return f"{scale.info.elements} scales of rows where the base has {shape[0]}"
    return None


def _swapped(levels: int, size: int) -> int:
    """Rows that the last of LyCORIS's butterfly factors permutes together; more than any base has for blocks of one number."""
    return 2**levels * (size // 2) or 1 << 62


def block_size(pairs: int) -> int:
    """N of the N (N - 1) / 2 numbers above a skew-symmetric block's diagonal."""
    return (1 + math.isqrt(1 + 8 * pairs)) // 2


def along(values: Tensor, base: Tensor, axis: int) -> Tensor:
    """A vector shaped to be multiplied along one axis of a weight."""
    shape = [1] * base.ndim
    shape[axis] = -1
    return values.reshape(shape)


# --- LyCORIS: rows


def _cayley(module: Module, out: int) -> Tensor:
    """Rotations (..., N, N) of skew-symmetric Q: (I + Q)(I - Q)^-1; alpha O, where given, is the longest Q may be (LyCORIS)."""
    import torch

    blocks = module.tensor("blocks")
    skew = blocks - blocks.transpose(-1, -2)
    limit = (module.alpha or 0.0) * out
    length = float(skew.norm()) + 1e-8
    if 0 < limit < length:
        skew = skew * (limit / length)
    unit = torch.eye(skew.shape[-1])
    turn: Tensor = (unit + skew) @ torch.linalg.inv(unit - skew)
    return turn


def _oft(module: Module, base: Tensor, weight: float) -> Tensor:
    """Rows of W rotated block by block (Qiu et al. 2023); the strength goes from no rotation to this one along a line."""
    import torch

    if module.peft:
        return _columns(module, base, _peft_turn(module, base.shape[1:].numel())) * weight
    turn = _cayley(module, base.shape[0])
    unit = torch.eye(turn.shape[-1])
    rows = base.reshape(turn.shape[0], turn.shape[1], -1)
    turned = torch.einsum("knm,kni->kmi", turn * weight + (1 - weight) * unit, rows).reshape(base.shape)
    return _rescaled(module, turned, weight) - base


def _boft(module: Module, base: Tensor, weight: float) -> Tensor:
    """Rows of W rotated by butterfly factors (Liu et al. 2024), as LyCORIS orders them."""
    import torch

    if module.peft:
        return _columns(module, base, _peft_butterfly(module)) * weight
    turn = _cayley(module, base.shape[0])  # (m, K, N, N)
    unit, size = torch.eye(turn.shape[-1]), turn.shape[-1]
    rows = base.flatten(1).T  # the rotation acts along O, here the last axis
    for level, blocks in enumerate(turn):
        width = 2**level * (size // 2)
        count = rows.shape[-1]
        rows = rows.reshape(-1, count // (2 * width), 2, width).transpose(-2, -1).reshape(-1, count // size, size)
        rows = torch.einsum("bij,...bj->...bi", blocks * weight + (1 - weight) * unit, rows)
        rows = rows.reshape(-1, count // (2 * width), width, 2).transpose(-2, -1).reshape(-1, count)
    return _rescaled(module, rows.T.reshape(base.shape), weight) - base


def _rescaled(module: Module, turned: Tensor, weight: float) -> Tensor:
    scale = module.get("scale")
    return turned if scale is None else turned * along(1 + weight * (scale.flatten() - 1), turned, 0)


# --- peft: columns


def _columns(module: Module, base: Tensor, turn: Tensor) -> Tensor:
    """W R^T - W with R (K, N, N) along the columns, the rows then scaled where BOFT has a scale."""
    import torch

    columns = base.reshape(base.shape[0], turn.shape[0], turn.shape[1])
    return _rescaled(module, torch.einsum("okn,kmn->okm", columns, turn).reshape(base.shape), 1.0) - base


def _peft_turn(module: Module, width: int) -> Tensor:
    """(I - Q)(I + Q)^-1, or the first terms of its series I + 2 (Q + Q^2 + ...) + Q^n, which peft trains with by default."""
    import torch

    vectors = module.tensor("blocks")  # (K, N (N - 1) / 2), one row for all blocks where they are shared
    size = block_size(vectors.shape[1])
    rows, columns = torch.triu_indices(size, size, 1)
    skew = torch.zeros(len(vectors), size, size)
    skew[:, rows, columns] = vectors
    skew = skew - skew.transpose(-1, -2)
    terms = int(module.settings.get("num_cayley_neumann_terms", 5))
    turn = _series(skew, terms) if module.settings.get("use_cayley_neumann") else _exact(skew)
    return turn.expand(width // size, size, size) if len(turn) == 1 else turn


def _series(skew: Tensor, terms: int) -> Tensor:
    """I + 2 Q + ... + 2 Q^(n - 2) + Q^(n - 1): the last of n terms counts once; where three are asked for peft makes four."""
    import torch

    terms = max(terms, 4) if terms > 2 else terms
    power = torch.eye(skew.shape[-1]).expand_as(skew)
    total = power.clone()
    for term in range(1, terms):
        power = power @ skew
        total += power * (1.0 if term == terms - 1 and terms > 2 else 2.0)
    return total


def _exact(skew: Tensor) -> Tensor:
    import torch

    unit = torch.eye(skew.shape[-1])
    turn: Tensor = torch.linalg.solve(unit + skew, unit - skew, left=False)
    return turn


def _peft_butterfly(module: Module) -> Tensor:
    """The one factor of a BOFT in peft: Q is half of the blocks' difference from their transpose."""
    blocks = module.tensor("blocks")[0]
    return _exact((blocks - blocks.transpose(-1, -2)) / 2)


ROTATIONS: dict[str, Callable[[Module, Tensor, float], Tensor]] = {"oft": _oft, "boft": _boft}
