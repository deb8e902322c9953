"""The pairs that a run learns from: the preferred image of each is a sample, with the other one as its `rejected`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from registry.errors import Faults, Refused
from registry.home import expanded
from registry.printable import counted
from registry.progress import Report
from train.config import TrainConfig
from train.data.captions import check_caption
from train.data.dataset import ImageSet, Sample, read_images
from train.data.items import Item
from train.preference.ballots import Pair, Tally, at_most, pairs_of
from train.preference.sources import read_ballots
from train.settings.preferences import places
from train.settings.sets import Subset


@dataclass(frozen=True)
class PreferenceSet(ImageSet):
    """The preferred images of pairs, and how votes became them."""

    tally: Tally = field(default_factory=Tally)


def preference_set(config: TrainConfig, report: Report) -> PreferenceSet:
    """The pairs of data.preferences. Raises Refused or Faults with everything that is wrong with them."""
    return read_pairs(places(config.data.preferences), setting="data.preferences", report=report)


def read_pairs(given: Sequence[str], *, setting: str, report: Report) -> PreferenceSet:
    """The pairs of these grids and data sets, the images decoded. Raises Refused or Faults."""
    ballots = read_ballots(given, setting=setting, report=report)
    pairs, tally = pairs_of(ballots)
    if not pairs:
        raise Refused(
            f"{setting}: none of {counted(tally.votes, 'vote')} prefers one of two images of a prompt (left out: {tally.left_out()})."
        )
    wanted = dict.fromkeys(digest for pair in pairs for digest in (pair.preferred, pair.rejected))
    read = read_images([(*ballots.images[digest], ()) for digest in wanted], Subset(path=setting))
    samples = {sample.sha256: sample for sample in read.samples}
    faults = [*at_most(read.faults), *at_most([fault for pair in pairs for fault in _faults(pair, samples)])]
    if faults:
        raise Faults(f"{setting}: these votes cannot be learned from:", faults)
    where = " + ".join(_short(one) for one in given)
    return PreferenceSet(where, tuple(_sample(pair, samples) for pair in pairs), tuple(read.notes), (), tally)


def _sample(pair: Pair, samples: Mapping[str, Sample]) -> Sample:
    own, other = (replace(samples[digest], caption=pair.prompt) for digest in (pair.preferred, pair.rejected))
    return replace(own, name=f"{own.name} over {other.name}", rejected=other)


def _faults(pair: Pair, samples: Mapping[str, Sample]) -> Iterable[str]:
    """What is wrong with a pair whose images were read."""
    if fault := check_caption(pair.prompt):
        yield f"{pair.prompt[:40]!r}: {fault}"
    if pair.preferred not in samples or pair.rejected not in samples:
        return
    own, other = samples[pair.preferred], samples[pair.rejected]
    sizes = [f"{one.size.width}x{one.size.height}" for one in (own, other)]
    if sizes[0] != sizes[1]:
        yield (
            f"{own.name} is {sizes[0]} and {other.name} {sizes[1]}: both get the same noise, so that they need one size; a crop would show"
            " another image than was voted on"
        )


def rejected_items(items: Sequence[Item]) -> list[Item]:
    """The other images of pairs, each at the size and with the crops of the preferred one."""
    return [replace(item, sample=_other(item.sample)) for item in items]


def _other(sample: Sample) -> Sample:
    assert sample.rejected is not None
    return sample.rejected


def _short(given: str) -> str:
    path: Path = expanded(given).absolute()
    return f"{path.parent.name}/{path.name}" if path.is_dir() else path.name
