"""Settings of the moving average of the adapter's weights."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite

from registry.settings import setting
from train.settings.rules import Rule


@dataclass(kw_only=True)
class EmaConfig:
    decay: float | None = setting(
        None,
        "decay of an exponential moving average (EMA) of the LoRA's weights, which then is what is measured, drawn and saved; 0.99 averages"
        " over some 100 steps (default: none)",
    )
    power: float | None = setting(
        None, "warm-up of the decay: 1 - (1 + step)^-power, 2/3 or 3/4 are usual (default: (1 + step) / (10 + step)); at most ema.decay"
    )

    def rules(self) -> Iterator[Rule]:
        """Ranges."""
        decay, power = self.decay, self.power
        yield "decay", decay, decay is None or 0 < decay < 1, "must be above 0 and below 1 (0.99 suits 1,000 steps), or null for none"
        good = power is None or (isfinite(power) and power > 0)
        yield "power", power, good, "must be above 0, or null for (1 + step) / (10 + step)"
        yield "power", power, power is None or decay is not None, "needs ema.decay: there is no average without it"
