"""Settings of the held-out images."""

from collections.abc import Iterator
from dataclasses import dataclass

from registry.settings import setting
from train.settings.rules import Rule, optional_counts, texts


@dataclass(kw_only=True)
class HeldoutConfig:
    path: str | None = setting(None, "folder of held-out images with captions, never trained on (default: heldout/ in data.path)")
    share: float = setting(0.0, "share of data.path split off for validation, by content, when there is no such folder")
    every: int | None = setting(None, "steps between held-out measurements (default: a tenth of the steps)")

    def rules(self) -> Iterator[Rule]:
        """Ranges, without what needs the disk."""
        yield from optional_counts(self, "every")
        yield "share", self.share, 0 <= self.share < 1, "is a share of the images and must be in [0, 1)"
        yield from texts(self, "path")
