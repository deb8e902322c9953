"""preview.vae_tiling: the same latents, decoded in tiles; nothing of what is learned changes."""

from collections.abc import Callable
from typing import Any

import numpy
import pytest
from numpy.typing import NDArray

from registry.errors import Refused
from registry.store import Store
from train.config import PreviewConfig, TrainConfig
from train.run import plan

Settings = Callable[..., TrainConfig]
Prepared = Callable[[TrainConfig], Any]


def preview(tile: int | None) -> PreviewConfig:
    return PreviewConfig(prompts=["a disc"], steps=2, vae_tiling=tile)


def drawn(prepared: Prepared, config: TrainConfig) -> NDArray[numpy.int_]:
    work = prepared(config)
    sides: list[int] = []
    work.state.parts.vae.decoder.register_forward_pre_hook(lambda _module, given: sides.append(given[0].shape[-1]))
    with work.state.evaluating():
        images = work.previews.images(work.state)
    tile = config.preview.vae_tiling
    assert {side * work.state.parts.latent_factor for side in sides} == {tile or config.resolution}
    return numpy.asarray(images[0], dtype=int)


@pytest.mark.slow
def test_previews_are_decoded_in_tiles(prepared: Prepared, settings: Settings) -> None:
    whole, tiled = (drawn(prepared, settings(resolution=64, preview=preview(tile))) for tile in (None, 32))
    assert 0 < abs(whole - tiled).mean() < 20 and whole.shape == tiled.shape


def test_a_tile_that_cannot_be_is_refused_by_its_name(settings: Settings, store: Store) -> None:
    with pytest.raises(Refused, match=r"preview\.vae_tiling is 33\. Expected the side of a tile in pixels, a multiple of"):
        plan(settings(preview=preview(33)), store)


def test_the_plan_says_so(settings: Settings, store: Store) -> None:
    shown = plan(settings(resolution=64, preview=preview(32)), store).to_text()
    assert "at guidance" in shown and "decoded in tiles of 32 pixels" in shown
