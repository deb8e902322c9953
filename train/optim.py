"""Optimizers, and how the learning rate goes: two tables, and the norm that clipping looks at."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from registry.names import Table
from train.config import OptimConfig, TrainConfig

if TYPE_CHECKING:
    from torch.optim import Optimizer

Groups = Sequence[dict[str, Any]]  # [{"params": [...]}, ...]: weights that share a learning rate

OPTIMIZERS: Table[Callable[[Groups, OptimConfig], Optimizer]] = Table("optimizer")
SCHEDULES: Table[Callable[[float], float]] = Table("learning rate schedule")  # share of the way after the warm-up -> factor


@OPTIMIZERS.add("adamw")
def adamw(groups: Groups, config: OptimConfig) -> Optimizer:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019), all weights in one kernel where there is one."""
    import torch

    fused = all(weight.device.type in ("cpu", "cuda") for group in groups for weight in group["params"])
    betas = (config.betas[0], config.betas[1])
    return torch.optim.AdamW(list(groups), lr=config.lr, betas=betas, weight_decay=config.weight_decay, fused=fused or None)


@SCHEDULES.add("constant")
def constant(way: float) -> float:
    """The highest rate to the end."""
    return 1.0


@SCHEDULES.add("cosine")
def cosine(way: float) -> float:
    """Half a cosine from 1 to 0 (Loshchilov & Hutter 2017, eq. 5)."""
    return 0.5 * (1.0 + math.cos(math.pi * way))


def learning_rate(config: TrainConfig, step: int) -> float:
    """The rate of step 0..steps-1: a straight rise over the warm-up, then the schedule. No state: a resume has the same."""
    warmup = round(config.schedule.warmup * config.steps)
    if step < warmup:
        return config.optim.lr * (step + 1) / (warmup + 1)
    return config.optim.lr * SCHEDULES[config.schedule.name]((step - warmup) / max(1, config.steps - warmup))


def set_rates(optimizer: Any, rates: Sequence[float]) -> None:
    """Give each group its rate."""
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
