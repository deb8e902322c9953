"""One hint by itself: to look at before anything is drawn with it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from infer.draw.files import ControlNet, ImageFile
from infer.draw.input_images import InputImages, check_fit, fit_notes
from infer.draw.machine import pick_device
from infer.draw.render import LARGEST_SIDE
from infer.hints.hints import Hints
from infer.hints.setting import Prepare
from registry.errors import Faults, Refused, gathered

if TYPE_CHECKING:
    from PIL.Image import Image

    from registry.store import Store


@dataclass(frozen=True, kw_only=True)
class Hint:
    """A prepared hint, of what it was made and how."""

    image: Image
    source: ImageFile
    prepare: Prepare
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values with stable keys."""
        return {
            "image": self.source.path,
            "sha256": self.source.sha256,
            "prepare": self.prepare.name,
            "options": self.prepare.values(),
            "model_sha256": self.prepare.sha256,
            "size": list(self.image.size),
            "white": round(white_share(self.image), 4),
            "notes": list(self.notes),
        }


def one_hint(path: str, prepare: Prepare, store: Store, *, size: tuple[int, int] | None, fit: str | None, device: str) -> Hint:
    """The hint of a file, of `size` (width, height in pixels; None: its own). Raises Faults with all that is wrong with it."""
    hints = Hints(InputImages(store.home / "pictures"), store.home / "hints", store.file_sha256)
    faults: list[str] = []
    device = gathered(faults, lambda: pick_device(device)) or "cpu"
    one = ControlNet(reference="a ControlNet", picture=ImageFile(path=path), prepare=prepare)
    resolved = gathered(faults, lambda: hints.resolved(prepare))
    digest = gathered(faults, lambda: hints.sha256(one))
    if digest is not None:
        one = replace(one, picture=replace(one.picture, sha256=digest))
        seen = hints.seen(one)
        size = size or (seen.size if seen else None)
        if size is None:
            faults.append(f"{path} has points in pixels or shares of no known canvas. Give the size of the hint: --size 512x768.")
        elif not 0 < min(size) <= max(size) <= LARGEST_SIDE:
            faults.append(f"The size {size[0]}x{size[1]} is out of range. Expected 1 to {LARGEST_SIDE} pixels a side.")
        else:
            gathered(faults, lambda: check_fit("image", seen, size, fit) if seen else None)
            faults += hints.faults(one, size)
    if faults or size is None or resolved is None:
        raise Faults("This hint cannot be prepared:", faults)
    image = hints.image(replace(one, prepare=resolved), size, fit, device=device)
    hints.close()
    scaled = fit_notes("image", seen, size, fit) if seen else None
    empty = "The hint is black all over: a ControlNet sees nothing in it." if image.getbbox() is None else None
    notes = [note for note in (scaled, *hints.notes(one, size), empty) if note]
    return Hint(image=image, source=one.picture, prepare=resolved, notes=tuple(notes))


def white_share(image: Image) -> float:
    """The share of the pixels that are not black."""
    histogram = image.convert("L").histogram()
    return 1 - histogram[0] / sum(histogram)


def read_options(words: list[str]) -> dict[str, Any]:
    """The options of NAME=VALUE words. Raises Refused; a value is a number, true, false, null or else a text."""
    from registry.plain_values import from_yaml

    found: dict[str, Any] = {}
    for word in words:
        name, sign, value = word.partition("=")
        if not sign or not name.strip():
            raise Refused(f"--option {word}: expected NAME=VALUE, such as low=50.")
        if name in found:
            raise Refused(f"--option {name} is given twice.")
        try:
            plain = from_yaml(value)
        except ValueError:
            plain = value
        found[name.strip()] = plain if plain is None or isinstance(plain, str | int | float) else value
    return found
