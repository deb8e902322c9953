"""Settings of the previews: sample images drawn while training."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite

from registry.settings import setting
from train.settings.rules import Rule, optional_counts


@dataclass(kw_only=True)
class PreviewConfig:
    prompts: list[str] | None = setting(
        None, "prompts of the sample images (default: the first held-out captions, else training captions); [] draws none", prose=True
    )
    every: int | None = setting(None, "steps between previews (default: with each checkpoint)")
    seed: int = setting(0, "seed of the first prompt's image; each further prompt has the next seed")
    steps: int | None = setting(None, "sampling steps (default: 20, or the family's default if lower)")
    guidance: float | None = setting(None, "guidance (default: the family's)")
    vae_tiling: int | None = setting(
        None,
        "side in pixels of the tiles that images are decoded in (512 is usual): less memory, pixels differ a little (default: at once)",
    )

    def rules(self) -> Iterator[Rule]:
        """Ranges."""
        yield from optional_counts(self, "every", "steps", "vae_tiling")
        yield "seed", self.seed, 0 <= self.seed < 2**63, "must be in 0 .. 2^63 - 1"
        good = self.guidance is None or (isfinite(self.guidance) and self.guidance >= 0)
        yield "guidance", self.guidance, good, "must be 0 or more, or null for the family's"
