"""Draw an image again from its own metadata, and compare the pixels."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infer.draw.render import SETTINGS, Render
from infer.draw.resolve import Resolver
from infer.metadata.models import reference_of
from infer.output.encoding import Encoding
from infer.output.lossy import encoder, through_encoder
from infer.output.png import Carried, hash_pixels, read_png
from infer.sharing.alone import TOLERANCE
from registry.errors import Faults, LoomError
from registry.printable import as_lines
from registry.progress import Report, silent

if TYPE_CHECKING:
    from PIL.Image import Image

    from registry.store import Store


@dataclass(frozen=True, kw_only=True)
class Reproduction:
    """The result. `edited`: the file's pixels are not those it was written with; `notes` name what differs on this machine."""

    path: Path
    equal: bool
    max_difference: int  # of 255, over all pixels and channels
    share_different: float  # of the pixels
    edited: bool
    tolerance: int  # of 255: the largest difference that counts as the same image; 0, but for one whose forwards were shared
    seconds: float
    notes: tuple[str, ...]
    encoding: Encoding | None = None  # of a lossy image, whose pixels are compared behind the same encoder
    sizes: tuple[tuple[int, int], tuple[int, int]] | None = None  # of the file and of the image that was drawn, where they differ

    @property
    def reproduced(self) -> bool:
        """Whether it is the same image: to the bit, or within the tolerance of shared forwards."""
        return self.max_difference <= self.tolerance

    def to_json(self) -> dict[str, Any]:
        """Plain values with stable keys."""
        return {
            "image": str(self.path),
            "equal": self.equal,
            "max_difference": self.max_difference,
            "share_different": self.share_different,
            "edited": self.edited,
            "tolerance": self.tolerance,
            "encoding": None if self.encoding is None else {"format": self.encoding.format, "quality": self.encoding.quality},
            "reproduced": self.reproduced,
            "seconds": self.seconds,
            "notes": list(self.notes),
        }

    def to_text(self) -> str:
        """One paragraph for a person."""
        if self.equal:
            verdict = f"{self.path}: the same pixels, drawn again in {self.seconds:.1f} s."
        elif self.sizes is not None:
            (width, height), (drawn_width, drawn_height) = self.sizes
            verdict = (
                f"{self.path}: not the same pixels. The file has {width}x{height} pixels, the image that was drawn again"
                f" {drawn_width}x{drawn_height}: it was cropped or scaled."
            )
        elif self.reproduced:
            verdict = (
                f"{self.path}: the same image within the tolerance of shared forwards, drawn again alone in {self.seconds:.1f} s."
                f" The largest difference is {self.max_difference} of 255 (tolerance {self.tolerance});"
                f" {self.share_different:.2%} of the pixels differ."
            )
        else:
            verdict = (
                f"{self.path}: not the same pixels. The largest difference is {self.max_difference} of 255;"
                f" {self.share_different:.1%} of the pixels differ."
            )
        edited = ["The file was edited: its own pixels are not those it was written with."] if self.edited else []
        return as_lines([verdict, *edited, *(f"note: {note}" for note in self.notes)])


def reproduce(path: Path, store: Store, *, report: Report = silent) -> Reproduction:
    """Draw the image at `path` again, whatever the cell store holds, and compare.

    The base and the adapters are found by the sha256 the image names. Raises BadFile when it carries no Render, Faults when
    they are not found, JobFailed when it cannot be drawn.
    """
    from PIL import Image

    from infer.draw.session import Counts, Session

    carried = read_png(path)
    resolver = Resolver(store)
    counts = Counts()
    render = resolver.resolve(with_found_files(carried.render, store))
    notes = _differences(carried, render)
    if render.shared:
        notes.append("drawn in forwards that it shared with other cells, here alone: the last bits differ, within a tolerance")
    session = Session(resolver, [render], counts, report=report)
    try:
        png, seconds = _drawn(session)
    finally:
        session.close()
    with Image.open(path) as opened, Image.open(io.BytesIO(png)) as drawn:
        there, again = opened.convert("RGB"), drawn.convert("RGB")
    if carried.encoding is not None:
        notes += _lossy_notes(carried.encoding, shared=render.shared)
        again = through_encoder(again, format=carried.encoding.format, quality=carried.encoding.quality)
    largest, share = compare(there, again)
    edited = hash_pixels(there) != (carried.pixels_sha256 if carried.encoding is None else carried.encoding.pixels_sha256)
    return Reproduction(
        path=path,
        equal=largest == 0,
        max_difference=largest,
        share_different=share,
        edited=edited,
        tolerance=TOLERANCE[render.precision] if render.shared else 0,
        seconds=seconds,
        notes=(*notes, *counts.notes),
        encoding=carried.encoding,
        sizes=None if there.size == again.size else (there.size, again.size),
    )


def _lossy_notes(encoding: Encoding, *, shared: bool) -> Iterator[str]:
    """What to know of a comparison of lossy images."""
    yield f"saved as {encoding}, which loses pixels: the image that was drawn again is compared behind the same encoder"
    if encoding.encoder != (here := encoder()):
        yield f"encoded with {encoding.encoder}, here is {here}"
    if shared:
        yield "a lossy encoder may widen the small difference of shared forwards"


def _drawn(session: Any) -> tuple[bytes, float]:
    from time import monotonic

    from registry.errors import JobFailed

    began = monotonic()
    try:
        png, _forwards = session.draw(0)
    except LoomError:
        raise
    except Exception as error:
        raise JobFailed(f"The image could not be drawn: {type(error).__name__}: {error}") from error
    return png, round(monotonic() - began, 3)


def compare(first: Image, second: Image) -> tuple[int, float]:
    """(largest difference of 255, share of pixels that differ) of two RGB images; 255 and 1 for different sizes."""
    import numpy

    if first.size != second.size:
        return 255, 1.0
    difference = numpy.abs(numpy.asarray(first, dtype=numpy.int16) - numpy.asarray(second, dtype=numpy.int16))
    return int(difference.max(initial=0)), float((difference.max(axis=-1) > 0).mean())


def with_found_files(render: Render, store: Store) -> Render:
    """The Render with references that exist on this machine, by name where they have one; files are found by sha256."""
    faults: list[str] = []

    def found(reference: str, sha256: str | None, kind: str) -> str:
        for name in _names(reference, sha256):
            try:
                record = store.find(name)
                if store.sha256(record) == sha256:
                    return reference_of(record, store)
            except LoomError:
                continue
        faults.append(
            f"No {kind} with sha256 {sha256} is known here (it was called {reference})."
            f" Register it: loraloom registry add FILE, or loraloom registry scan FOLDER --hash."
        )
        return reference

    named: dict[str, Any] = {}
    for one in (one for one in SETTINGS.values() if one.file):
        value = getattr(render, one.field)
        if isinstance(value, tuple):
            named[one.field] = tuple(replace(file, reference=found(file.reference, file.sha256, one.file), sha256=None) for file in value)
        elif value is not None:
            named[one.field] = found(value, getattr(render, f"{one.field}_sha256"), one.file)
    render = replace(render, **named, device="auto" if not _is_here(render.device) else render.device)
    if faults:
        raise Faults("This image cannot be drawn again here:", faults)
    return render


def _names(reference: str, sha256: str | None) -> Sequence[str]:
    return [*([f"sha256:{sha256}"] if sha256 else []), reference]


def _is_here(device: str) -> bool:
    from infer.draw.machine import pick_device

    try:
        return pick_device(device) == device
    except LoomError:
        return False


def _differences(carried: Carried, render: Render) -> list[str]:
    """What computes the pixels here and did not there: the reasons to look at first when they differ."""
    then, now = dict(carried.render.versions), dict(render.versions)
    notes = [
        f"drawn with {name} {then.get(name, 'none')}, here is {now.get(name, 'none')}"
        for name in sorted({*then, *now})
        if then.get(name) != now.get(name)
    ]
    if carried.render.device != render.device:
        notes.append(f"drawn on {carried.render.device}, here on {render.device}")
    return notes
