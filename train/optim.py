"""Optimizers: a function each, whose options are its keyword-only parameters.

Those of an optional package are in the table whether it is installed or not: without it they are refused with the pip line.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any

from registry.errors import Refused
from registry.options import Meaning, OptionTable

if TYPE_CHECKING:
    from torch.optim import Optimizer

Groups = Sequence[dict[str, Any]]  # [{"params": [...], "rate": 0.5}, ...]: `rate` is a factor on the learning rate, 1 without it

OPTIMIZERS: OptionTable[Callable[..., Optimizer]] = OptionTable("optimizer")
"""(groups, lr, *, options) -> Optimizer. `weight_decay` and `betas` are settings of `optim` itself."""

Decay = Annotated[float, Meaning("decoupled weight decay", 0.0)]
Betas = Annotated[tuple[float, float], Meaning("decay of the first and the second moment", 0.0)]
Epsilon = Annotated[float, Meaning("added to the denominator", 0.0)]
ClipThreshold = Annotated[float, Meaning("largest root mean square of an update before lr", 1.0)]
Factor = Annotated[float, Meaning("factor on the estimated rate; 0.5 to 2 is usual", 0.0, open_least=True)]
FirstEstimate = Annotated[float, Meaning("first estimate of the rate", 0.0, open_least=True)]
Nesterov = Annotated[bool, Meaning("Nesterov's momentum (Sutskever et al. 2013)")]


@OPTIMIZERS.add("adamw")
def adamw(groups: Groups, lr: float, *, betas: Betas = (0.9, 0.999), eps: Epsilon = 1e-8, weight_decay: Decay = 0.01) -> Optimizer:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019), all weights in one kernel where there is one."""
    from train.adamw import FlatAdamW

    fused = all(weight.device.type in ("cpu", "cuda") for group in groups for weight in group["params"])
    return FlatAdamW(list(groups), lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, fused=fused or None)


@OPTIMIZERS.add("adamw8bit")
def adamw8bit(
    groups: Groups,
    lr: float,
    *,
    betas: Betas = (0.9, 0.999),
    eps: Epsilon = 1e-8,
    weight_decay: Decay = 0.01,
    min_8bit_size: Annotated[int, Meaning("weights of fewer numbers keep fp32 moments", 0)] = 4096,
) -> Optimizer:
    """AdamW with moments of 8 bits, scaled by blocks of 256 (Dettmers et al. 2022): a quarter of their memory."""
    built: Optimizer = optional_package("bitsandbytes", "adamw8bit").optim.AdamW8bit(
        list(groups), lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, min_8bit_size=min_8bit_size
    )
    return built


@OPTIMIZERS.add("sgd")
def sgd(
    groups: Groups,
    lr: float,
    *,
    momentum: Annotated[float, Meaning("share of the last update that is added to the next", 0.0)] = 0.9,
    dampening: Annotated[float, Meaning("share of the gradient that is kept out of the momentum", 0.0, 1.0)] = 0.0,
    nesterov: Nesterov = False,
    weight_decay: Decay = 0.0,
) -> Optimizer:
    """Stochastic gradient descent with momentum (Sutskever et al. 2013); needs a learning rate some hundred times Adam's."""
    import torch

    return torch.optim.SGD(list(groups), lr=lr, momentum=momentum, dampening=dampening, nesterov=nesterov, weight_decay=weight_decay)


@OPTIMIZERS.add("lion")
def lion(groups: Groups, lr: float, *, betas: Betas = (0.9, 0.99), weight_decay: Decay = 0.0) -> Optimizer:
    """The sign of the momentum alone (Chen et al. 2023, algorithm 2): a third to a tenth of AdamW's rate, half its memory."""
    built: Optimizer = optional_package("lion_pytorch", "lion").Lion(list(groups), lr=lr, betas=betas, weight_decay=weight_decay)
    return built


@OPTIMIZERS.add("adafactor")
def adafactor(
    groups: Groups,
    lr: float,
    *,
    beta2_decay: Annotated[float, Meaning("exponent by which the second moment's decay nears 1", None, 0.0)] = -0.8,
    clip_threshold: ClipThreshold = 1.0,
    scale_parameter: Annotated[
        bool, Meaning("scale updates by the weight's size: B of a LoRA, 0 at first, learns 1,000 times slower")
    ] = False,
    weight_decay: Decay = 0.0,
) -> Optimizer:
    """Adam's second moment kept as one row and one column a matrix (Shazeer & Stern 2018): the least memory."""
    import torch

    if not hasattr(torch.optim, "Adafactor"):
        raise Refused(f"adafactor needs torch 2.5 or newer; this is {torch.__version__}. Use adamw, or update torch.")
    least = 1e-3 if scale_parameter else 1.0  # updates are scaled by the larger of this and the weight's root mean square
    return torch.optim.Adafactor(
        list(groups), lr=lr, beta2_decay=beta2_decay, eps=(None, least), d=clip_threshold, weight_decay=weight_decay
    )


@OPTIMIZERS.add("came")
def came(
    groups: Groups,
    lr: float,
    *,
    betas: Betas = (0.9, 0.999),
    beta3: Annotated[float, Meaning("decay of the confidence", 0.0, 1.0)] = 0.9999,
    clip_threshold: ClipThreshold = 1.0,
    weight_decay: Decay = 0.0,
) -> Optimizer:
    """Adafactor with momentum, slowed where the updates vary (Luo et al. 2023, algorithm 2)."""
    built: Optimizer = optional_package("came_pytorch", "came").CAME(
        list(groups), lr=lr, betas=(*betas, beta3), clip_threshold=clip_threshold, weight_decay=weight_decay
    )
    return built


@OPTIMIZERS.add("muon")
def muon(
    groups: Groups,
    lr: float,
    *,
    momentum: Annotated[float, Meaning("share of the last update that is added to the next", 0.0)] = 0.95,
    nesterov: Nesterov = True,
    ns_steps: Annotated[int, Meaning("Newton-Schulz iterations", 1)] = 5,
    weight_decay: Decay = 0.0,
) -> Optimizer:
    """Momentum made orthogonal (Jordan et al. 2024), scaled to Adam's rates (Liu et al. 2025); AdamW for weights that are no matrices."""
    built: Optimizer = optional_package("adv_optm", "muon").Muon_adv(
        _matrices_apart(groups),
        lr=lr,
        beta1=momentum,
        nesterov=nesterov,
        ns_steps=ns_steps,
        weight_decay=weight_decay,
        adam_weight_decay=weight_decay,
    )
    return built


def _matrices_apart(groups: Groups) -> list[dict[str, Any]]:
    """The groups, matrices and convolutions apart from vectors: left to itself adv_optm gives low ranks to AdamW too."""
    parts: list[dict[str, Any]] = []
    for group in groups:
        for matrices in (True, False):
            weights = [weight for weight in group["params"] if (weight.dim() >= 2) == matrices]
            own = {"use_muon": True} if matrices else {"use_muon": False, "actual_state_precision": "fp32"}  # asked for when it is put back
            parts += [{**group, "params": weights, **own}] if weights else []
    return parts


@OPTIMIZERS.add("prodigy")
def prodigy(
    groups: Groups,
    lr: float,
    *,
    betas: Betas = (0.9, 0.999),
    eps: Epsilon = 1e-8,
    weight_decay: Decay = 0.0,
    d_coef: Factor = 1.0,
    d0: FirstEstimate = 1e-6,
    growth_rate: Annotated[float | None, Meaning("largest growth of the estimate in one step, as a factor; null is no limit", 1.0)] = None,
    use_bias_correction: Annotated[bool, Meaning("Adam's bias correction")] = False,
    safeguard_warmup: Annotated[bool, Meaning("keep the warmup's low rates out of the estimate")] = False,
) -> Optimizer:
    """Adam that estimates its own learning rate (Mishchenko & Defazio 2024, algorithm 4): optim.lr is a factor on it, 1 is usual."""
    built: Optimizer = optional_package("prodigyopt", "prodigy").Prodigy(
        list(groups),
        lr=lr,
        betas=betas,
        eps=eps,
        weight_decay=weight_decay,
        d_coef=d_coef,
        d0=d0,
        growth_rate=float("inf") if growth_rate is None else growth_rate,
        use_bias_correction=use_bias_correction,
        safeguard_warmup=safeguard_warmup,
    )
    return built


@OPTIMIZERS.add("prodigy_plus_schedule_free")
def prodigy_plus_schedule_free(
    groups: Groups,
    lr: float,
    *,
    betas: Betas = (0.9, 0.99),
    eps: Epsilon = 1e-8,
    weight_decay: Decay = 0.0,
    d_coef: Factor = 1.0,
    d0: FirstEstimate = 1e-6,
    prodigy_steps: Annotated[int, Meaning("steps after which the estimate stays as it is; 0 is never", 0)] = 0,
    split_groups: Annotated[bool, Meaning("an estimate of its own for each group of weights, such as a text encoder's")] = True,
    factored: Annotated[bool, Meaning("keep the second moment as one row and one column a matrix")] = True,
    use_stableadamw: Annotated[bool, Meaning("scale updates by their root mean square, in place of gradient clipping")] = True,
) -> Optimizer:
    """Prodigy whose average of all steps takes the schedule's place (LoganBooker): optim.lr=1, schedule.name=constant, optim.clip=0."""
    built: Optimizer = optional_package("prodigyplus", "prodigy_plus_schedule_free", "prodigy-plus-schedule-free").ProdigyPlusScheduleFree(
        list(groups),
        lr=lr,
        betas=betas,
        eps=eps,
        weight_decay=weight_decay,
        d_coef=d_coef,
        d0=d0,
        prodigy_steps=prodigy_steps,
        split_groups=split_groups and len(groups) > 1,  # with one it prints that it takes one estimate
        factored=factored,
        use_stableadamw=use_stableadamw,
    )
    return built


@OPTIMIZERS.add("adamw_schedule_free")
def adamw_schedule_free(
    groups: Groups,
    lr: float,
    *,
    betas: Betas = (0.9, 0.999),
    eps: Epsilon = 1e-8,
    weight_decay: Decay = 0.0,
    r: Annotated[float, Meaning("exponent by which later steps weigh more in the average", 0.0)] = 0.0,
    weight_lr_power: Annotated[float, Meaning("exponent of the learning rate in the average's weights", 0.0)] = 2.0,
) -> Optimizer:
    """AdamW whose average of all steps takes the schedule's place (Defazio et al. 2024, eq. 3 to 5); use schedule.name=constant."""
    built: Optimizer = optional_package("schedulefree", "adamw_schedule_free").AdamWScheduleFree(
        list(groups), lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, r=r, weight_lr_power=weight_lr_power
    )
    return built


def optional_package(name: str, optimizer: str, pip_name: str | None = None) -> Any:
    """The module of an optimizer that is installed apart. Raises Refused with the pip line; `pip_name` where it is not the module's."""
    try:
        return import_module(name)
    except ImportError:
        package = pip_name or name
        raise Refused(f"{optimizer} needs the package {package}, which is not installed: pip install {package}") from None
