"""What a page gets while its grid is drawn: scripts in live/ with the cells that are done, which a page may load from the disk.

A part holds PART cells and is never written again once it is full, so that all parts together are written in time that is linear in the
cells, and a page loads each once. The end of the grid deletes them; a page that then finds no next part loads itself again.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from infer.output.gallery import Gallery
from infer.output.page.data import changes
from infer.output.page.images import PageImage, beside
from registry.files.write_failure import make_folder
from registry.formats.atomic_file import write_text
from registry.printable import script_json

PART = 64  # cells
FOLDER = "live"


class LiveParts:
    """The parts of the page at `page`."""

    def __init__(self, page: Path) -> None:
        self.page = page
        self.images: dict[Path, PageImage] = {}
        self.started = False  # whether the page itself is there
        self._numbers: dict[Path, int] = {}
        self._sent: dict[int, str] = {}  # cell -> the status that was sent
        self._open: list[str] = []
        self._part = 0

    def add(self, gallery: Gallery) -> None:
        """Write the cells that were done since the last call."""
        for index, image in enumerate(gallery.images):
            if image.status == self._sent.get(index, "missing"):
                continue
            self._sent[index] = image.status
            self._open.append(script_json([index, changes(image, self._number(image.path)), self._address(image.path)]))
            if len(self._open) == PART:
                self._write(full=True)
        self._write(full=False)

    def _number(self, file: Path | None) -> int | None:
        """The number of an image on the page; its small copy is made when it is first met."""
        if file is None:
            return None
        if file not in self.images:
            self.images[file] = beside(self.page, file)
            self._numbers[file] = len(self._numbers)
        return self._numbers[file]

    def _address(self, file: Path | None) -> list[str | int] | None:
        return None if file is None else self.images[file].to_json()

    def _write(self, *, full: bool) -> None:
        folder = make_folder(self.page.parent / FOLDER)
        rows = ",".join(self._open)
        write_text(folder / f"{self._part}.js", f'livePart({{"part":{self._part},"full":{str(full).lower()},"cells":[{rows}]}})\n')
        if full:
            self._open, self._part = [], self._part + 1


def end_live(page: Path) -> None:
    """Delete the parts: the page has all itself."""
    shutil.rmtree(page.parent / FOLDER, ignore_errors=True)
