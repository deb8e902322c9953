"""Final latents by their key: all of a Render but what acts after them, so that another VAE, or tiles, decode what was denoised before.

`<home>/latents/<two digits>/<latents key>.safetensors`: the exact numbers, in their own dtype and memory layout (a convolution is chosen
by it). A file is whole when the sha256 of its numbers and layout is the one in its header; the oldest go where they would take too much.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from registry.budget.text import bytes_of
from registry.errors import LoomError, Refused
from registry.files.locks import held
from registry.files.write_failure import make_folder
from registry.formats.atomic_file import atomic_file

if TYPE_CHECKING:
    import torch
    from torch import Tensor

LOG = logging.getLogger(__name__)

NAME = "latents"  # of the folder in the home, and of the tensor in a file
FILE = re.compile(r"[0-9a-f]{64}\.safetensors")
LEFT = 0.9  # of the most that they may take, once the oldest have gone: not one by one


class LatentsError(LoomError):
    """Kept latents are damaged; the message is the reason."""


def read_keep_latents(text: str) -> int:
    """Bytes that kept latents may take; 0: none are kept. Raises Refused."""
    found = 0 if text.strip() == "0" else bytes_of(text)
    if found is None:
        raise Refused(f"keep_latents is {text!r}. Expected a size with its unit, such as 2GiB or 500MB, or 0: none are kept.")
    return found


def latents_of(home: Path, keep_latents: str) -> LatentsStore | None:
    """The latents of a home under that setting; None where none are kept."""
    most = read_keep_latents(keep_latents)
    return LatentsStore(home / NAME, most=most) if most else None


class LatentsStore:
    """Latents by `Render.latents_key()`, `most` bytes of them."""

    def __init__(self, folder: Path, *, most: int) -> None:
        self.folder = folder
        self._most = most
        self._bytes: int | None = None  # that are there, with what was put since they were counted

    def has(self, key: str) -> bool:
        """Whether they are there, not yet checked."""
        return self._path(key).is_file()

    def get(self, key: str, device: torch.device) -> Tensor | None:
        """The latents (1, C, H, W) as they were drawn; None when they are not there. Raises LatentsError when they are damaged."""
        import torch
        from safetensors import safe_open

        path = self._path(key)
        try:
            if not path.is_file():
                return None
            with safe_open(path, "pt") as file:
                metadata, flat = file.metadata() or {}, file.get_tensor(NAME)
            strides = json.loads(metadata["strides"])
            if _digest(key, flat, strides) != metadata["sha256"]:
                raise ValueError("its numbers are not those that were written under this name")
            os.utime(path)  # the last used go last
        except OSError as error:
            LOG.debug("%s is not read: %s", path, error)
            return None
        except Exception as error:  # safetensors has an error of its own
            raise LatentsError(f"{path} cannot be read ({error})") from error
        return torch.empty_strided(flat.shape, strides, dtype=flat.dtype, device=device).copy_(flat)

    def put(self, key: str, latents: Tensor) -> None:
        """Keep latents (1, C, H, W) unless they hold a NaN; where they are too many, the last used stay. Raises WriteFailed."""
        from safetensors.torch import save

        strides, flat = list(latents.stride()), latents.detach().cpu().contiguous()
        overlap = any(stride == 0 and side > 1 for stride, side in zip(strides, latents.shape, strict=True))
        if overlap or not bool(flat.isfinite().all()):
            return
        data = save({NAME: flat}, {"sha256": _digest(key, flat, strides), "strides": json.dumps(strides)})
        if len(data) > self._most:
            return
        make_folder(self._path(key).parent)
        with atomic_file(self._path(key), needed=len(data)) as file:
            file.write(data)
        self._bytes = self._taken() if self._bytes is None else self._bytes + len(data)
        if self._bytes > self._most:
            self._bytes = self._prune()

    def kept(self) -> AbstractContextManager[None]:
        """Holds the latents while a grid is drawn: `registry gc --caches` leaves them."""
        return held(self.folder, shared=True)

    def _taken(self) -> int:
        return sum(size for _, size, _ in self._files())

    def _prune(self) -> int:
        """Delete the oldest; gives the bytes that are left. Other processes may do the same at once."""
        files = sorted(self._files())
        left = sum(size for _, size, _ in files)
        for _, size, path in files:
            if left <= LEFT * self._most:
                break
            path.unlink(missing_ok=True)
            left -= size
        return left

    def _files(self) -> Iterator[tuple[int, int, Path]]:
        """(last use, bytes, path) of each file."""
        for path in self.folder.glob("*/*.safetensors"):
            try:
                stat = path.stat()
            except OSError:
                continue  # deleted since it was listed
            if FILE.fullmatch(path.name):
                yield stat.st_mtime_ns, stat.st_size, path

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.safetensors"


def _digest(key: str, flat: Tensor, strides: list[int]) -> str:
    """sha256 of contiguous numbers, of the key that they belong to, and of the layout that they are put back in."""
    import torch

    digest = sha256(json.dumps([key, str(flat.dtype), list(flat.shape), strides]).encode())
    digest.update(memoryview(flat.reshape(-1).view(torch.uint8).numpy()))  # type: ignore[arg-type]  # numpy arrays are buffers
    return digest.hexdigest()
