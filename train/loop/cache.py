"""Encoded images and prompts on disk, each under a key of everything that its value depends on, with a digest of what was written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from registry.files.write_failure import make_folder
from registry.formats.atomic_file import write_safetensors
from registry.home import home_dir

if TYPE_CHECKING:
    from blake3 import blake3
    from torch import Tensor

DIGEST = "loraloom.digest"  # in an entry's header: blake3 of its key and its tensors
Note = Callable[[str], None]


class Damaged(Exception):
    """An entry that is not what was written."""


class Cache:
    """Tensors under content keys, one file each, written whole. A damaged entry is made again, with a note."""

    def __init__(self, kind: str, *, root: Path | None = None, note: Note | None = None) -> None:
        self.folder = (root or home_dir() / "cache") / kind
        self._note = note

    def path(self, key: str) -> Path:
        """The file of a key."""
        return self.folder / key[:2] / f"{key}.safetensors"

    def get(self, key: str) -> dict[str, Tensor] | None:
        """The tensors of a key; None where there are none, or none that could be trusted."""
        path = self.path(key)
        try:
            return _read(path, key)
        except FileNotFoundError:
            return None
        except Damaged as error:
            if self._note:
                self._note(f"the cached {self.folder.name} in {path} are made again: {error}")
            return None

    def put(self, key: str, tensors: Mapping[str, Tensor]) -> None:
        """Keep the tensors under a key."""
        make_folder(self.path(key).parent)
        write_safetensors(self.path(key), tensors, metadata={DIGEST: digest_of(key, tensors)})

    def or_make(self, key: str, make: Callable[[], dict[str, Tensor]]) -> tuple[dict[str, Tensor], bool]:
        """(the tensors, whether they had to be made)."""
        kept = self.get(key)
        if kept is not None:
            return kept, False
        made = make()
        self.put(key, made)
        return made, True


def _read(path: Path, key: str) -> dict[str, Tensor]:
    """The tensors of an entry. Raises FileNotFoundError, Damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            digest = (file.metadata() or {}).get(DIGEST)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping, it has keys() alone
    except FileNotFoundError:
        raise
    except SafetensorError as error:
        raise Damaged(f"the file is damaged ({error})") from error
    except OSError as error:
        raise Damaged(f"the file cannot be read ({error})") from error
    if digest is None:
        raise Damaged("an earlier version of loraloom wrote them without a digest")
    if digest != digest_of(key, tensors):
        raise Damaged("the file is damaged, its digest is another one")
    return tensors


def digest_of(key: str, tensors: Mapping[str, Tensor]) -> str:
    """blake3 of the key and the tensors."""
    from blake3 import blake3

    digest = blake3(key.encode())
    add_tensors(digest, tensors)
    return digest.hexdigest()


def add_tensors(digest: blake3, tensors: Mapping[str, Tensor]) -> None:
    """Add every tensor's name, dtype, shape and bytes to the digest, sorted by name."""
    import torch

    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(memoryview(flat.view(torch.uint8).numpy()))  # type: ignore[arg-type]  # numpy arrays are buffers
