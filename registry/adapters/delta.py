"""What each algorithm changes of a weight, from its definition: the delta that is added to W at weight 1.

W is the base's weight (O, I) or (O, I, h, w); only what needs it gets it. Everything is fp32.
"""

# R rank, I in-width, O out-width, K blocks, N size of a block

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from registry.adapters.reader import Module
from registry.adapters.rotations import ROTATIONS, along, rotation_fault
from registry.errors import JobFailed, Refused
from registry.tensors.role_form import form_fault, hadamard_fault

if TYPE_CHECKING:
    from torch import Tensor

Delta = Callable[[Module, "Tensor | None"], "Tensor"]


def delta(module: Module, base: Tensor | None = None, *, weight: float = 1.0) -> Tensor:
    """What the module adds to its weight at this strength. Raises Refused when it needs the base's weight and has none.

    For LoRA, LoHa, LoKr, GLoRA, full and norm it is the strength times the delta at 1; OFT, BOFT and DoRA bend the weight.
    """
    if fault := tensor_fault(module):
        raise Refused(f"{module.name} {fault}")
    if module.needs_base and base is None:
        raise Refused(f"{module.name} ({kind_of(module)}) changes a weight by what that weight is; its change is not known without a base.")
    if module.algorithm in ROTATIONS:
        assert base is not None
        return ROTATIONS[module.algorithm](module, base, weight)
    change = DELTAS[module.algorithm](module, base)
    if base is not None:
        change = change.reshape(base.shape)
    if "dora" in module.stored:
        assert base is not None
        return decomposed(module.tensor("dora"), base, change, on_out=magnitude_axis(module, base.shape) == 0, weight=weight)
    return change.mul_(weight) if weight != 1.0 else change


def finite(values: Tensor, module: Module) -> Tensor:
    """The values. Raises JobFailed where the module's numbers are none."""
    import torch

    if values.numel() and not all(bool(bound.isfinite()) for bound in torch.aminmax(values)):  # NaN is both bounds then
        file = next(iter(module.stored.values())).file
        raise JobFailed(f"{module.name} of {file.name} has numbers that are none (NaN or infinite). Nothing was written; train it again.")
    return values


def kind_of(module: Module) -> str:
    """The algorithm in words."""
    return f"DoRA on {module.algorithm}" if "dora" in module.stored else module.algorithm


def changes_weight(module: Module) -> bool:
    """Whether it changes a weight: not a bias alone."""
    return bool(module.roles - {"diff_b", "b_norm", "alpha"})


def changes_bias(module: Module) -> bool:
    """Whether it changes a bias too."""
    return bool(module.roles & {"diff_b", "b_norm", "up_bias"}) or (module.algorithm == "ia3" and module.peft and not _by_input(module))


def bias_delta(module: Module, base: Tensor | None = None) -> Tensor | None:
    """What is added to the bias, None when nothing is; peft's IA3 scales the bias with its rows and needs it."""
    if "up_bias" in module.roles:
        own = module.tensor("up_bias") * module.scale(module.stored["down"].info.shape[0])
        return own + module.tensor("diff_b") if "diff_b" in module.roles else own
    if module.algorithm == "ia3" and base is not None and changes_bias(module):
        return base * (module.tensor("weight_scale").flatten() - 1)
    return module.get("diff_b") if "diff_b" in module.stored else module.get("b_norm")


# --- products of factors


def factors(module: Module) -> tuple[Tensor, Tensor]:
    """(up (O, R), down (R, I h w)) of a product, the scale and singular values in `up`; a Tucker core is multiplied into `down`."""
    import torch

    up, down, mid, singular = module.tensor("up"), module.tensor("down"), module.get("mid"), module.get("singular")
    scale = module.scale(down.shape[0])
    if singular is not None:  # AdaLoRA: B diag(E) A
        up = up.flatten(1) * singular.flatten()
    if mid is not None:  # W = up mid down (Tucker-2): the core takes the place of the kernel
        down = torch.einsum("ijkl,jm->imkl", mid, down.flatten(1))
    return up.flatten(1) * scale, down.flatten(1)


def _lora(module: Module, base: Tensor | None) -> Tensor:
    up, down = factors(module)
    change = (up @ down).reshape(delta_shape(module))
    if not module.start:
        return change
    assert base is not None
    return change - STARTS[module.start](base.flatten(1), module.scale(down.shape[0]), down.shape[0]).reshape(change.shape)


def _pissa(base: Tensor, _scale: float, rank: int) -> Tensor:
    """What PiSSA takes out of W: its first R singular components, U S V^T (Meng et al. 2024, eq. 2)."""
    import torch

    left, values, right = torch.linalg.svd(base, full_matrices=False)
    part: Tensor = (left[:, :rank] * values[:rank]) @ right[:rank]
    return part


def _olora(base: Tensor, scale: float, rank: int) -> Tensor:
    """What OLoRA takes out of W: alpha / R times the first R columns of Q and rows of R of W = Q R (Buyukakyuz 2024)."""
    import torch

    q, r = torch.linalg.qr(base)
    part: Tensor = scale * (q[:, :rank] @ r[:rank])
    return part


STARTS: dict[str, Callable[[Tensor, float, int], Tensor]] = {"pissa": _pissa, "olora": _olora}


def delta_shape(module: Module) -> tuple[int, ...]:
    """The shape of a plain LoRA's delta, from the header."""
    up, down = module.stored["up"].info.shape, module.stored["down"].info.shape
    kernel = module.stored["mid"].info.shape[2:] if "mid" in module.stored else down[2:]
    return (up[0], down[1], *kernel)


def _loha(module: Module, _base: Tensor | None) -> Tensor:
    """(w1_a w1_b) * (w2_a w2_b), element by element (FedPara; Hyeon-Woo et al. 2022); with Tucker cores t1, t2 for convolutions."""
    sides = [_tucker(module, side) for side in ("1", "2")]
    return sides[0] * sides[1] * module.scale(module.declared_rank or module.stored["w1_b"].info.shape[0])


def _tucker(module: Module, side: str) -> Tensor:
    import torch

    a, b, core = module.tensor(f"w{side}_a"), module.tensor(f"w{side}_b"), module.get(f"t{side}")
    return a @ b if core is None else torch.einsum("ijkl,jr,ip->prkl", core, b, a)


def _lokr(module: Module, _base: Tensor | None) -> Tensor:
    """The Kronecker product of w1 and w2."""
    import torch

    first, second, scale = kronecker_sides(module)
    first = first.reshape(*first.shape, *[1] * (second.ndim - 2))
    product = torch.kron(first.contiguous(), second.contiguous())
    return product.mul_(scale) if scale != 1.0 else product


def kronecker_sides(module: Module) -> tuple[Tensor, Tensor, float]:
    """(w1, w2, scale) of a LoKr; either side may be a product itself.

    In LyCORIS's files alpha counts only where one is; in peft's it always does, by the rank of the config.
    """
    rank = None
    if "w1" in module.stored:
        first = module.tensor("w1")
    else:
        first, rank = module.tensor("w1_a") @ module.tensor("w1_b"), module.stored["w1_b"].info.shape[0]
    if "w2" in module.stored:
        second = module.tensor("w2")
    else:
        second, rank = _tucker(module, "2"), module.stored["w2_b"].info.shape[0]
    rank = module.declared_rank or rank
    return first, second, module.scale(rank) if rank is not None else 1.0


def _glora(module: Module, base: Tensor | None) -> Tensor:
    """B + W A (Chavan et al. 2023): (b1 b2 + (W a1) a2) scale, in LyCORIS's naming; the first release had 1 and 2 swapped.

    `bm` is a Tucker core between b1 and b2.
    """
    import torch

    assert base is not None
    a1, a2, b1, b2 = (module.tensor(role).flatten(1) for role in ("a1", "a2", "b1", "b2"))
    core = module.get("bm")
    inputs = base.shape[1]
    if a1.shape[0] != inputs or a2.shape[1] != inputs:
        a1, a2, b1, b2 = a2, a1, b2, b1
    if core is not None:
        b2 = torch.einsum("ij...,jm->im...", core, b2).flatten(1)
    change = torch.einsum("oi...,ij->oj...", torch.einsum("oi...,ij->oj...", base, a1), a2)
    return (change + (b1 @ b2).reshape(base.shape)) * module.scale(a1.shape[1])


# --- differences as they are


def _full(module: Module, _base: Tensor | None) -> Tensor:
    return module.tensor("diff")


def _replaced(module: Module, base: Tensor | None) -> Tensor:
    assert base is not None
    return module.tensor("set").reshape(base.shape) - base


def _norm(module: Module, _base: Tensor | None) -> Tensor:
    return module.tensor("w_norm")


def _table(module: Module, _base: Tensor | None) -> Tensor:
    """LoRA of an embedding in peft: (B A)^T, since the table has one row a word."""
    down, up = module.tensor("table_down"), module.tensor("table_up")
    return (up @ down).T * module.scale(down.shape[0])


def _ia3(module: Module, base: Tensor | None) -> Tensor:
    """W scaled by column (on_input) or by row (Liu et al. 2022): LyCORIS keeps scale - 1, peft the scale itself."""
    assert base is not None
    scale = module.tensor("weight_scale").flatten()
    change: Tensor = base * along(scale - 1 if _is_whole_scale(module) else scale, base, scaled_axis(module))
    return change


def scaled_axis(module: Module) -> int:
    """The axis of the weight that an IA3 scales: its columns, which are the layer's inputs, or its rows."""
    return 1 if _by_input(module) else 0


def _is_whole_scale(module: Module) -> bool:
    return "on_input" not in module.stored


def _by_input(module: Module) -> bool:
    """Whether IA3 scales the inputs. By shape for peft's linear layers, (1, I) or (O, 1); by the config for its convolutions."""
    if not _is_whole_scale(module):
        return bool(module.tensor("on_input").item())
    shape = module.stored["weight_scale"].info.shape
    if len(shape) == 2:
        return shape[0] == 1 and shape[1] > 1
    feedforward = module.settings.get("feedforward_modules") or ()
    bare = module.name.removeprefix("base_model.model.")
    return any(bare == name or bare.endswith(f".{name}") for name in ([feedforward] if isinstance(feedforward, str) else feedforward))


DELTAS: dict[str, Delta] = {
    "lora": _lora,
    "loha": _loha,
    "lokr": _lokr,
    "glora": _glora,
    "full": _full,
    "set": _replaced,
    "norm": _norm,
    "ia3": _ia3,
    "table": _table,
}


# --- what a file must hold of each algorithm


@dataclass(frozen=True)
class Needs:
    """The tensors of an algorithm: all of `all`, all of one of each of `either`, and what may accompany them."""

    all: frozenset[str]
    either: tuple[tuple[frozenset[str], ...], ...] = ()
    also: frozenset[str] = frozenset()


def _set(*words: str) -> frozenset[str]:
    return frozenset(words)


NEEDS: dict[str, Needs] = {
    "lora": Needs(_set("down", "up"), also=_set("mid", "singular", "dora", "up_bias")),
    "table": Needs(_set("table_down", "table_up")),
    "loha": Needs(_set("w1_a", "w1_b", "w2_a", "w2_b"), ((_set(), _set("t1", "t2")),), _set("dora")),
    "lokr": Needs(_set(), ((_set("w1"), _set("w1_a", "w1_b")), (_set("w2"), _set("w2_a", "w2_b"))), _set("t2", "dora")),
    "glora": Needs(_set("a1", "a2", "b1", "b2"), also=_set("bm")),
    "full": Needs(_set(), ((_set("diff"), _set("diff_b")),), _set("diff", "diff_b")),
    "set": Needs(_set("set"), also=_set("diff_b")),
    "norm": Needs(_set(), ((_set("w_norm"), _set("b_norm")),), _set("w_norm", "b_norm")),
    "ia3": Needs(_set("weight_scale"), also=_set("on_input")),
    "oft": Needs(_set("blocks"), also=_set("scale")),
    "boft": Needs(_set("blocks"), also=_set("scale")),
}


MOST_ALPHA = 3.4028234663852886e38  # of fp32


def tensor_fault(module: Module) -> str | None:
    """Why a module cannot be read, 'is half a lora: ...'; None when nothing is missing and nothing is unknown."""
    if module.unread:
        return module.unread
    if module.strange:
        return f"has tensors that are not understood here: {', '.join(key.removeprefix(f'{module.name}.') for key in module.strange)}."
    needs = NEEDS.get(module.algorithm)
    if needs is None:
        return f"is {module.algorithm or 'of an unknown algorithm'}, which changes no weight that could be merged."
    roles = module.roles - {"alpha"}
    missing = needs.all - roles
    known = needs.all | needs.also | {"diff_b"}  # a bias beside any weight, as ComfyUI reads it
    for choices in needs.either:
        known |= frozenset().union(*choices)
        if not any(choice <= roles for choice in choices) or any(0 < len(choice & roles) < len(choice) for choice in choices):
            missing |= min((choice - roles for choice in choices if choice), key=len)
    if missing:
        return f"is half a {module.algorithm}: {', '.join(sorted(missing))} missing."
    if unknown := roles - known:
        return f"is {module.algorithm} with {', '.join(sorted(unknown))}, which is not understood here."
    if "singular" in roles and not module.declared_rank:
        return "is AdaLoRA, and the adapter_config.json with the rank that alpha is divided by (init_r) is missing."
    if module.alpha is not None and not abs(module.alpha) <= MOST_ALPHA:
        return f"has an alpha of {module.alpha:g}, which is no number that fp32 holds."
    infos = {role: stored.info for role, stored in module.stored.items()}
    form = form_fault(infos) or (hadamard_fault(infos) if module.algorithm == "loha" else None)
    return form or (rotation_fault(module) if module.algorithm in ROTATIONS else None)


# --- DoRA


def decomposed(magnitude: Tensor, base: Tensor, change: Tensor, *, on_out: bool, weight: float) -> Tensor:
    """m (W + D) / |W + D| - W (Liu et al. 2024, eq. 5); the length is of each row (`on_out`) or of each column of W + D.

    A strength between 0 and 1 takes that share of the whole change.
    """
    moved = base + change
    flat = moved.flatten(1) if on_out else moved.transpose(0, 1).flatten(1)
    length = flat.norm(dim=1)
    scale = along(magnitude.flatten() / length.clamp_min(1e-12), base, 0 if on_out else 1)
    return (moved * scale - base) * weight


def magnitude_axis(module: Module, base: Sequence[int]) -> int:
    """The axis of a weight (O, I, ...) that the magnitude has a number for: its rows in peft and in LyCORIS's `wd_on_out`, (O, 1)."""
    shape = module.stored["dora"].info.shape
    if module.peft or len(shape) == 1 or shape[0] == base[0] != 1:
        return 0
    return 1 if base[1] == shape[1] else 0
