"""Bytes of the tensors that a computation has at once: each is counted from its birth until nothing holds it."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's modes are untyped
    """While it is entered, `peak` is the most that was live at once of what is made under it; `known` storages are not counted."""

    def __init__(self, known: set[int] | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = 0
        self.peak = 0
        self._held = set(known or ())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        self.count_all(made)
        return made

    def count_all(self, made: object) -> None:
        """Count the tensors among what an operation has made."""
        for leaf in tree_leaves(made):
            if isinstance(leaf, torch.Tensor):
                self._count(leaf)

    def count_passing(self, size: int) -> None:
        """Count bytes that are taken beside all that is live, and given back at once."""
        self.peak = max(self.peak, self.live + size)

    def _count(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._held:
            return
        self._held.add(key)
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self._held.discard(key)
        self.live -= size
