"""Reference images of a score: a folder, one file, or the input image of each cell (`init`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from infer.score.scorer import Better, Found, Plain, Scorer, Subject
from registry.errors import BadFile, Faults, LoomError, NotFound, Refused
from registry.formats.image_file import Unreadable, decode
from registry.formats.safetensors_header import open_regular
from registry.home import expanded
from registry.options import Meaning
from registry.printable import one_line

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".avif", ".bmp", ".tif", ".tiff")
MOST = 100_000  # images
LARGEST = 1 << 28  # bytes of one
INIT = "init"  # the input image of image-to-image

References = Annotated[str, Meaning("a folder of images, one image, or init: the input image of each cell")]
Take = Annotated[Literal["mean", "nearest"], Meaning("of several references: the mean over them, or the nearest one's")]


@dataclass(frozen=True)
class ReferenceFile:
    """An image file and the sha256 of its bytes."""

    path: Path
    sha256: str

    def image(self) -> Image:
        """RGB, upright, on white."""
        return decode(_data(self.path))[0]


def read_references(given: str) -> tuple[ReferenceFile, ...]:
    """The images of a folder (not of its subfolders), by name, or the one file. Raises Faults, NotFound, Refused."""
    place = expanded(given).absolute()
    if not place.exists():
        raise NotFound(f"references {one_line(given)}: there is no such folder or image.")
    files = [place] if place.is_file() else sorted(path for path in place.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
    if not files:
        raise Refused(f"references {one_line(given)}: the folder has no images ({', '.join(SUFFIXES)}); subfolders are not read.")
    return read_files(files, f"references {one_line(given)}")


def read_files(files: Sequence[Path], owner: str) -> tuple[ReferenceFile, ...]:
    """The image files, every one decoded. Raises Faults with those that cannot be."""
    if len(files) > MOST:
        raise Refused(f"{owner}: {len(files):,} images are more than {MOST:,}.")
    found, faults = [], []
    for path in files:
        try:
            data = _data(path)
            decode(data)
            found.append(ReferenceFile(path, sha256(data).hexdigest()))
        except Unreadable as error:
            faults.append(f"{one_line(path)}: {error}")
        except LoomError as error:
            faults.append(str(error))
    if faults:
        raise Faults(f"{owner} cannot all be read:", faults)
    return tuple(found)


def _data(path: Path) -> bytes:
    with open_regular(path) as file:
        data: bytes = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise BadFile(path, "too-large", f"has more than {LARGEST:,} bytes.")
    return data


def content_of(files: tuple[ReferenceFile, ...]) -> str:
    """A sha256 over the contents, whatever the files are called."""
    return sha256("\n".join(sorted(one.sha256 for one in files)).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How a score compares images: `features` of each once, and `distance` of two of them. `open` loads what `features` needs."""

    open: Callable[[], Callable[[Image], Any]]
    distance: Callable[[Any, Any], float]


def against_references(
    definition: str,
    *,
    unit: str,
    better: Better,
    references: str | tuple[ReferenceFile, ...],
    take: str,
    comparison: Comparison,
    identity: Mapping[str, Plain] | None = None,
    model: Mapping[str, Plain] | None = None,
    named: bool = False,
    nearest_is: Better | None = None,
) -> Scorer:
    """A score by comparing an image with references; `named`: it says which of them was the nearest.

    `nearest_is`: whether the nearest one has the lower number or the higher; where it is not given, the better one.
    """
    own_input = references == INIT
    files = () if own_input else read_references(references) if isinstance(references, str) else references
    shared: dict[str, Plain] = {**(identity or {}), "take": take, "references": INIT if own_input else content_of(files)}
    if named:
        shared["names"] = [one.path.name for one in files]
    nearest: Callable[..., Any] = min if (nearest_is or better) == "lower" else max

    def opened() -> Callable[[Subject], Found]:
        features = comparison.open()
        known = [(one.path.name, features(one.image())) for one in files]

        def value(subject: Subject) -> Found:
            own = features(subject.image())
            if own_input:
                return Found(comparison.distance(own, features(subject.inputs[INIT]())))
            values = [comparison.distance(own, other) for _, other in known]
            best = nearest(range(len(values)), key=values.__getitem__)
            return Found(sum(values) / len(values) if take == "mean" else values[best], f"nearest to {known[best][0]}" if named else "")

        return value

    return Scorer(
        definition=f"{definition} {_to_what(own_input, take, len(files))}",
        unit=unit,
        better=better,
        open=opened,
        identity=shared,
        inputs=(lambda subject: {INIT: subject.files[INIT]} if INIT in subject.files else None) if own_input else lambda _: {},
        lacks="the cell has no input image",
        model=model,
    )


def _to_what(own_input: bool, take: str, count: int) -> str:
    if own_input:
        return "To the cell's own input image."
    return f"{'Mean over' if take == 'mean' else 'The nearest of'} {count} reference images." if count > 1 else "To the reference image."
