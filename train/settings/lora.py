"""Settings of the adapter."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite
from typing import Any

from registry.settings import setting
from train.settings.rules import Rule, counts


@dataclass(kw_only=True)
class LoraConfig:
    rank: int = setting(16, "LoRA rank (dim)")
    alpha: float | None = setting(None, "LoRA alpha: the product is scaled by alpha / rank (default: rank)")
    targets: Any = setting(
        "attention",
        "a preset (attention, attention_mlp, convolutions), a list of module names, or a regular expression in slashes: /.*attn2.*/",
    )
    text_encoder: bool = setting(
        False, "train the attention of the CLIP text encoders too: they stay in memory and encode the prompts in every step"
    )

    def rules(self) -> Iterator[Rule]:
        """Ranges, without what needs the base."""
        yield from counts(self, "rank")
        alpha, targets = self.alpha, self.targets
        good = alpha is None or (isfinite(alpha) and alpha > 0)
        yield "alpha", alpha, good, "must be above 0 (0 learns nothing), or null for the rank"
        good = (isinstance(targets, str) and bool(targets)) or (
            isinstance(targets, (list, tuple)) and len(targets) > 0 and all(isinstance(t, str) and t for t in targets)
        )
        yield "targets", targets, good, "must be a preset, a list of module names, or a /regular expression/"
