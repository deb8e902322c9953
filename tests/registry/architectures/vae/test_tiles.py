"""Tiled decoding: every cell is decoded, tiles overlap enough, and the result is nearer to the whole decoding than diffusers' own tiles."""

import itertools
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from registry.architectures.vae.tiles import OVERLAP, check_tile, decode_tiled, starts
from registry.errors import Refused
from registry.families import FAMILIES
from registry.parts import Parts
from tests.tiny import shared_folder, tiny_parts
from tests.tiny_families import builds

EVERY = sorted({"sd1", "sdxl", "flux1", *(name for name, _variant in builds())})


@pytest.mark.parametrize("cells", [8, 11, 64])
@pytest.mark.parametrize("length", [5, 8, 9, 15, 16, 17, 23, 64, 127, 300])
def test_tiles_cover_a_side_and_overlap_by_a_quarter(length: int, cells: int) -> None:
    found = starts(length, cells)
    assert found[0] == 0 and found[-1] == max(0, length - cells) and found == sorted(set(found))
    overlaps = [one + cells - other for one, other in itertools.pairwise(found)]
    assert all(overlap >= int(cells * OVERLAP) for overlap in overlaps)
    if len(found) > 1:  # one tile less would not do
        assert (len(found) - 2) * (cells - int(cells * OVERLAP)) < length - cells


def parts_of(factor: int) -> Parts:
    return SimpleNamespace(latent_factor=factor)  # type: ignore[return-value]  # all that tiles need of a model


@pytest.mark.parametrize(("height", "width"), [(16, 16), (8, 40), (37, 9), (23, 31)])
def test_a_decoder_that_sees_a_cell_alone_gives_the_same_pixels(height: int, width: int) -> None:
    seen = []

    def decode(parts: Parts, latents: Tensor) -> Tensor:
        seen.append(tuple(latents.shape[-2:]))
        return latents.repeat_interleave(parts.latent_factor, dim=-1).repeat_interleave(parts.latent_factor, dim=-2)

    latents = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(1))
    tiled = decode_tiled(decode, parts_of(4), latents, 32)
    assert torch.allclose(tiled, decode(parts_of(4), latents), atol=1e-6) and tiled.dtype == latents.dtype
    assert {max(shape) for shape in seen[:-1]} == {8}
    assert torch.equal(decode_tiled(decode, parts_of(4), latents[..., :8, :8], 32), decode(parts_of(4), latents[..., :8, :8]))


def test_it_is_nearer_to_the_whole_decoding_than_diffusers_tiles() -> None:
    family, parts = tiny_parts("sd1")
    side = 16 * parts.latent_factor
    latents = torch.randn(1, 4, 40, 44, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        whole = family.decode(parts, latents)
        own = decode_tiled(family.decode, parts, latents, side)
        parts.vae.enable_tiling()
        parts.vae.tile_sample_min_size, parts.vae.tile_latent_min_size = side, 16
        of_diffusers = family.decode(parts, latents)
    assert not torch.equal(of_diffusers, whole) and own.shape == whole.shape
    assert 0 < float((own - whole).abs().mean()) < float((of_diffusers - whole).abs().mean())


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY)
def test_every_family_is_decoded_in_tiles(name: str) -> None:
    family = FAMILIES[name]
    parts = family.load(shared_folder(name, **_variant(name)), dtype=torch.float32, device="meta")
    latents = torch.empty(1, family.channels(parts), 24, 18, device="meta")
    seen: list[Any] = []

    def decode(parts: Parts, latents: Tensor) -> Tensor:
        seen.append(latents.shape[-2:])
        return family.decode(parts, latents)

    with torch.no_grad():
        pixels = decode_tiled(decode, parts, latents, 8 * parts.latent_factor)
    assert pixels.shape == (1, 3, 24 * parts.latent_factor, 18 * parts.latent_factor) and set(seen) == {(8, 8)}


def _variant(name: str) -> dict[str, str]:
    """The first build of a family that has several."""
    first = next((variant for family, variant in builds() if family == name), "")
    return {"variant": first} if first and name not in ("sd1", "sdxl", "flux1") else {}


@pytest.mark.parametrize("side", [0, 8, 28, 33, -64])
def test_a_tile_that_cannot_be_is_refused(side: int) -> None:
    with pytest.raises(Refused, match=f"vae_tiling is {side}. Expected the side of a tile in pixels, a multiple of 4 from 32 on"):
        check_tile(parts_of(4), side)
    check_tile(parts_of(4), 36)
