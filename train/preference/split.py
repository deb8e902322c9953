"""Held-out pairs: whole prompts, so that no prompt and no image is both trained on and measured."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from registry.errors import Faults, Refused
from registry.printable import counted, some
from registry.progress import Report
from train.config import TrainConfig
from train.data.dataset import ImageSet, Sample
from train.data.split import TrainSplit
from train.loop.rng import seed_of
from train.preference.dataset import read_pairs

NONE = (
    "none: neither heldout.share, heldout.folds nor heldout.path is given, so that nobody can say what was learned. `best` cannot be"
    " chosen, the last step counts"
)


def preference_split(config: TrainConfig, pairs: ImageSet, report: Report) -> TrainSplit:
    """heldout.path (other votes), a share or a fold of the prompts, or nothing. Raises Refused or Faults."""
    heldout, samples = config.heldout, list(pairs.samples)
    if heldout.path is not None:
        other = read_pairs([heldout.path], setting="heldout.path", report=report)
        _check_apart(samples, other.samples)
        source = f"{counted(len(other.samples), 'pair')} on {counted(len(_prompts(other.samples)), 'prompt')} of {other.path}"
        return TrainSplit(pairs.samples, other.samples, source, (*other.notes, other.tally.sentence()))
    if not heldout.folds and not heldout.share:
        return TrainSplit(pairs.samples, (), NONE)
    groups = groups_of(samples)
    needed = heldout.folds or 2
    if len(groups) < needed:
        raise Refused(
            f"{'heldout.folds' if heldout.folds else 'heldout.share'} holds out whole prompts, and the votes are on"
            f" {counted(len(groups), 'prompt')} without a common image; {needed} are needed. Vote on more prompts, or give heldout.path."
        )
    if heldout.folds:
        out, how = _fold(groups, heldout.folds, heldout.fold), f"part {heldout.fold} of {heldout.folds} (heldout.folds, heldout.fold)"
    else:
        out, how = _share(groups, heldout.share * len(samples)), f"heldout.share={heldout.share:g}"
    held = tuple(sample for place, sample in enumerate(samples) if place in out)
    trained = tuple(sample for place, sample in enumerate(samples) if place not in out)
    source = f"{len(held)} of {counted(len(samples), 'pair')}, on {counted(len(_prompts(held)), 'prompt')} that are not trained on ({how})"
    return TrainSplit(trained, held, source)


def groups_of(samples: Sequence[Sample]) -> list[list[int]]:
    """The places of the pairs of one prompt, or with a common image, together; the groups in an order by content."""
    root = list(range(len(samples)))

    def find(place: int) -> int:
        while root[place] != place:
            root[place] = place = root[root[place]]
        return place

    first: dict[str, int] = {}
    for place, sample in enumerate(samples):
        for key in keys_of(sample):
            root[find(place)] = find(first.setdefault(key, place))
    groups: dict[int, list[int]] = defaultdict(list)
    for place in range(len(samples)):
        groups[find(place)].append(place)
    return sorted(groups.values(), key=lambda group: min(seed_of("heldout prompt", _prompt(samples[place])) for place in group))


def keys_of(sample: Sample) -> list[str]:
    """What must not be on both sides: the prompt, and both images."""
    assert sample.rejected is not None
    return [f"prompt {_prompt(sample)}", sample.sha256, sample.rejected.sha256]


def _prompt(sample: Sample) -> str:
    return " ".join(str(sample.caption).casefold().split())


def _prompts(samples: Sequence[Sample]) -> set[str]:
    return {_prompt(sample) for sample in samples}


def _share(groups: Sequence[list[int]], wanted: float) -> set[int]:
    """Groups in their order until there are about so many pairs: at least one group, and one is left."""
    out: set[int] = set(groups[0])
    for group in groups[1:-1]:
        if len(out) + len(group) / 2 > wanted:
            break
        out |= set(group)
    return out


def _fold(groups: Sequence[list[int]], folds: int, fold: int) -> set[int]:
    parts: list[list[int]] = [[] for _ in range(folds)]
    for group in groups:
        min(parts, key=len).extend(group)
    return set(parts[fold])


def _check_apart(trained: Sequence[Sample], held: Sequence[Sample]) -> None:
    """Raise Faults for held-out pairs with a prompt or an image that is trained on."""
    known = {key for sample in trained for key in keys_of(sample)}
    prompts = sorted({str(sample.caption) for sample in held if f"prompt {_prompt(sample)}" in known})
    images = [sample.name for sample in held if known & set(keys_of(sample)[1:])]
    faults = [f"{counted(len(prompts), 'prompt')} of heldout.path: {some(map(repr, prompts), 4)}"] if prompts else []
    faults += [f"images of {counted(len(images), 'pair')} of heldout.path: {some(images, 4)}"] if images else []
    if faults:
        raise Faults(
            "What is held out is in data.preferences too, so that its measures would be meaningless. Give votes on others:", faults
        )
