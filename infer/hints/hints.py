"""The hints of drawings: each made once for an image, a preparation and a size, and kept in the home."""

# w h pixels

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infer.draw.files import ControlNet, ImageFile
from infer.draw.input_images import InputImages, Seen, fitted
from infer.hints.figures import Figures, read_figures
from infer.hints.methods import PREPARE
from infer.hints.setting import Prepare, prepare_faults
from infer.hints.table import NetworkKind
from registry.errors import BadFile, Faults, Refused, WriteFailed
from registry.files.write_failure import make_folder
from registry.formats import image_file
from registry.formats.atomic_file import atomic_file
from registry.formats.hashing import folder_sha256
from registry.home import expanded

if TYPE_CHECKING:
    from PIL.Image import Image

VERSION = 1  # of the preparations together: another one makes other pixels of some image
HELD = 8  # hints in memory


class Hints:
    """Hints of `images`, kept in `folder`; `digest(path)` is the sha256 of a file.

    A network is loaded at the first hint that is not kept.
    """

    def __init__(self, images: InputImages, folder: Path, digest: Callable[[Path], str]) -> None:
        self.images = images
        self._folder = folder
        self._digest = digest
        self._digests: dict[Path, str] = {}
        self._faults: dict[tuple[str, Path], list[str]] = {}
        self._figures: dict[str, Figures] = {}  # by content
        self._held: dict[str, Image] = {}  # by key, oldest first
        self._open: tuple[tuple[str | Path | None, ...], Any] | None = None

    # --- checks, which load nothing

    def resolved(self, prepare: Prepare) -> Prepare:
        """The preparation with the content of its network. Raises Faults with all that is wrong with it."""
        if faults := prepare_faults(prepare):
            raise Faults("This hint cannot be prepared:", faults)
        if (kind := PREPARE[prepare.name].network) is None:
            return prepare
        path = _place(prepare, kind)
        if prepare.sha256 is not None and (path is None or not path.exists()):  # of an image drawn earlier: the hint may be kept
            return prepare
        if path is None:
            raise Refused(f"prepare: {prepare.name} needs a model. {kind.expected}.")
        if (prepare.name, path) not in self._faults:
            self._faults[prepare.name, path] = kind.faults(path)
        faults = list(self._faults[prepare.name, path])
        others = _others(prepare, kind)
        for name, (other, place) in others.items():
            faults += [f"{name}: {fault}" for fault in other.faults(place)]
        if faults:
            raise Faults("This hint cannot be prepared:", [f"prepare: {prepare.name}: {fault}" for fault in faults])
        digest = self._content(kind, path)
        if others:
            digest = folder_sha256({"model": digest} | {name: self._content(other, place) for name, (other, place) in others.items()})
        if prepare.sha256 not in (None, digest):
            raise Refused(
                f"prepare: {prepare.name}: {path} has the sha256 {digest}, and the network that was asked for has {prepare.sha256}. Put"
                " that one back under its name."
            )
        return replace(prepare, sha256=digest)

    def sha256(self, one: ControlNet) -> str:
        """The content of a ControlNet's file, which must be what its preparation reads. Raises NotFound or BadFile."""
        return self._read_figures(one.picture)[0] if reads_keypoints(one) else self.images.read(one.picture).sha256

    def seen(self, one: ControlNet) -> Seen | None:
        """Facts of a ControlNet's file as of an image; None for keypoints without a canvas, which have no size of their own."""
        if not reads_keypoints(one):
            return self.images.read(one.picture)
        digest, figures = self._read_figures(one.picture)
        if figures.canvas is None:
            return None
        return Seen(name=one.picture.path, sha256=digest, size=figures.canvas, clear=False, keypoints=True)

    def faults(self, one: ControlNet, size: tuple[int, int]) -> list[str]:
        """Why a file cannot be prepared for a drawing of `size`, beside its shape."""
        if one.prepare is None or one.prepare.name not in PREPARE:
            return []
        name = one.picture.path
        if not reads_keypoints(one):
            why = PREPARE[one.prepare.name].refuse(self.images.image(one.picture))
            return [f"prepare: {one.prepare.name}: {name} {why}"] if why else []
        figures = self._read_figures(one.picture)[1]
        if figures.shares or figures.canvas is not None:
            return []
        out = [point for point in figures.points() if not (0 <= point[0] <= size[0] and 0 <= point[1] <= size[1])]
        if not out:
            return []
        return [
            f"{name} has points in pixels and no canvas_width and canvas_height, and {len(out)} of them are out of the drawing of"
            f" {size[0]}x{size[1]} ({out[0][0]:g}, {out[0][1]:g}). Add both to the JSON: the size of the image that the points are of."
        ]

    def notes(self, one: ControlNet, size: tuple[int, int]) -> Iterable[str]:
        """What a person should know of how a hint is made."""
        if one.prepare is None:
            return
        if note := PREPARE[one.prepare.name].note(one.prepare.values()):
            yield f"{one.prepare.name} of {one.picture}: {note}."
        if reads_keypoints(one):
            figures = self._read_figures(one.picture)[1]
            if figures.others:
                yield f"{one.picture} has points of {' and '.join(figures.others)}, which are not drawn: the body alone is."
            if figures.canvas is None and not figures.shares:
                yield f"{one.picture} has no canvas_width and canvas_height: its points are pixels of the drawing, {_spell(size)}."

    # --- hints

    def image(self, one: ControlNet, size: tuple[int, int], fit: str | None, *, device: str = "cpu") -> Image:
        """The hint of a resolved ControlNet as the net gets it, RGB of the drawing's size (width, height)."""
        if one.prepare is None:
            return fitted(self.images.image(one.picture), size, fit)
        key = self._key(one, one.prepare, size, fit, device)
        if key not in self._held:
            while len(self._held) >= HELD:
                del self._held[next(iter(self._held))]
            self._held[key] = self._kept(key, size) or self._made(one, one.prepare, size, fit, device, key)
        return self._held[key]

    def close(self) -> None:
        """Drop the network."""
        self._open = None

    def path(self, one: ControlNet, size: tuple[int, int], fit: str | None, *, device: str = "cpu") -> Path | None:
        """Where the prepared hint of a resolved ControlNet is kept; None where it is not made yet."""
        if one.prepare is None:
            return None
        path = self._place(self._key(one, one.prepare, size, fit, device))
        return path if path.is_file() else None

    def _made(self, one: ControlNet, prepare: Prepare, size: tuple[int, int], fit: str | None, device: str, key: str) -> Image:
        known, options = PREPARE[prepare.name], prepare.values()
        if known.keypoints:
            made = known.function(placed(self._read_figures(one.picture)[1], size, fit), size, **options)
        elif known.network is None:
            made = known.function(fitted(self.images.image(one.picture), size, fit), **options)
        else:
            network = self._network(prepare, known.network, device)
            made = known.function(fitted(self.images.image(one.picture), size, fit), network, **options)
        self._keep(key, made)
        return made

    def _network(self, prepare: Prepare, kind: NetworkKind, device: str) -> Any:
        path, others = _place(prepare, kind), _others(prepare, kind)
        what = (prepare.name, path, device, *(place for _kind, place in others.values()))
        if self._open is None or self._open[0] != what:
            self._open = None
            if path is None or not path.exists() or not all(place.exists() for _kind, place in others.values()):
                raise Refused(
                    f"prepare: {prepare.name}: the network with sha256 {prepare.sha256} is not here ({path or 'its package'}), nor is its"
                    " hint kept. Put the file back under its name."
                )
            opened = {name: other.open(place, device) for name, (other, place) in others.items()}
            self._open = (what, kind.join(kind.open(path, device), opened) if opened else kind.open(path, device))
        return self._open[1]

    def _key(self, one: ControlNet, prepare: Prepare, size: tuple[int, int], fit: str | None, device: str) -> str:
        made_by: list[Any] = []
        if PREPARE[prepare.name].network is not None:
            from infer.draw.machine import made_with

            made_by = [device.partition(":")[0], sorted(made_with(device, adapters=frozenset()))]
        values = [VERSION, image_file.VERSION, one.picture.sha256, size, fit, prepare.pinned(), *made_by]
        return sha256(json.dumps(values, sort_keys=True, ensure_ascii=False).encode()).hexdigest()

    def _place(self, key: str) -> Path:
        return self._folder / key[:2] / f"{key}.png"

    def _kept(self, key: str, size: tuple[int, int]) -> Image | None:
        """The kept hint; None where there is none that can be read."""
        from PIL import Image

        try:
            with Image.open(self._place(key)) as opened:
                found = opened.convert("RGB")
        except (OSError, ValueError, SyntaxError):  # not there, cut off, no PNG
            return None
        return found if found.size == size else None

    def _keep(self, key: str, image: Image) -> None:
        data = io.BytesIO()
        image.save(data, "PNG")
        path = self._place(key)
        with contextlib.suppress(WriteFailed):  # a home that takes no file: the hint is made again next time
            make_folder(path.parent)
            with atomic_file(path, needed=len(data.getvalue())) as out:
                out.write(data.getvalue())

    def _read_figures(self, file: ImageFile) -> tuple[str, Figures]:
        """(sha256, people) of a JSON file with keypoints."""
        digest, data = self.images.data(file)
        if digest not in self._figures:
            try:
                self._figures[digest] = read_figures(data)
            except Refused as error:
                raise BadFile(Path(file.path), "unreadable", str(error)) from error
        return digest, self._figures[digest]

    def _content(self, kind: NetworkKind, path: Path) -> str:
        if path not in self._digests:
            files = kind.files(path)
            names = {file.relative_to(path).as_posix(): self._digest(file) for file in files} if path.is_dir() else {}
            self._digests[path] = folder_sha256(names) if names else self._digest(path)
        return self._digests[path]


def reads_keypoints(one: ControlNet) -> bool:
    """Whether a ControlNet's file is keypoints, not an image."""
    return one.prepare is not None and one.prepare.name in PREPARE and PREPARE[one.prepare.name].keypoints


def placed(figures: Figures, size: tuple[int, int], fit: str | None) -> Figures:
    """The points in pixels of a drawing of `size`: scaled as `fitted` scales an image of the canvas's size."""
    wide, high = canvas = figures.canvas or size
    left = top = 0.0
    shown = [float(wide), float(high)]
    if fit == "crop":
        scale = min(wide / size[0], high / size[1])
        shown = [size[0] * scale, size[1] * scale]
        left, top = (wide - shown[0]) / 2, (high - shown[1]) / 2
    unit = canvas if figures.shares else (1, 1)

    def moved(point: tuple[float, float] | None) -> tuple[float, float] | None:
        if point is None:
            return None
        x, y = point[0] * unit[0], point[1] * unit[1]
        return (x - left) / shown[0] * size[0], (y - top) / shown[1] * size[1]

    people = tuple(tuple(moved(point) for point in one) for one in figures.people)
    return Figures(people=people, canvas=size, shares=False, others=figures.others)


def _others(prepare: Prepare, kind: NetworkKind) -> dict[str, tuple[NetworkKind, Path]]:
    """The networks beside the first one that are given, by their options."""
    given = dict(prepare.options)
    return {name: (other, expanded(given[name]).absolute()) for name, other in kind.others.items() if isinstance(given.get(name), str)}


def _place(prepare: Prepare, kind: NetworkKind) -> Path | None:
    """Where the network is: what was given, else the one that comes with a package."""
    given = dict(prepare.options).get("model")
    return expanded(given).absolute() if isinstance(given, str) else kind.default()


def _spell(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
