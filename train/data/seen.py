"""An image of a set as it was read: its hash, its size, a small copy; of a file that has not changed it is not read again."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from registry.formats.image_file import Decoded, read_image
from registry.images.image_hash import small_copy
from train.data.overview import Overview, overview

MOST = 20_000  # images that a process remembers, about 1 KB each

Signature = tuple[int, int, int, int, int]


@dataclass(frozen=True)
class Seen:
    """What a set keeps of an image file."""

    sha256: str
    image: Decoded
    view: Overview
    small: bytes = b""

    @property
    def without_pixels(self) -> Seen:
        """The same without what is large."""
        return replace(self, image=replace(self.image, image=None), view=None)  # type: ignore[arg-type]  # nobody looks at them


def decoded(read: Callable[[], bytes]) -> Seen:
    """The image whose bytes this gives, without its small copy. Raises Unreadable, OSError."""
    data = read()
    image = read_image(data)
    return Seen(hashlib.sha256(data).hexdigest(), image, overview(image.image))


def see(read: Callable[[], bytes]) -> Seen:
    """The image whose bytes this gives. Raises Unreadable, OSError."""
    found = decoded(read)
    return Seen(found.sha256, found.image, found.view, small_copy(found.view.image, found.view.box))


class SeenFiles:
    """Image files that this process has read, by device, inode, size and both times of change: the Studio plans one set again and again."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._known: OrderedDict[Path, tuple[Signature, Seen]] = OrderedDict()
        self._lock = threading.Lock()

    def see(self, file: Path) -> Seen:
        """The image of a file, without its pixels where it was read before. Raises Unreadable, OSError."""
        signature = _signature(file)
        with self._lock:
            known = self._known.get(file)
            if known is not None and known[0] == signature:
                self._known.move_to_end(file)
                return known[1]
        found = see(file.read_bytes)
        if _signature(file) == signature:  # not written meanwhile
            with self._lock:
                self._known[file] = signature, found.without_pixels
                self._known.move_to_end(file)
                while len(self._known) > self._most:
                    self._known.popitem(last=False)
        return found


def _signature(file: Path) -> Signature:
    stat = file.stat()
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


SEEN = SeenFiles()
