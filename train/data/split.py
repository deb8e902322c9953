"""The training and held-out images: chosen before models are loaded, and no image is in both."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from registry.errors import Faults, Refused
from registry.printable import counted
from registry.progress import Report
from train.data.dataset import ImageSet, Sample, read_set
from train.data.duplicates.near_duplicates import near_duplicates
from train.data.subsets import heldout_sets
from train.loop.rng import seed_of

if TYPE_CHECKING:
    from train.config import TrainConfig


def read_dataset(config: TrainConfig, report: Report) -> ImageSet:
    """The set at data.path or of data.sets, every image decoded. Raises Refused, or Faults with all that is wrong with it."""
    if config.data.path is None and config.data.sets is None:
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
    """heldout.path, else the heldout/ of the set and of each of its sets, else a share split off, else nothing."""
    given = config.heldout.path
    sets = heldout_sets(dataset.path, dataset.sets) if given is None else None
    if config.heldout.folds and (given is not None or sets):
        where = given or " + ".join(subset.path for subset in sets or ())
        raise Refused(f"heldout.folds={config.heldout.folds}: {where} holds the held-out images. Leave heldout.folds out, or move them.")
    if given is not None or sets:
        held = read_set(config.data, path=given, sets=sets, report=report)
        share = " (heldout.share is not used)" if config.heldout.share else ""
        source = f"{counted(len(held.samples), 'image')} of {held.path}{share}"
        return TrainSplit(dataset.samples, held.samples, source, (*held.notes, *near_leaks(dataset.samples, held.samples)))
    if config.heldout.folds:
        own = [sample for sample in dataset.samples if not sample.prior]
        train, held_out = fold_by_content(own, config.heldout.folds, config.heldout.fold)
        train += [sample for sample in dataset.samples if sample.prior]
        part = f"part {config.heldout.fold} of {config.heldout.folds} by content (heldout.folds, heldout.fold)"
        return TrainSplit(tuple(train), tuple(held_out), f"{len(held_out)} of {counted(len(own), 'image')}, {part}")
    if config.heldout.share:
        own = [sample for sample in dataset.samples if not sample.prior]
        train, held_out = split_by_content(own, config.heldout.share)
        train += [sample for sample in dataset.samples if sample.prior]
        source = f"{len(held_out)} of {counted(len(own), 'image')}, split off by content (heldout.share={config.heldout.share:g})"
        wanted = round(config.heldout.share * len(own))
        if len(held_out) != wanted:
            source += f"; not {wanted}, so that both sides have one and near duplicates lie on one side"
        return TrainSplit(tuple(train), tuple(held_out), source)
    why = (
        "none: the set has no heldout/, and neither heldout.path nor heldout.share is given. `best` cannot be chosen, the last step counts"
    )
    return TrainSplit(dataset.samples, (), why)


def split_by_content(samples: Sequence[Sample], share: float) -> tuple[list[Sample], list[Sample]]:
    """(trained, held out): round(share x n) images are held out, at least one of each side, near duplicates on one side.

    Images are ranked by a hash of their content: which are held out depends on no name or order, and few of them change when
    images are added. Raises Refused where all images are one.
    """
    groups = _groups(samples)
    if len(groups) < 2:
        raise Refused(
            "heldout.share needs at least two different images, and near duplicates count as one. Set it to 0, or give heldout.path."
        )
    ranked = sorted(groups, key=lambda group: min(seed_of("heldout", samples[place].sha256) for place in group))
    wanted = min(max(1, round(share * len(samples))), len(samples) - 1)
    out: set[int] = set()
    for group in ranked:
        if len(out) + len(group) <= wanted:
            out |= set(group)
    smallest = min(ranked, key=len)
    out = out or set(smallest)  # every group is larger than what is wanted
    return [s for place, s in enumerate(samples) if place not in out], [s for place, s in enumerate(samples) if place in out]


def fold_by_content(samples: Sequence[Sample], folds: int, fold: int) -> tuple[list[Sample], list[Sample]]:
    """(trained, held out): part `fold` of `folds` of about equal size, near duplicates in one part, whatever names and order.

    Raises Refused for more parts than different images.
    """
    groups = _groups(samples)
    if len(groups) < folds:
        different = f"{'is' if len(groups) == 1 else 'are'} {counted(len(groups), 'different image')}"
        raise Refused(f"heldout.folds={folds}: there {different}, near duplicates counted as one.")
    parts: list[list[int]] = [[] for _ in range(folds)]
    for group in sorted(groups, key=lambda group: min(seed_of("heldout", samples[place].sha256) for place in group)):
        min(parts, key=len).extend(group)
    out = set(parts[fold])
    return [s for place, s in enumerate(samples) if place not in out], [s for place, s in enumerate(samples) if place in out]


def _groups(samples: Sequence[Sample]) -> list[list[int]]:
    """The places of the samples, those of one image together."""
    together = {place: places for places in near_duplicates(samples) for place in places}
    by_content: dict[str, list[int]] = defaultdict(list)
    for place in range(len(samples)):
        first = together.get(place, [place])[0]
        by_content[samples[first].sha256].append(place)
    return list(by_content.values())


def near_leaks(trained: Sequence[Sample], heldout: Sequence[Sample]) -> list[str]:
    """Notes of held-out images that are nearly a training image: their loss is lower than that of new images."""
    both = [*trained, *heldout]
    notes = []
    for places in near_duplicates(both):
        inside, outside = [both[p] for p in places if p < len(trained)], [both[p] for p in places if p >= len(trained)]
        if inside and {sample.sha256 for sample in outside} - {sample.sha256 for sample in inside}:
            held, known = ", ".join(sample.name for sample in outside), ", ".join(sample.name for sample in inside)
            notes.append(f"{held}: nearly the training image {known}, in another format, quality or size; its loss shows no new image's")
    return notes


def leaks(trained: Iterable[Sample], heldout: Iterable[Sample]) -> list[str]:
    """Faults of held-out images that are trained on."""
    names = {sample.sha256: sample.name for sample in trained}
    return [f"{sample.name} is the training image {names[sample.sha256]}" for sample in heldout if sample.sha256 in names]


def check_leaks(split: TrainSplit) -> None:
    """Raise Faults for held-out images that are trained on."""
    if found := leaks(split.train, split.heldout):
        raise Faults("Held-out images are trained on, so their loss would be meaningless. Remove them from one of the two:", found)
