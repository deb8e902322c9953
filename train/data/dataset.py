"""Image-caption sets read whole and checked before anything is trained: every fault is found, with its file's name.

A folder is read as train/data/folder.py describes; anything else is opened by `datasets.load_dataset`.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from registry.errors import Faults
from registry.formats.image_file import Decoded, Size, Unreadable
from registry.home import expanded
from registry.printable import counted, some
from registry.progress import Report, Tick, silent
from train.data.captions import check_caption
from train.data.duplicates.near_duplicates import near_duplicates
from train.data.duplicates.small_copies import SmallCopies
from train.data.folder import EXPECTED, read_folder
from train.data.overview import Overview
from train.data.seen import SEEN, decoded, see
from train.data.subsets import KOHYA, PRIOR, Subsets, place_of, subsets_of, with_prior
from train.data.texts.wildcards import wildcard_fault
from train.data.wording import MOST
from train.masks.attach import Owner, read_masks
from train.masks.files import check_source
from train.masks.mask import Mask
from train.settings.data import DataConfig
from train.settings.sets import Subset

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, slots=True)
class Sample:
    """One image and its caption as the set gives it (None: the set has no captions). `read` gives the file's bytes.

    A prior sample is a regularisation image: what the base is to keep. `trigger` is its subset's own, None: data.trigger counts.
    """

    name: str
    sha256: str
    size: Size
    caption: str | None
    read: Callable[[], bytes] = field(repr=False, compare=False)
    copies: SmallCopies | None = field(default=None, repr=False, compare=False)  # of the images that it was read with
    place: int = field(default=0, repr=False, compare=False)  # its own among them
    others: tuple[str, ...] = ()  # further captions of the image
    set: str = ""  # its subset's name, where there are several
    repeats: int = 1  # how often an epoch has it
    weight: float = 1.0  # of its loss
    trigger: str | None = None
    prior: bool = False
    mask: Mask | None = None  # what of the image its loss counts
    rejected: Sample | None = None  # of a pair that was voted on the other image, where this is the preferred one

    @property
    def small(self) -> bytes:
        """A small copy, by which near duplicates are found; empty where none was made."""
        return b"" if self.copies is None else self.copies[self.place]

    @property
    def captions(self) -> tuple[str, ...]:
        """Every caption of the image, `caption` first."""
        return () if self.caption is None else (self.caption, *self.others)

    @property
    def identity(self) -> str:
        """What of it training depends on, whatever its name: its bytes, its captions, and what its subset sets."""
        own = {"repeats": self.repeats, "weight": self.weight, "trigger": self.trigger, "prior": self.prior}
        usual = {"repeats": 1, "weight": 1.0, "trigger": None, "prior": False}
        parts = [self.caption or "", *self.others, *(f"{key}={value}" for key, value in own.items() if value != usual[key])]
        parts += [] if self.mask is None else [f"mask={self.mask.identity}"]
        parts += [] if self.rejected is None else [f"over={self.rejected.sha256}"]
        return ", ".join([self.sha256, *parts])


@dataclass(frozen=True, slots=True)
class FileBytes:
    """Gives the bytes of a file, by the front of its path, which all files of a folder share, and its name."""

    front: str
    name: str

    def __call__(self) -> bytes:
        with open(self.front + self.name, "rb", buffering=0) as file:
            return file.read()


def trigger_of(sample: Sample, config: DataConfig) -> str | None:
    """The trigger of an image: its subset's own, else data.trigger. Regularisation images have none but their own."""
    return sample.trigger if sample.trigger is not None or sample.prior else config.trigger


def triggers_of(samples: Iterable[Sample], config: DataConfig) -> list[str]:
    """The triggers of the images, each once."""
    return [found for found in dict.fromkeys(trigger_of(sample, config) for sample in samples) if found]


class Measures(Protocol):
    """What is measured of a set's images while their pixels are there, of one or of several together."""

    def add(self, image: Image, view: Overview, copies: SmallCopies) -> None:
        """The next image. Its small copy is appended to `copies` once it is measured."""

    def finish(self) -> None:
        """Measure the images that wait."""


@dataclass(frozen=True)
class ImageSet:
    """A set that training accepts. `notes` are findings that do not stop training; `sets` are the sets that it is made of."""

    path: str
    samples: tuple[Sample, ...]
    notes: tuple[str, ...] = ()
    sets: tuple[Subset, ...] = ()

    @property
    def sha256(self) -> str:
        """Of the sorted 'image sha256, caption' lines: the set's identity, whatever the names."""
        lines = sorted(f"{sample.identity}\n" for sample in self.samples)
        return hashlib.sha256("".join(lines).encode()).hexdigest()


@dataclass
class Findings:
    """What reading a set found: images with captions, faults that stop training, notes that do not."""

    samples: list[Sample] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    alike: list[list[int]] = field(default_factory=list)  # places of samples that show one image, equal files among them


def read_set(config: DataConfig, *, path: str | None = None, sets: Sequence[Subset] | None = None, report: Report = silent) -> ImageSet:
    """The set at `path` or the `sets` (default: data.path or data.sets), every image decoded. Raises Faults with everything wrong."""
    parts = Subsets(list(sets)) if sets is not None else subsets_of(config, path or config.path)
    if path is None and sets is None:
        parts = with_prior(parts, config)
    place = path or (place_of(config) if sets is None else " + ".join(subset.path for subset in sets))
    found = inspect_sets(parts, config, report=report)
    if found.faults:
        raise Faults(f"{place} cannot be trained on:", found.faults)
    return ImageSet(place, tuple(found.samples), tuple(found.notes), tuple(parts.sets))


def inspect_set(config: DataConfig, *, path: str | None, report: Report = silent, measures: Measures | None = None) -> Findings:
    """All findings about the set at `path` (None: data.sets), as `data lint` shows them.

    `measures` is given each image while its pixels are there.
    """
    return inspect_sets(subsets_of(config, path), config, report=report, measures=measures)


def inspect_sets(parts: Subsets, config: DataConfig, *, report: Report = silent, measures: Measures | None = None) -> Findings:
    """All findings about the sets, the names of each behind its own."""
    check_source(config.masks)
    every = Findings(faults=list(parts.faults), notes=list(parts.notes))
    for subset in parts.sets:
        if subset.masks is not None:
            check_source(subset.masks)
        own = config if subset.masks is None else replace(config, masks=subset.masks)
        found = _inspect_one(subset, own, report, measures)
        _check_captions(found, config, subset)
        front = f"{subset.prefix}: " if subset.prefix else ""
        every.faults += [front + fault for fault in found.faults]
        every.notes += [front + note for note in found.notes]
        every.samples += found.samples
    _note_twins(every)
    return every


def _inspect_one(subset: Subset, config: DataConfig, report: Report, measures: Measures | None) -> Findings:
    folder = expanded(subset.path)
    if os.path.isfile(folder):
        from train.data.hub import is_table

        if not is_table(folder):
            return Findings(faults=[f"{folder} is a file. {EXPECTED}."])
    inspect = _inspect_folder if os.path.isdir(folder) else _inspect_hub
    return inspect(subset, config, report, measures)


def _inspect_folder(subset: Subset, config: DataConfig, report: Report, measures: Measures | None) -> Findings:
    folder = expanded(subset.path)
    try:
        reading = read_folder(folder, config, subset)
    except OSError as error:
        return Findings(faults=[f"{error.filename or folder} cannot be read ({error.strerror or error})"])
    found = Findings(faults=reading.faults)
    front = os.fspath(folder / "-")[:-1]  # of every file's path
    names = [os.fspath(file)[len(front) :] for file, _ in reading.captions]
    shown = [name.replace(os.sep, "/") for name in names]
    entries = [(name, FileBytes(front, own), captions) for name, own, (_, captions) in zip(shown, names, reading.captions, strict=True)]
    files = None if measures is not None else {name: file for name, (file, _) in zip(shown, reading.captions, strict=True)}
    reading.captions, names, shown = [], [], []  # the paths of a large set take more memory than what is kept of its images
    _decode_all(found, entries, subset, report, measures, files=files)
    found.notes += reading.notes
    _attach_masks(
        found,
        {subset.prefix + os.fspath(file)[len(front) :].replace(os.sep, "/"): masks for file, masks in reading.masks.items()},
        config,
    )
    return found


def _attach_masks(found: Findings, files: Mapping[str, Sequence[Path]], config: DataConfig) -> None:
    if config.masks != "none":
        owners = [Owner(sample.name, sample.size, sample.read, sample.prior) for sample in found.samples]
        read = read_masks(owners, files, config.masks, several=any(sample.set for sample in found.samples))
        found.samples = [replace(sample, mask=mask) for sample, mask in zip(found.samples, read.masks, strict=True)]
        found.faults += read.faults
        found.notes += read.notes


def _inspect_hub(subset: Subset, config: DataConfig, report: Report, measures: Measures | None) -> Findings:
    from train.data.hub import read_hub

    entries, faults = read_hub(subset.path, config)
    if subset.word is not None:
        entries = [(name, read, captions or (subset.word,)) for name, read, captions in entries]
    found = Findings(faults=faults)
    _decode_all(found, entries, subset, report, measures)
    _attach_masks(found, {}, config)
    return found


# --- every image, whatever the source


def read_images(entries: Sequence[tuple[str, Callable[[], bytes], tuple[str, ...]]], subset: Subset) -> Findings:
    """The images of (name, reader of its bytes, captions) as those of a set, with the faults of those that are none."""
    found = Findings()
    _decode_all(found, entries, subset, silent, None)
    return found


def _decode_all(
    found: Findings,
    entries: Sequence[tuple[str, Callable[[], bytes], tuple[str, ...]]],
    subset: Subset,
    report: Report,
    measures: Measures | None,
    *,
    files: Mapping[str, Path] | None = None,
) -> None:
    """`files` are those of a folder, by name: one that has not changed since is not decoded again, unless it is measured."""
    images: dict[str, Decoded] = {}
    sizes: dict[Size, Size] = {}  # one of each: most images of a set have a few
    copies = SmallCopies()
    for done, (name, read, captions) in enumerate(entries, 1):
        try:
            seen = decoded(read) if measures is not None else SEEN.see(files[name]) if files else see(read)
        except (Unreadable, OSError) as error:
            found.faults.append(f"{name}: {error}")
        else:
            image = seen.image
            sample = Sample(
                name=subset.prefix + name,
                sha256=seen.sha256,
                size=sizes.setdefault(image.size, image.size),
                caption=captions[0] if captions else None,
                read=read,
                copies=copies,
                place=len(found.samples),
                others=captions[1:],
                set=subset.name,
                repeats=subset.repeats,
                weight=subset.weight,
                trigger=subset.trigger,
                prior=subset.prior,
            )
            found.samples.append(sample)
            if image.profile is not None or image.remarks or image.size.frames > 1:
                images[name] = seen.without_pixels.image
            if measures is not None:
                measures.add(image.image, seen.view, copies)
            else:
                copies.append(seen.small)
        report(Tick("read images", done, len(entries), name))
    if measures is not None:
        measures.finish()
    found.notes += _reading_notes(images)


def _reading_notes(images: Mapping[str, Decoded]) -> list[str]:
    """What a person should know of how the images were read: profiles, frames, what may be lost."""
    profiles: dict[str, list[str]] = defaultdict(list)
    remarks: dict[str, list[str]] = defaultdict(list)
    deep = [f"{name} ({image.size.frames})" for name, image in images.items() if image.size.frames > 1]
    for name, image in images.items():
        if image.profile is not None:
            profiles[image.profile].append(name)
        for remark in image.remarks:
            remarks[remark].append(name)
    notes = [
        f"{len(names)} converted to sRGB from the colour profile {profile}: {some(names, MOST)}" for profile, names in profiles.items()
    ]
    notes += [f"several frames, the first is used: {some(deep, MOST)}"] if deep else []
    return notes + [f"{some(names, MOST)}: {remark}" for remark, names in remarks.items()]


def _check_captions(found: Findings, config: DataConfig, subset: Subset) -> None:
    with_caption = [sample for sample in found.samples if sample.caption is not None]
    for sample in with_caption:
        faults = (check_caption(caption) or (wildcard_fault(caption) if config.wildcards else None) for caption in sample.captions)
        found.faults += [f"{sample.name.removeprefix(subset.prefix)}: {fault}" for fault in dict.fromkeys(faults) if fault]
    if found.samples and not with_caption and not found.faults and trigger_of(found.samples[0], config) is None:
        found.faults.append(
            f"none of its {counted(len(found.samples), 'image')} has a caption, and {_trigger_setting(subset)} is not set. Write NAME.txt"
            " beside each, or set it to the word that will be their caption" + _numbered_hint(subset)
        )


def _numbered_hint(subset: Subset) -> str:
    """What to give where the folder is one of sd-scripts' NUMBER_WORD: the number and the word are read from its parent."""
    if not KOHYA.fullmatch(Path(subset.path).name):
        return ""
    return f". Its name has repeats and a caption as sd-scripts names folders: give the folder that it lies in, {Path(subset.path).parent}"


def _trigger_setting(subset: Subset) -> str:
    """What gives a set without captions its one."""
    if subset.name == PRIOR or subset.name.startswith(f"{PRIOR}/"):
        return "data.prior_prompt"
    return "data.trigger" if not subset.name else "the set's trigger" if subset.prior else "data.trigger or the set's own trigger"


def _note_twins(found: Findings) -> None:
    """The same image under several names, byte by byte or nearly: trained as many times, noted."""
    times = Counter(sample.sha256 for sample in found.samples)
    names: dict[str, list[str]] = defaultdict(list)
    for sample in found.samples:
        if times[sample.sha256] > 1:
            names[sample.sha256].append(sample.name)
    twins = [" = ".join(same) for same in names.values()]
    del times
    if twins:
        found.notes.append(f"the same image several times: {some(twins, MOST, between='; ')}")
    alike = []
    found.alike = near_duplicates(found.samples)
    for places in found.alike:
        group = [found.samples[place] for place in places]
        if len({sample.sha256 for sample in group}) > 1:
            alike.append(" ~ ".join(sample.name for sample in group))
    if alike:
        found.notes.append(f"nearly the same image several times, in another format, quality or size: {some(alike, MOST, between='; ')}")
