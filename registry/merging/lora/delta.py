"""What each algorithm changes of a weight, from its definition: the delta that is added to W at weight 1.

W is the base's weight (O, I) or (O, I, h, w); only what needs it gets it. Everything is fp32.
"""

# R rank, I in-width, O out-width, K blocks, N size of a block

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from registry.errors import Refused
from registry.merging.lora.adapter import Module

if TYPE_CHECKING:
    from torch import Tensor

Delta = Callable[[Module, "Tensor | None"], "Tensor"]


def delta(module: Module, base: Tensor | None = None, *, weight: float = 1.0) -> Tensor:
    """What the module adds to its weight at this strength. Raises Refused when it needs the base's weight and has none.

    For LoRA, LoHa, LoKr, GLoRA, full and norm it is the strength times the delta at 1; OFT, BOFT and DoRA bend the weight.
    """
    if module.needs_base and base is None:
        raise Refused(f"{module.name} ({kind_of(module)}) changes a weight by what that weight is; its change is not known without a base.")
    if module.algorithm in ROTATIONS:
        assert base is not None
        return ROTATIONS[module.algorithm](module, base, weight)
    if module.algorithm not in DELTAS:
        raise Refused(f"{module.name} is {module.algorithm or 'of an unknown algorithm'}, which changes no weight that could be merged.")
    change = DELTAS[module.algorithm](module, base)
    if base is not None:
        change = change.reshape(base.shape)
    if "dora" in module.stored:
        assert base is not None
        return decomposed(module.tensor("dora"), base, change, on_out=_on_out(module, base), weight=weight)
    return change * weight if weight != 1.0 else change


def kind_of(module: Module) -> str:
    """The algorithm in words."""
    return f"DoRA on {module.algorithm}" if "dora" in module.stored else module.algorithm


def bias_delta(module: Module) -> Tensor | None:
    """What is added to the bias, None when nothing is."""
    return module.get("diff_b") if "diff_b" in module.stored else module.get("b_norm")


# --- products of factors


def factors(module: Module) -> tuple[Tensor, Tensor]:
    """(up (O, R), down (R, I h w)) of a plain LoRA, the scale in `up`; a Tucker core is multiplied into `down`."""
    import torch

    up, down, mid = module.tensor("up"), module.tensor("down"), module.get("mid")
    scale = module.scale(down.shape[0])
    if mid is not None:  # W = up mid down (Tucker-2): the core takes the place of the kernel
        down = torch.einsum("ijkl,jm->imkl", mid, down.flatten(1))
    return up.flatten(1) * scale, down.flatten(1)


def _lora(module: Module, _base: Tensor | None) -> Tensor:
    up, down = factors(module)
    return (up @ down).reshape(delta_shape(module))


def delta_shape(module: Module) -> tuple[int, ...]:
    """The shape of a plain LoRA's delta, from the header."""
    up, down = module.stored["up"].info.shape, module.stored["down"].info.shape
    kernel = module.stored["mid"].info.shape[2:] if "mid" in module.stored else down[2:]
    return (up[0], down[1], *kernel)


def _loha(module: Module, _base: Tensor | None) -> Tensor:
    """(w1_a w1_b) * (w2_a w2_b), element by element (FedPara; Hyeon-Woo et al. 2022); with Tucker cores t1, t2 for convolutions."""
    sides = [_tucker(module, side) for side in ("1", "2")]
    return sides[0] * sides[1] * module.scale(module.stored["w1_b"].info.shape[0])


def _tucker(module: Module, side: str) -> Tensor:
    import torch

    a, b, core = module.tensor(f"w{side}_a"), module.tensor(f"w{side}_b"), module.get(f"t{side}")
    return a @ b if core is None else torch.einsum("ijkl,jr,ip->prkl", core, b, a)


def _lokr(module: Module, _base: Tensor | None) -> Tensor:
    """The Kronecker product of w1 and w2, either of which may be a product itself. alpha counts only where one is (LyCORIS)."""
    import torch

    rank = None
    if "w1" in module.stored:
        first = module.tensor("w1")
    else:
        first, rank = module.tensor("w1_a") @ module.tensor("w1_b"), module.stored["w1_b"].info.shape[0]
    if "w2" in module.stored:
        second = module.tensor("w2")
    else:
        second, rank = _tucker(module, "2"), module.stored["w2_b"].info.shape[0]
    first = first.reshape(*first.shape, *[1] * (second.ndim - 2))
    return torch.kron(first, second) * (module.scale(rank) if rank is not None else 1.0)


def _glora(module: Module, base: Tensor | None) -> Tensor:
    """B + W A (Chavan et al. 2023): (b1 b2 + (W a1) a2) scale, in LyCORIS's naming; the first release had 1 and 2 the other way round."""
    import torch

    assert base is not None
    a1, a2, b1, b2 = (module.tensor(role).flatten(1) for role in ("a1", "a2", "b1", "b2"))
    inputs = base.shape[1]
    if a1.shape[0] != inputs or a2.shape[1] != inputs:
        a1, a2, b1, b2 = a2, a1, b2, b1
    change = torch.einsum("oi...,ij->oj...", torch.einsum("oi...,ij->oj...", base, a1), a2)
    return (change + (b1 @ b2).reshape(base.shape)) * module.scale(a1.shape[1])


# --- differences as they are


def _full(module: Module, _base: Tensor | None) -> Tensor:
    return module.tensor("diff")


def _set(module: Module, base: Tensor | None) -> Tensor:
    assert base is not None
    return module.tensor("set").reshape(base.shape) - base


def _norm(module: Module, _base: Tensor | None) -> Tensor:
    return module.tensor("w_norm")


def _ia3(module: Module, base: Tensor | None) -> Tensor:
    """W scaled by column (on_input) or by row (Liu et al. 2022): LyCORIS keeps scale - 1, peft the scale itself."""
    assert base is not None
    scale = module.tensor("weight_scale").flatten()
    peft = "on_input" not in module.stored
    by_input = (scale.numel() == base.shape[1] != base.shape[0]) if peft else bool(module.tensor("on_input").item())
    change: Tensor = base * _along(scale - 1 if peft else scale, base, 1 if by_input else 0)
    return change


def _along(values: Tensor, base: Tensor, axis: int) -> Tensor:
    shape = [1] * base.ndim
    shape[axis] = -1
    return values.reshape(shape)


DELTAS: dict[str, Delta] = {
    "lora": _lora,
    "loha": _loha,
    "lokr": _lokr,
    "glora": _glora,
    "full": _full,
    "set": _set,
    "norm": _norm,
    "ia3": _ia3,
}


# --- rotations


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

    turn = _cayley(module, base.shape[0])
    unit = torch.eye(turn.shape[-1])
    rows = base.reshape(turn.shape[0], turn.shape[1], -1)
    turned = torch.einsum("knm,kni->kmi", turn * weight + (1 - weight) * unit, rows).reshape(base.shape)
    return _rescaled(module, turned, weight) - base


def _boft(module: Module, base: Tensor, weight: float) -> Tensor:
    """Rows of W rotated by butterfly factors (Liu et al. 2024), as LyCORIS orders them."""
    import torch

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
    return turned if scale is None else turned * _along(1 + weight * (scale.flatten() - 1), turned, 0)


ROTATIONS: dict[str, Callable[[Module, Tensor, float], Tensor]] = {"oft": _oft, "boft": _boft}


# --- DoRA


def decomposed(magnitude: Tensor, base: Tensor, change: Tensor, *, on_out: bool, weight: float) -> Tensor:
    """m (W + D) / |W + D| - W (Liu et al. 2024, eq. 5); the length is of each row (`on_out`) or of each column of W + D.

    A strength between 0 and 1 takes that share of the whole change.
    """
    moved = base + change
    flat = moved.flatten(1) if on_out else moved.transpose(0, 1).flatten(1)
    length = flat.norm(dim=1)
    scale = _along(magnitude.flatten() / length.clamp_min(1e-12), base, 0 if on_out else 1)
    return (moved * scale - base) * weight


def _on_out(module: Module, base: Tensor) -> bool:
    """Whether the magnitude has one number a row: peft's, and LyCORIS's `wd_on_out`, which is shaped (O, 1)."""
    shape = module.stored["dora"].info.shape
    if len(shape) == 1 or shape[0] == base.shape[0] != 1:
        return True
    return len(shape) > 1 and base.shape[1] != shape[1]
