"""Images of a quantised base: another base, with a key of its own, and adapters beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from infer.draw.files import read_adapters
from infer.draw.render import Render
from infer.draw.resolve import Resolver
from infer.draw.session import Counts, Session
from infer.grid.engine import loading
from infer.output.png import read_carried
from registry.errors import Faults
from registry.quantised.checks import compute_faults
from registry.quantised.products import set_compute
from tests.infer.conftest import Shelf
from tests.infer.draw.kinds import QUERY, write_kind
from tests.tiny import tiny_parts

pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # of diffusers' schedulers under numpy 2


def cell(**changes: Any) -> Render:
    given: dict[str, Any] = {"base": "tiny", "prompt": "a cat", "steps": 2, "sampler": "ddim", "seed": 3}
    return Render(**given | changes)


def drawn(shelf: Shelf, *renders: Render) -> tuple[list[str], Counts]:
    resolver, counts = Resolver(shelf.store), Counts()
    session = Session(resolver, [resolver.resolve(one) for one in renders], counts)
    return [read_carried(session.draw(number)[0]).pixels_sha256 for number in range(len(renders))], counts


@pytest.mark.slow
def test_the_images_are_others_and_an_adapter_acts_on_them(shelf: Shelf) -> None:
    ink = read_adapters("ink")
    (plain,), _ = drawn(shelf, cell())
    (bare, inked, again), counts = drawn(shelf, *(cell(base_dtype="nf4", adapters=one) for one in ((), ink, ())))
    assert len({plain, bare, inked}) == 3 and again == bare
    assert any("unet: 40 layers in nf4, relative weight error" in note for note in counts.notes)
    (words,), _ = drawn(shelf, cell(text_encoder_dtype="nf4"))
    assert words not in (plain, bare)


def test_the_key_has_the_dtypes_where_they_are_given_and_only_there(shelf: Shelf) -> None:
    resolver = Resolver(shelf.store)
    plain, base, text = (resolver.resolve(one) for one in (cell(), cell(base_dtype="nf4"), cell(text_encoder_dtype="int8")))
    assert not {"base_dtype", "text_encoder_dtype"} & plain.pinned().keys()
    assert base.pinned() == {**plain.pinned(), "base_dtype": "nf4"} and text.pinned() == {**plain.pinned(), "text_encoder_dtype": "int8"}
    assert len({loading(one) for one in (plain, base, text)}) == 3
    assert base.latents_key() != plain.latents_key()


def test_what_cannot_be_drawn_is_refused_by_name(shelf: Shelf, tmp_path: Path) -> None:
    resolver = Resolver(shelf.store)
    with pytest.raises(Faults, match=r"base_dtype is nf5\. Expected int8, fp8, nf4, nf4-dq"):
        resolver.resolve(cell(base_dtype="nf5"))
    layer = tiny_parts("sd1")[1].denoiser.down_blocks[0].attentions[0].transformer_blocks[0].attn1.to_q
    file = write_kind("lokr", {QUERY: tuple(layer.weight.shape)}, tmp_path / "lokr.safetensors")
    lokr = read_adapters(str(file))
    with pytest.raises(Faults, match="is drawn in the weights themselves, and here they are kept in nf4"):
        resolver.resolve(cell(base_dtype="nf4", adapters=lokr))
    assert resolver.resolve(cell(text_encoder_dtype="nf4", adapters=lokr)).active  # it changes the UNet alone


def test_a_device_without_fp8_is_refused() -> None:
    from registry.quantised.checks import device_faults

    assert device_faults({"base_dtype": "fp8"}, "cuda:1") == device_faults({"base_dtype": "int8"}, "mps") == []
    assert "base_dtype=fp8 needs torch.float8_e4m3fn, which mps has not" in device_faults({"base_dtype": "fp8"}, "mps")[0]
    assert torch.zeros(1).to(torch.float8_e4m3fn).view(torch.uint8).tolist() == [0]


INT8: dict[str, Any] = {"base_dtype": "int8", "compute": "int8"}


@pytest.mark.slow
def test_products_in_8_bits_draw_another_image(shelf: Shelf) -> None:
    resolver = Resolver(shelf.store)
    plain, swapped = resolver.resolve(cell(base_dtype="int8")), resolver.resolve(cell(swap_blocks=11, **INT8))
    by_hand = Session(resolver, [plain], Counts())
    assert set_compute(by_hand.parts.denoiser, "int8") == 40
    expected = read_carried(by_hand.draw(0)[0]).pixels_sha256
    ((before,), _), ((found,), _) = drawn(shelf, cell(base_dtype="int8")), drawn(shelf, cell(**INT8))
    assert before != expected and found == expected
    assert read_carried(Session(resolver, [swapped], Counts()).draw(0)[0]).pixels_sha256 == expected


def test_the_key_has_the_arithmetic_where_it_is_given_and_only_there(shelf: Shelf) -> None:
    resolver = Resolver(shelf.store)
    plain, actual = resolver.resolve(cell(base_dtype="int8")), resolver.resolve(cell(**INT8))
    assert "compute" not in plain.pinned() and actual.pinned() == {**plain.pinned(), "compute": "int8"}
    assert loading(plain) != loading(actual) and plain.latents_key() != actual.latents_key()


def test_arithmetic_that_the_base_or_the_device_has_not_is_refused(shelf: Shelf) -> None:
    resolver = Resolver(shelf.store)
    with pytest.raises(Faults, match=r"compute=int8 needs base_dtype=int8, which is nf4: products are of the weights as they are kept"):
        resolver.resolve(cell(base_dtype="nf4", compute="int8"))
    with pytest.raises(Faults, match=r"compute=fp8 needs base_dtype=fp8, which is not given"):
        resolver.resolve(cell(compute="fp8"))
    with pytest.raises(Faults, match=r"compute is int4\. Expected int8, fp8"):
        resolver.resolve(cell(base_dtype="int8", compute="int4"))
    (fault,) = compute_faults("int8", "int8", "meta")  # a device whose product is no number
    assert fault.startswith("compute=int8: meta has no products of int8 (")


@pytest.mark.slow
def test_what_a_call_makes_is_that_of_its_arithmetic(shelf: Shelf) -> None:
    from infer.budget.fit import drawing_of

    resolver = Resolver(shelf.store)
    values = {"base_dtype": "int8", "text_encoder_dtype": None, "swap_blocks": 0, "vae_tiling": None}
    plain, actual = (drawing_of([resolver.resolve(cell(**given))], resolver) for given in ({"base_dtype": "int8"}, INT8))
    assert plain.stages(values).forward != actual.stages(values).forward and plain.weights(values) == actual.weights(values)
