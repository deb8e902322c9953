"""The learning rate of each step: a straight rise over the warmup, then the schedule. No state: a resume has the same."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import lru_cache

from registry.errors import Refused
from train.choices import choose_schedule
from train.config import TrainConfig
from train.dotted import is_dotted


def learning_rate(config: TrainConfig, step: int) -> float:
    """The rate of step 0..steps-1."""
    warmup = warmup_steps(config)
    if step < warmup:
        return config.optim.lr * (step + 1) / (warmup + 1)
    after = max(1, config.steps - warmup)
    choice = choose_schedule(config.schedule)
    if is_dotted(choice.name):
        return _rates(choice.name, json.dumps(dict(choice.values), sort_keys=True), config.optim.lr, after)[step - warmup]
    factor: float = choice.bound((step - warmup) / after)
    return config.optim.lr * factor


def warmup_steps(config: TrainConfig) -> int:
    """Steps in which the rate rises."""
    given = config.schedule.warmup_steps
    return round(config.schedule.warmup * config.steps) if given is None else given


@lru_cache(maxsize=8)
def _rates(path: str, options: str, lr: float, steps: int) -> Sequence[float]:
    """The rates of a torch scheduler for so many steps: it is run over a weight of its own, ahead of the training."""
    import torch

    from train.dotted import find_class

    made = find_class(path, torch.optim.lr_scheduler.LRScheduler, "schedule.name")
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    rates = []
    try:
        scheduler = made(optimizer, **json.loads(options))
        for _ in range(steps):
            rates.append(float(optimizer.param_groups[0]["lr"]))
            optimizer.step()
            scheduler.step()
    except Exception as error:  # whatever a class from elsewhere raises
        raise Refused(f"schedule.name={path} does not work with these options: {type(error).__name__}: {error}") from error
    bad = next((number for number, rate in enumerate(rates) if not (math.isfinite(rate) and rate >= 0)), None)
    if bad is not None:
        raise Refused(f"schedule.name={path} gives a learning rate of {rates[bad]:g} at step {bad + 1} after warmup. It must be 0 or more.")
    return rates
