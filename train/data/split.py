"""The training and held-out images: chosen before models are loaded, and no image is in both."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from registry.errors import Faults, Refused
from registry.progress import Report
from train.config import TrainConfig
from train.data.dataset import ImageSet, Sample, read_set
from train.data.images import SUFFIXES
from train.loop.validation import split


def read_dataset(config: TrainConfig, report: Report) -> ImageSet:
    """The set at data.path, every image decoded. Raises Refused, or Faults with all that is wrong with it."""
    if config.data.path is None:
        raise Refused("data.path is needed: a folder of images with captions (NAME.png + NAME.txt), or what datasets.load_dataset opens.")
    return read_set(config.data, report=report)


@dataclass(frozen=True)
class TrainSplit:
    """Training images, held-out images, and the source of the latter in words."""

    train: tuple[Sample, ...]
    heldout: tuple[Sample, ...]
    source: str
    notes: tuple[str, ...] = ()


def choose_split(config: TrainConfig, dataset: ImageSet, report: Report) -> TrainSplit:
    """heldout.path, else the set's own heldout/, else a share split off, else nothing."""
    beside = Path(dataset.path).expanduser() / "heldout"
    given = config.heldout.path
    if given is None and beside.is_dir() and any(file.suffix.lower() in SUFFIXES for file in beside.iterdir()):
        given = str(beside)
    if given is not None:
        held = read_set(config.data, path=given, report=report)
        share = " (heldout.share is not used)" if config.heldout.share else ""
        return TrainSplit(dataset.samples, held.samples, f"{len(held.samples)} images of {given}{share}", held.notes)
    if config.heldout.share:
        if len({sample.sha256 for sample in dataset.samples}) < 2:
            raise Refused("heldout.share needs at least two different images. Set it to 0, or give heldout.path.")
        train, held_out = split(dataset.samples, config.heldout.share)
        return TrainSplit(
            tuple(train),
            tuple(held_out),
            f"{len(held_out)} of {len(dataset.samples)} images, split off by content (heldout.share={config.heldout.share:g})",
        )
    why = (
        "none: the set has no heldout/, and neither heldout.path nor heldout.share is given. `best` cannot be chosen, the last step counts"
    )
    return TrainSplit(dataset.samples, (), why)


def check_leaks(split: TrainSplit) -> None:
    """Raise Faults for held-out images that are trained on."""
    trained = {sample.sha256: sample.name for sample in split.train}
    leaks = [f"{sample.name} is the training image {trained[sample.sha256]}" for sample in split.heldout if sample.sha256 in trained]
    if leaks:
        raise Faults("Held-out images are trained on, so their loss would be meaningless. Remove them from one of the two:", leaks)
