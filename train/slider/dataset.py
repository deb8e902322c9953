"""The set of a slider: none where the model draws, pairs of images in positive/ and negative/, or any set whose latents are noised."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from registry.errors import Faults, Refused
from registry.formats.image_file import Size
from registry.home import expanded
from registry.printable import counted, some
from registry.progress import Report
from train.config import TrainConfig
from train.data.dataset import ImageSet, Sample, read_set
from train.data.split import TrainSplit, read_dataset
from train.objective.slider import Slider

DRAWN = "drawn by the base"
ENDS = ("positive", "negative")
SIDE = 2**16  # pixels a side of what is drawn: as large as any resolution
WHY = "none: a slider has no held-out loss; what it reaches is measured along its own direction at the end"


def slider_dataset(config: TrainConfig, slider: Slider, report: Report) -> ImageSet:
    """The images of a slider. Raises Refused or Faults."""
    faults = [f"{name} has no meaning for a slider: it has no held-out loss. Leave it out." for name in _heldout(config)]
    if config.lora.text_encoder:
        faults.append("lora.text_encoder=true: a slider is learned between fixed prompts. Leave it out.")
    if config.objective.preserve_class is not None:
        faults.append("objective.preserve_class is for images of a subject; a slider has objective.params.preserve. Leave it out.")
    if config.data.prior is not None or config.data.prior_images is not None:
        faults.append(
            "data.prior and data.prior_images go with images of a subject; a slider has objective.params.preserve. Leave both out."
        )
    if config.lora.kind != "lora" or config.lora.params.init == "pissa":
        faults.append(
            f"lora.kind={config.lora.kind} cannot be a slider: its two ends are the adapter at weight 1 and -1, and only of a LoRA that "
            "begins at zero is one the exact opposite of the other. Use lora.kind=lora."
        )
    if faults:
        raise Faults("A slider cannot be trained with these settings:", faults)
    if not slider.by_text:
        return _pairs(config, report)
    return drawn_set(slider) if config.data.path is None else read_dataset(config, report)


def slider_split(dataset: ImageSet) -> TrainSplit:
    """Everything is trained on."""
    return TrainSplit(dataset.samples, (), WHY)


def is_drawn(dataset: ImageSet) -> bool:
    """Whether there are no images: the model draws what it learns from."""
    return dataset.path == DRAWN


def drawn_set(slider: Slider) -> ImageSet:
    """One sample in place of images, which stands for all that is drawn; its caption is the slider's target."""

    def nothing() -> bytes:
        raise AssertionError("what is drawn has no file")

    digest = hashlib.sha256("\n".join(slider.prompts).encode()).hexdigest()
    return ImageSet(DRAWN, (Sample(DRAWN, digest, Size(SIDE, SIDE), slider.target, nothing),))


def _heldout(config: TrainConfig) -> list[str]:
    given = {"heldout.path": config.heldout.path is not None, "heldout.share": config.heldout.share != 0.0}
    return [name for name, is_given in given.items() if is_given]


def _pairs(config: TrainConfig, report: Report) -> ImageSet:
    """positive/ and negative/ of data.path: first all positive images, then each one's negative, in the same order."""
    if config.data.path is None:
        raise Refused(
            "objective.name=slider needs objective.params.positive or negative, two prompts, or data.path: a folder with positive/ and"
            " negative/, whose images of equal names are pairs."
        )
    place = expanded(config.data.path)
    missing = [name for name in ENDS if not (place / name).is_dir()]
    if missing:
        raise Refused(
            f"data.path={config.data.path} has no {' and no '.join(f'{name}/' for name in missing)}: a slider without prompts learns from"
            " pairs, images of equal names in positive/ and negative/. Give both folders, or objective.params.positive and negative."
        )
    sets = [read_set(config.data, path=str(place / name), report=report) for name in ENDS]
    by_name = [{Path(sample.name).with_suffix("").as_posix(): sample for sample in found.samples} for found in sets]
    faults = _pair_faults(by_name[0], by_name[1])
    if faults:
        raise Faults(f"{config.data.path} does not hold pairs:", faults)
    samples = [_of(end, found[name]) for end, found in zip(ENDS, by_name, strict=True) for name in by_name[0]]
    notes = [f"{end}: {note}" for end, found in zip(ENDS, sets, strict=True) for note in found.notes]
    other = [name for name in by_name[0] if by_name[0][name].caption != by_name[1][name].caption]
    if other:
        notes.append(
            f"{counted(len(other), 'pair has', 'pairs have')} two captions; both images are learned with the positive one's: {some(other)}"
        )
    return ImageSet(str(config.data.path), tuple(samples), tuple(notes))


def _of(end: str, sample: Sample) -> Sample:
    return replace(sample, name=f"{end}/{sample.name}")


def _pair_faults(positive: dict[str, Sample], negative: dict[str, Sample]) -> Sequence[str]:
    faults = [f"{name} of positive/ has no image of that name in negative/" for name in positive.keys() - negative.keys()]
    faults += [f"{name} of negative/ has no image of that name in positive/" for name in negative.keys() - positive.keys()]
    for name in positive.keys() & negative.keys():
        one, other = positive[name].size, negative[name].size
        if (one.width, one.height) != (other.width, other.height):
            faults.append(f"{name} is {one.width}x{one.height} in positive/ and {other.width}x{other.height} in negative/")
    return sorted(faults)


def slider_seconds(slider: Slider | None, seconds: Mapping[str, float] | None, *, drawn: bool) -> Mapping[str, float] | None:
    """The seconds of a run with those of a slider's steps: two passes and three predictions of the base in place of one pass, and drawing.

    A prediction is taken as a third of a pass; half of the drawing's steps are done on average, each with its unconditional row.
    """
    if slider is None or seconds is None:
        return seconds
    predictions = (3 if slider.by_text else 0) + (slider.draw_steps or STEPS if drawn else 0)
    return {**seconds, "steps": seconds["steps"] * (2 + predictions / 3), "previews": seconds["previews"] * 3}


STEPS = 20  # of a drawing, where the slider leaves it to the base
