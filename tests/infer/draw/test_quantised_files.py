"""Images of bases that are quantised in their files: those of the same weights, with adapters beside and in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from infer.draw.files import read_adapters
from infer.draw.render import Render
from infer.draw.resolve import Resolver
from registry.errors import Faults
from tests.infer.conftest import Shelf
from tests.infer.draw.kinds import QUERY, write_kind
from tests.infer.draw.test_quantised import drawn
from tests.quantised_files import gguf_file, quantised_file
from tests.tiny import shared_folder, tiny_parts, tiny_single_file

pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # of diffusers' schedulers under numpy 2


def cell(base: Path, **changes: Any) -> Render:
    given: dict[str, Any] = {"base": str(base), "base_config": str(shared_folder("sd1")), "prompt": "a cat", "steps": 2, "sampler": "ddim"}
    return Render(**given | changes)


@pytest.mark.slow
def test_adapters_beside_and_in_the_weights(shelf: Shelf, tmp_path: Path) -> None:
    source = tiny_single_file(shared_folder("sd1"), tmp_path / "sd1.safetensors")
    plain, wide = quantised_file(source, tmp_path / "plain.safetensors", "plain", prefix="model.diffusion_model.")
    scaled, _ = quantised_file(source, tmp_path / "scaled.safetensors", "comfy_new", prefix="model.diffusion_model.")
    layer = tiny_parts("sd1")[1].denoiser.down_blocks[0].attentions[0].transformer_blocks[0].attn1.to_q
    lokr = read_adapters(str(write_kind("lokr", {QUERY: tuple(layer.weight.shape)}, tmp_path / "lokr.safetensors")))
    ink = read_adapters("ink")
    found, expected = (drawn(shelf, *(cell(base, adapters=one) for one in ((), ink, lokr, ())))[0] for base in (plain, wide))
    assert found == expected and len(set(found)) == 3 and found[0] == found[3]
    resolver = Resolver(shelf.store)
    assert resolver.resolve(cell(scaled, adapters=ink)).active
    with pytest.raises(Faults, match="is drawn in the weights themselves, and here they are kept in fp8 scaled"):
        resolver.resolve(cell(scaled, adapters=lokr))
    with pytest.raises(Faults, match=r"base_dtype is given, but the unet is quantised in its file \(48 weights in fp8 scaled\)"):
        resolver.resolve(cell(scaled, base_dtype="nf4"))


@pytest.mark.slow
@pytest.mark.parametrize("form", ["nf4_double", "GGUF"])
def test_the_images_are_those_of_the_weights_in_full_with_and_without_an_adapter(form: str, shelf: Shelf, tmp_path: Path) -> None:
    source, prefix = tiny_single_file(shared_folder("sd1"), tmp_path / "sd1.safetensors"), "model.diffusion_model."
    if form == "GGUF":
        pair = gguf_file(source, tmp_path / "x.gguf", "Q5_1", prefix=prefix, architecture="sd1")
    else:
        pair = quantised_file(source, tmp_path / "x.safetensors", form, prefix=prefix)
    ink = read_adapters("ink")
    found, expected = (drawn(shelf, *(cell(base, adapters=one) for one in ((), ink)))[0] for base in pair)
    assert len(set(found)) == 2 and found == expected
