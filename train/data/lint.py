"""The report of `loraloom data lint`: the faults and notes of a set and of its heldout/, sizes, and captions in numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from registry.printable import as_lines
from registry.progress import Report, silent
from train.config import DataConfig
from train.data.captions import has_trigger
from train.data.dataset import Sample, inspect_set
from train.data.images import holds_images
from train.data.split import near_leaks


@dataclass(frozen=True)
class Lint:
    """Everything that was found. With faults, training refuses the set."""

    path: str
    samples: tuple[Sample, ...]
    heldout: tuple[Sample, ...]
    faults: tuple[str, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values, stable keys."""
        return {
            "path": self.path,
            "pictures": len(self.samples),
            "heldout": len(self.heldout),
            "captions": sum(sample.caption is not None for sample in self.samples),
            "faults": list(self.faults),
            "notes": list(self.notes),
        }

    def to_text(self) -> str:
        """For a person."""
        captions = sum(sample.caption is not None for sample in self.samples)
        lines = [f"{self.path}: {len(self.samples)} images, {captions} captions, {len(self.heldout)} held out"]
        lines += [f"{len(self.faults)} faults; training refuses the set:" if self.faults else "no faults; training accepts the set"]
        lines += [f"  - {fault}" for fault in self.faults]
        lines += ["notes:", *(f"  - {note}" for note in self.notes)] if self.notes else []
        return as_lines(lines)


def lint(config: DataConfig, *, resolution: int | None = None, report: Report = silent) -> Lint:
    """Check the set at config.path, and its heldout/ if there is one."""
    path = str(config.path)
    found = inspect_set(config, path=path, report=report)
    faults, notes = list(found.faults), list(found.notes)
    heldout: list[Sample] = []
    beside = Path(path).expanduser() / "heldout"
    if holds_images(beside):
        inner = inspect_set(config, path=str(beside), report=report)
        heldout = inner.samples
        faults += [f"heldout/: {fault}" for fault in inner.faults]
        notes += [f"heldout/: {note}" for note in (*inner.notes, *near_leaks(found.samples, heldout))]
        trained = {sample.sha256: sample.name for sample in found.samples}
        faults += [f"heldout/{s.name} is the training image {trained[s.sha256]}" for s in heldout if s.sha256 in trained]
    notes += _remarks(found.samples, config, resolution)
    return Lint(path, tuple(found.samples), tuple(heldout), tuple(faults), tuple(notes))


def _remarks(samples: Sequence[Sample], config: DataConfig, resolution: int | None) -> list[str]:
    if not samples:
        return []
    short = sorted(sample.size.short for sample in samples)
    remarks = [f"short sides are {short[0]} to {short[-1]} pixels; the centre crop takes {_cropped(samples):.1%} of the area on average"]
    small = [f"{s.name} ({s.size.width}x{s.size.height})" for s in samples if resolution and s.size.short < resolution]
    remarks += [f"enlarged at {resolution} pixels: {', '.join(small)}"] if small else []
    captions = [" ".join((sample.caption or "").split()) for sample in samples if sample.caption]
    often = [f"{caption!r} ({count} times)" for caption, count in Counter(captions).most_common(5) if count > 1]
    remarks += [f"captions used more than once: {', '.join(often)}"] if often else []
    if config.trigger and captions:
        remarks.append(f"{sum(has_trigger(c, config.trigger) for c in captions)} of {len(captions)} captions contain the trigger")
    return remarks


def _cropped(samples: Sequence[Sample]) -> float:
    return sum(sample.size.cropped for sample in samples) / len(samples)
