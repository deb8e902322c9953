"""What the Renders of a session still need, so that each file is let go after its last use whatever order they are done in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from infer.hires.passes import passes_of

if TYPE_CHECKING:
    from infer.draw.render import Render


class Uses:
    """How many Renders still need each adapter, VAE, ControlNet and latents: each Render counts until it is released."""

    def __init__(self, renders: Sequence[Render]) -> None:
        self._renders = renders
        self._released: set[int] = set()
        self.adapters = Counter((one.sha256, one.blocks) for render in renders for one in render.active)
        self.nets = Counter(one.sha256 for render in renders for one in render.steering)
        self.vaes = Counter(render.vae_sha256 for render in renders)
        self.latents = Counter(one.key for render in renders for one in passes_of(render))

    def release(self, index: int) -> None:
        """The Render at `index` needs nothing any more; a second time changes nothing."""
        if index in self._released:
            return
        self._released.add(index)
        render = self._renders[index]
        self.adapters.subtract((one.sha256, one.blocks) for one in render.active)
        self.nets.subtract(one.sha256 for one in render.steering)
        self.vaes[render.vae_sha256] -= 1
        self.latents.subtract(one.key for one in passes_of(render))
