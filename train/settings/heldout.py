"""Settings of the held-out images."""

from collections.abc import Iterator
from dataclasses import dataclass

from registry.settings import setting
from train.settings.rules import Rule, optional_counts, texts


@dataclass(kw_only=True)
class HeldoutConfig:
    path: str | None = setting(None, "folder of held-out images with captions, never trained on (default: heldout/ in data.path)")
    share: float = setting(0.0, "share of data.path split off for validation, by content, when there is no such folder")
    folds: int | None = setting(
        None, "parts into which data.path is divided by content, one of them held out (k-fold cross-validation), for sets of a few images"
    )
    fold: int = setting(0, "which part is held out, from 0; a sweep over all of them measures every image: heldout.fold=0,1,2")
    every: int | None = setting(None, "steps between held-out measurements (default: a tenth of the steps)")

    def rules(self) -> Iterator[Rule]:
        """Ranges, without what needs the disk."""
        yield from optional_counts(self, "every")
        yield "share", self.share, 0 <= self.share < 1, "is a share of the images and must be in [0, 1)"
        folds, fold = self.folds, self.fold
        yield "folds", folds, folds is None or folds >= 2, "must be at least 2, or null for none"
        good = 0 <= fold < (folds or 1)
        yield "fold", fold, good, f"must be in 0 .. {folds - 1}" if folds else "must be 0 without heldout.folds"
        good = folds is None or (self.share == 0 and self.path is None)
        yield "folds", folds, good, "must be null where heldout.share or heldout.path is given: one of them chooses the images"
        yield from texts(self, "path")
