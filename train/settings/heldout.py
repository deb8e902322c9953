"""Settings of the held-out images."""

from collections.abc import Iterator
from dataclasses import dataclass

from registry.settings import setting
from train.settings.rules import LARGEST, Rule, optional_counts, texts


@dataclass(kw_only=True)
class HeldoutConfig:
    path: str | None = setting(None, "folder of held-out images with captions, never trained on (default: heldout/ in data.path)")
    share: float = setting(0.0, "share of data.path split off for validation, by content, when there is no such folder")
    folds: int | None = setting(
        None, "parts into which data.path is divided by content, one of them held out (k-fold cross-validation), for sets of a few images"
    )
    fold: int = setting(0, "which part is held out, from 0; a sweep over all of them measures every image: heldout.fold=0,1,2")
    every: int | None = setting(None, "steps between held-out measurements (default: a tenth of the steps)")

    patience: int | None = setting(
        None, "held-out measurements in a row without a better one after which the run stops early (early stopping; default: never)"
    )
    min_steps: int = setting(0, "steps before which the run does not stop early")
    stop_when_worse: bool = setting(
        False, "stop at the first measurement at which held-out and training images are worse than with the base: the rate is too high"
    )

    generic: list[str] | None = setting(
        None,
        "generic captions, on images that the base draws of them once: their loss shows drift (default: four where previews are drawn);"
        " [] for none",
        prose=True,
    )

    def rules(self) -> Iterator[Rule]:
        """Ranges, without what needs the disk."""
        yield from optional_counts(self, "every", "patience")
        early = self.patience is not None or self.stop_when_worse
        yield "min_steps", self.min_steps, 0 <= self.min_steps < LARGEST, "must be in 0 .. 2^31 - 1"
        good = self.min_steps == 0 or early
        yield "min_steps", self.min_steps, good, "acts on nothing without heldout.patience or heldout.stop_when_worse"
        yield "share", self.share, 0 <= self.share < 1, "is a share of the images and must be in [0, 1)"
        folds, fold = self.folds, self.fold
        yield "folds", folds, folds is None or folds >= 2, "must be at least 2, or null for none"
        good = 0 <= fold < (folds or 1)
        yield "fold", fold, good, f"must be in 0 .. {folds - 1}" if folds else "must be 0 without heldout.folds"
        good = folds is None or (self.share == 0 and self.path is None)
        yield "folds", folds, good, "must be null where heldout.share or heldout.path is given: one of them chooses the images"
        good = self.generic is None or all(text.strip() for text in self.generic)
        yield "generic", self.generic, good, "must be texts that are not empty"
        yield from texts(self, "path")
