"""The cell store: drawn images by the key of their Render. A grid that is run again draws only what is missing.

`<home>/cells/<two digits>/<key>.png` and beside it `<key>.json`, which is written last: a cell is there when both are, and
whole when the image's hash is the one the JSON names. A kill at any moment leaves cells that are there or not.
"""

from collections.abc import Hashable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from infer.draw.render import Render
from registry.errors import LoomError
from registry.files.locks import held, locked_while_it_lasts
from registry.files.write_failure import make_folder
from registry.formats.atomic_file import atomic_file, write_json
from registry.home import home_dir
from registry.plain_values import from_json

CLAIMS = "claims"  # of several cells at once, by what they have in common


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A cell of the store: the PNG's bytes, and the time and denoiser calls it took."""

    key: str
    png: bytes
    path: Path
    seconds: float
    forwards: int
    render: Mapping[str, Any]
    process: int | None = None  # that has drawn it, of those of one launch


class CellError(LoomError):
    """A stored cell is damaged; the message is the reason."""


class CellStore:
    """Images by the key of their Render."""

    def __init__(self, folder: Path | None = None, *, process: int | None = None) -> None:
        """`process`: which one of several this is, kept beside the cells that it draws."""
        self.process = process
        self.folder = folder if folder is not None else home_dir() / "cells"

    def has(self, key: str) -> bool:
        """Whether the cell is there, its image not yet checked."""
        return self._json(key).is_file() and self._png(key).is_file()

    def get(self, key: str) -> Stored | None:
        """The cell, or None when it is not there. Raises CellError when it is damaged."""
        try:
            entry = from_json(self._json(key).read_bytes())
            png = self._png(key).read_bytes()
            values = {name: entry[name] for name in ("png_sha256", "seconds", "forwards", "render")}
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise CellError(f"{self._json(key)} cannot be read ({error})") from error
        if sha256(png).hexdigest() != values.pop("png_sha256"):
            raise CellError(f"{self._png(key)} is not the image that was written")
        return Stored(key=key, png=png, path=self._png(key), process=entry.get("process"), **values)

    def put(self, render: Render, png: bytes, *, seconds: float, forwards: int) -> Stored:
        """Keep an image under its Render's key: the PNG first, then the JSON that makes it valid."""
        key = render.key()
        make_folder(self._png(key).parent)
        with atomic_file(self._png(key), needed=len(png)) as file:
            file.write(png)
        entry: dict[str, Any] = {"key": key, "png_sha256": sha256(png).hexdigest(), "seconds": round(seconds, 4), "forwards": forwards}
        entry |= {} if self.process is None else {"process": self.process}
        entry["render"] = plain = render.to_json()
        write_json(self._json(key), entry)
        return Stored(key=key, png=png, path=self._png(key), seconds=seconds, forwards=forwards, render=plain, process=self.process)

    def kept(self) -> AbstractContextManager[None]:
        """Holds the cells while a grid is drawn: `registry gc --caches` leaves them."""
        return held(self.folder, shared=True)

    @contextmanager
    def alone(self, key: str, *, wait: bool) -> Iterator[bool]:
        """Whether this process may draw the cell: no other one does. Where no lock can be made, each draws for itself."""
        with ExitStack() as stack:
            try:
                self._png(key).parent.mkdir(parents=True, exist_ok=True)
                granted = stack.enter_context(locked_while_it_lasts(self._png(key).with_suffix(".lock"), wait=wait))
            except OSError:  # a full or read-only disk; the cell's own fault follows when it is kept
                granted = True
            yield granted

    @contextmanager
    def claimed(self, kind: str, what: Hashable) -> Iterator[bool]:
        """Whether this process may draw all cells of a kind: no other one has claimed them. Cells are claimed one by one beside it."""
        name = sha256(f"{kind} {what}".encode()).hexdigest()
        with ExitStack() as stack:
            try:
                (self.folder / CLAIMS).mkdir(parents=True, exist_ok=True)
                granted = stack.enter_context(locked_while_it_lasts(self.folder / CLAIMS / f"{name}.lock", wait=False))
            except OSError:
                granted = True
            yield granted

    def is_free(self, key: str) -> bool:
        """Whether the cell is not there, and no process draws it at the moment."""
        if self.has(key):
            return False
        with self.alone(key, wait=False) as mine:
            return mine

    def seconds_a_forward(self, like: Render, *, most: int = 200) -> float | None:
        """Seconds a denoiser call has taken for cells like this one (base, size, guided or not, device); None where none is known.

        Reads at most `most` entries, the newest: an estimate, not an account.
        """
        wanted = ("base_sha256", "width", "height", "precision", "device", "guided")
        entries = sorted(self.folder.glob("*/*.json"), key=_written, reverse=True)[:most]
        found: list[float] = []
        second = None if like.hires is None else _second_pass(asdict(like.hires))
        for path in entries:
            try:
                entry = from_json(path.read_bytes())
                alike = all(entry["render"][name] == getattr(like, name) for name in wanted)
                alike = alike and entry["render"].get("base_dtype") == like.base_dtype  # entries of before have none
                alike = alike and entry["render"].get("compute") == like.compute
                alike = alike and entry["render"].get("shared", False) == like.shared
                alike = alike and _second_pass(entry["render"].get("hires")) == second
                if alike and entry["forwards"]:
                    found.append(entry["seconds"] / entry["forwards"])
            except (OSError, ValueError, KeyError, TypeError, ArithmeticError):
                continue  # a damaged entry has no time; it is reported when its own cell is wanted
        return sorted(found)[len(found) // 2] if found else None

    def _png(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.png"

    def _json(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"


def _second_pass(hires: Mapping[str, Any] | None) -> list[Any] | None:
    """What the time of a denoiser call depends on of a second pass, whose calls are larger ones."""
    return None if hires is None else [hires[name] for name in ("width", "steps", "upscaler")]


def _written(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0  # deleted since it was listed
