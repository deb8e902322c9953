"""Optimizers: a function each, whose options are its keyword-only parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any

from registry.errors import Refused
from registry.options import Meaning, OptionTable

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer

Groups = Sequence[dict[str, Any]]  # [{"params": [...]}, ...]: weights that share a learning rate

OPTIMIZERS: OptionTable[Callable[..., Optimizer]] = OptionTable("optimizer")
"""(groups, lr, *, options) -> Optimizer. `weight_decay` and `betas` are settings of `optim` itself."""

Decay = Annotated[float, Meaning("decoupled weight decay", 0.0)]
Betas = Annotated[tuple[float, float], Meaning("decay of the first and the second moment", 0.0)]
Epsilon = Annotated[float, Meaning("added to the denominator", 0.0)]


@OPTIMIZERS.add("adamw")
def adamw(groups: Groups, lr: float, *, betas: Betas = (0.9, 0.999), eps: Epsilon = 1e-8, weight_decay: Decay = 0.01) -> Optimizer:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019), all weights in one kernel where there is one."""
    import torch

    fused = all(weight.device.type in ("cpu", "cuda") for group in groups for weight in group["params"])
    return torch.optim.AdamW(list(groups), lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, fused=fused or None)


@OPTIMIZERS.add("sgd")
def sgd(
    groups: Groups,
    lr: float,
    *,
    momentum: Annotated[float, Meaning("share of the last update that is added to the next", 0.0)] = 0.9,
    dampening: Annotated[float, Meaning("share of the gradient that is kept out of the momentum", 0.0, 1.0)] = 0.0,
    nesterov: Annotated[bool, Meaning("Nesterov's momentum (Sutskever et al. 2013)")] = False,
    weight_decay: Decay = 0.0,
) -> Optimizer:
    """Stochastic gradient descent with momentum (Sutskever et al. 2013); needs a learning rate some hundred times Adam's."""
    import torch

    return torch.optim.SGD(list(groups), lr=lr, momentum=momentum, dampening=dampening, nesterov=nesterov, weight_decay=weight_decay)


@OPTIMIZERS.add("adafactor")
def adafactor(
    groups: Groups,
    lr: float,
    *,
    beta2_decay: Annotated[float, Meaning("exponent by which the second moment's decay nears 1", None, 0.0)] = -0.8,
    clip_threshold: Annotated[float, Meaning("largest root mean square of an update before lr", 1.0)] = 1.0,
    weight_decay: Decay = 0.0,
) -> Optimizer:
    """Adam's second moment kept as one row and one column a matrix (Shazeer & Stern 2018): the least memory."""
    import torch

    if not hasattr(torch.optim, "Adafactor"):
        raise Refused(f"adafactor needs torch 2.5 or newer; this is {torch.__version__}. Use adamw, or update torch.")
    return torch.optim.Adafactor(list(groups), lr=lr, beta2_decay=beta2_decay, d=clip_threshold, weight_decay=weight_decay)


@OPTIMIZERS.add("prodigy")
def prodigy(
    groups: Groups,
    lr: float,
    *,
    betas: Betas = (0.9, 0.999),
    eps: Epsilon = 1e-8,
    weight_decay: Decay = 0.0,
    d_coef: Annotated[float, Meaning("factor on the estimated rate; 0.5 to 2 is usual", 0.0, open_least=True)] = 1.0,
    d0: Annotated[float, Meaning("first estimate of the rate", 0.0, open_least=True)] = 1e-6,
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


def optional_package(name: str, optimizer: str) -> Any:
    """The module of an optimizer that is installed apart. Raises Refused with the pip line."""
    try:
        return import_module(name)
    except ImportError:
        raise Refused(f"{optimizer} needs the package {name}, which is not installed: pip install {name}") from None


def set_rates(optimizer: Any, rates: Sequence[float]) -> None:
    """Give each group its rate."""
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate


CHANGEABLE = ("weight_decay",)  # options of a group that a resume may change; `lr` is set anew in each step
KERNELS = ("fused", "foreach", "capturable")  # options of a group that suit the device it was built for


def load_state(optimizer: Any, saved: Mapping[str, Any]) -> None:
    """Put a checkpoint's state back. What a resume may change, and what suits the device at hand, stays as it was built."""
    groups = [
        {**old, **{name: group[name] for name in (*CHANGEABLE, *KERNELS) if name in old and name in group}}
        for old, group in zip(saved["param_groups"], optimizer.param_groups, strict=True)
    ]
    optimizer.load_state_dict({**saved, "param_groups": groups})


def has_evaluation_weights(optimizer: Any) -> bool:
    """Whether the weights it trains are other ones than those to use, as schedule-free's are: it has `train()` and `eval()`."""
    inner = getattr(optimizer, "optimizer", optimizer)  # accelerate's wrapper has both for every optimizer
    return callable(getattr(inner, "eval", None)) and callable(getattr(inner, "train", None))


@contextmanager
def evaluation_weights(optimizer: Any, weights: Sequence[Tensor]) -> Iterator[None]:
    """The weights to use in place of those that train, which come back to the same bits afterwards."""
    import torch

    if not has_evaluation_weights(optimizer):
        yield
        return
    trained = [weight.detach().clone() for weight in weights]
    optimizer.eval()
    try:
        yield
    finally:
        optimizer.train()
        with torch.no_grad():
            for weight, own in zip(weights, trained, strict=True):
                weight.copy_(own)


def state_numbers(optimizer: Any) -> int:
    """Numbers that it keeps for each weight beside the weight and its gradient (Adam 2), from its state after a step."""
    weights: int = sum(weight.numel() for group in optimizer.param_groups for weight in group["params"])
    states: list[Mapping[str, Any]] = list(optimizer.state.values())
    kept: int = sum(value.numel() for state in states for value in state.values() if hasattr(value, "numel") and value.dim() > 0)
    return int(kept / weights + 0.5)
