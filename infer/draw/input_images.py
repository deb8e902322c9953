"""The input images of drawings: read once, identified by the sha256 of their file, and copied into the home to be found again."""

# h w pixels

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infer.draw.files import ImageFile
from registry.errors import BadFile, NotFound, Refused
from registry.files.write_failure import make_folder
from registry.formats.atomic_file import atomic_file
from registry.formats.image_file import Decoded, Unreadable, read_image
from registry.home import expanded
from registry.plain_values import storable

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

HELD = 8  # decoded images in memory
LARGEST = 1 << 30  # bytes of a file; more is no image


@dataclass(frozen=True, kw_only=True)
class Seen:
    """Facts of an image that was read: its size in pixels, upright; `clear` is whether it has transparent pixels.

    `remarks` are clauses on how it was read: its colour profile, values that are lost.
    """

    name: str
    sha256: str
    size: tuple[int, int]  # width, height
    clear: bool
    remarks: tuple[str, ...] = ()
    keypoints: bool = False  # a JSON file whose size is that of its canvas


class InputImages:
    """Image files by name and by content. `<home>/pictures/<two digits>/<sha256>` has a copy of each that was used.

    They are no blobs: what no record names is garbage there. Only the few that were decoded last are held in memory, however many
    a grid names.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._seen: dict[str, Seen] = {}  # by content
        self._named: dict[str, str] = {}  # path as given -> content
        self._masks: dict[tuple[str, tuple[int, int], str | None], Any] = {}
        self._decoded: dict[str, Image] = {}  # by content, oldest first

    def read(self, file: ImageFile) -> Seen:
        """Facts of the image, by its content where the sha256 is given, wherever the file is now. Raises NotFound or BadFile."""
        digest = file.sha256 or self._named.get(file.path)
        if digest not in self._seen:
            data = self._data(file)
            digest = sha256(data).hexdigest()
            image = self._decode(digest, Path(file.path), data)
            self._seen[digest] = Seen(
                name=file.path, sha256=digest, size=image.image.size, clear=_is_clear(data), remarks=tuple(_remarks(image))
            )
            self._named.setdefault(file.path, digest)
        return replace(self._seen[str(digest)], name=file.path)

    def image(self, file: ImageFile) -> Image:
        """The image itself: upright, RGB, on white."""
        digest = self.read(file).sha256
        if digest not in self._decoded:
            self._decode(digest, Path(file.path), self._data(replace(file, sha256=digest)))
        return self._decoded[digest]

    def data(self, file: ImageFile) -> tuple[str, bytes]:
        """(sha256, bytes) of a file that is no image. Raises NotFound or BadFile."""
        data = self._data(replace(file, sha256=file.sha256 or self._named.get(file.path)))
        digest = sha256(data).hexdigest()
        self._named.setdefault(file.path, digest)
        return digest, data

    def mask(self, file: ImageFile, size: tuple[int, int], fit: str | None) -> Any:
        """The image as a mask (h, w) of bools at the drawing's size; see `mask_of`."""
        what = (self.read(file).sha256, size, fit)
        if what not in self._masks:
            self._masks[what] = mask_of(self.image(file), size, fit)
        return self._masks[what]

    def keep(self, files: Iterable[ImageFile]) -> None:
        """Keep a copy of each, by its content: an image can be drawn again when the original has moved."""
        for file in files:
            known = replace(file, sha256=file.sha256 or self.read(file).sha256)
            path = self._kept(str(known.sha256))
            if not path.is_file():
                data = self._data(known)
                make_folder(path.parent)
                with atomic_file(path, needed=len(data)) as out:
                    out.write(data)

    def _decode(self, digest: str, path: Path, data: bytes) -> Decoded:
        while len(self._decoded) >= HELD:
            del self._decoded[next(iter(self._decoded))]
        found = _decoded(path, data)
        self._decoded[digest] = found.image
        return found

    def _kept(self, digest: str) -> Path:
        return self.folder / digest[:2] / digest

    def _data(self, file: ImageFile) -> bytes:
        """The file's bytes; with its content known, those of that content and no others."""
        original = expanded(file.path)
        if file.sha256 is None:
            return _read(original)
        for path in (self._kept(file.sha256), original):
            if path.is_file() and sha256(data := _read(path)).hexdigest() == file.sha256:
                return data
        raise NotFound(
            f"The image with sha256 {file.sha256} is not here (it was called {file.path}): neither under that name nor in"
            f" {self.folder}. Put the file back under its name."
        )


def _read(path: Path) -> bytes:
    if storable(str(path)) != str(path):
        raise BadFile(path, "unreadable", "is called by bytes that are not UTF-8: no metadata can name it. Rename the file.")
    if not path.exists():
        raise NotFound(f"There is no image {path}. Give the path of an image file.")
    if not path.is_file():
        raise BadFile(path, "unreadable", "is no file. Give the path of one image.")
    if path.stat().st_size > LARGEST:
        raise BadFile(path, "unreadable", f"has {path.stat().st_size:,} bytes; at most {LARGEST:,} are read as an image.")
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadFile(path, "unreadable", f"cannot be read ({error.strerror}).") from error


def _decoded(path: Path, data: bytes) -> Decoded:
    try:
        found = read_image(data)
    except Unreadable as error:
        raise BadFile(path, "unreadable", f"{error}. Give an image such as a PNG, JPEG or WebP file.") from error
    if found.size.frames > 1:
        raise BadFile(path, "unreadable", f"has {found.size.frames} frames. Give a still image.")
    return found


def _remarks(image: Decoded) -> Iterable[str]:
    if image.profile is not None:
        yield f"converted to sRGB from the colour profile {image.profile}"
    yield from image.remarks


def _is_clear(data: bytes) -> bool:
    from PIL import Image

    with Image.open(io.BytesIO(data)) as opened:
        if "A" not in opened.getbands() and "transparency" not in opened.info:
            return False
        opacity = opened.convert("RGBA").getchannel("A").histogram()
    return sum(opacity[:255]) > 0


# --- scaling


def check_fit(what: str, seen: Seen, size: tuple[int, int], fit: str | None) -> None:
    """Refuse an image of another shape than the drawing's, unless `fit` is given."""
    if fit is None and not same_shape(seen.size, size):
        raise Refused(
            f"{what} {seen.name} is {_spell(seen.size)} pixels, another shape than the drawing's {_spell(size)}."
            " Give fit=crop (its middle is taken), fit=stretch (it is distorted), or a size of its shape."
        )


def fit_notes(what: str, seen: Seen, size: tuple[int, int], fit: str | None) -> str | None:
    """The note on an image that is not of the drawing's size; None for one that is."""
    if seen.size == size:
        return None
    how = "" if same_shape(seen.size, size) else " its middle is cut out," if fit == "crop" else " it is stretched,"
    scaled = "its points are scaled" if seen.keypoints else "it is scaled"
    by = "" if seen.keypoints else " (Lanczos)"
    return f"{what} {seen.name} is {_spell(seen.size)} pixels:{how} {scaled} to {_spell(size)}{by}."


def fitted(image: Image, size: tuple[int, int], fit: str | None) -> Image:
    """The image at the drawing's size, scaled by Lanczos as diffusers does it; its middle alone with `fit` crop."""
    from PIL import Image

    if image.size == size:
        return image
    box = None
    if fit == "crop":
        scale = min(image.width / size[0], image.height / size[1])
        wide, high = size[0] * scale, size[1] * scale
        left, top = (image.width - wide) / 2, (image.height - high) / 2
        box = (left, top, left + wide, top + high)
    return image.resize(size, Image.Resampling.LANCZOS, box=box)


def same_shape(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether `one` has the aspect ratio of `other`, to the pixel."""
    longest = max(one[0], one[1], other[0], other[1])
    return abs(one[0] * other[1] - one[1] * other[0]) <= longest


def _spell(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def mask_of(image: Image, size: tuple[int, int], fit: str | None) -> Any:
    """The mask (h, w) as bools: True (white) is redrawn. Scaled as grey, then halved at the middle, as diffusers does it."""
    import numpy

    return numpy.asarray(fitted(image.convert("L"), size, fit)) >= 128


def to_pixels(image: Image) -> Tensor:
    """The image as a tensor (1, 3, h, w) in [0, 1], with the strides of diffusers' image processor: they choose convolutions."""
    import numpy
    import torch

    return torch.from_numpy(numpy.asarray(image, dtype=numpy.float32)[None] / 255).permute(0, 3, 1, 2)
