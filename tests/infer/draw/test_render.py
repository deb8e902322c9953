"""A key is the image's: it follows contents and settings, never names, places or spellings."""

from dataclasses import replace
from hashlib import sha256

import pytest

from infer.draw.files import Adapter, ImageFile, spell_adapters
from infer.draw.render import Render
from infer.draw.values import number

INK = Adapter(reference="ink", weight=0.5, sha256="b" * 64)
HAT = Adapter(reference="hat", sha256="c" * 64)
RESOLVED = Render(
    base="pocket",
    base_sha256="a" * 64,
    adapters=(INK,),
    prompt="ein Apfel, „rot“",
    seed=7,
    steps=20,
    guidance=4,
    guided=True,
    width=64,
    height=96,
    versions=(("torch", "2.13.0"),),
)
CANONICAL = (
    '{"adapters":[["' + "b" * 64 + '",0.5]],"base":"' + "a" * 64 + '","base_config":null,"clip_skip":null,"device":"cpu",'
    '"guidance":4.0,"height":96,"loop":1,"negative":null,"precision":"fp32","prompt":"ein Apfel, „rot“",'
    '"sampler":null,"seed":7,"steps":20,"versions":{"torch":"2.13.0"},"width":64}'
)


def test_key_is_the_sha256_of_the_canonical_json() -> None:
    assert RESOLVED.key() == sha256(CANONICAL.encode()).hexdigest()
    assert RESOLVED.key() == "66f1ced0c656ef988f45378eece28e9df377342fbefa699f61e0fce1633e85b3"


@pytest.mark.parametrize(
    "change",
    [
        {"base": "/models/pocket"},
        {"adapters": (replace(INK, reference="/elsewhere/ink.safetensors"),)},
        {"adapters": (INK, replace(HAT, weight=0.0))},
        {"guidance": 4.0},
        {"clip_skip": 0},
        {"base_config": None},
    ],
)
def test_equal_images_have_one_key(change: dict[str, object]) -> None:
    assert replace(RESOLVED, **change).key() == RESOLVED.key()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change",
    [
        {"base_sha256": "d" * 64},
        {"adapters": (replace(INK, sha256="e" * 64),)},
        {"adapters": (replace(INK, weight=0.51),)},
        {"adapters": ()},
        {"prompt": "ein Apfel, „rot“ "},
        {"negative": ""},
        {"seed": 8},
        {"steps": 21},
        {"sampler": "ddim"},
        {"guidance": 4.1},
        {"width": 96, "height": 64},
        {"clip_skip": 1},
        {"precision": "bf16"},
        {"device": "cuda"},
        {"versions": (("torch", "2.14.0"),)},
    ],
)
def test_other_images_have_other_keys(change: dict[str, object]) -> None:
    assert replace(RESOLVED, **change).key() != RESOLVED.key()  # type: ignore[arg-type]


def test_the_order_of_adapters_and_the_number_of_the_gpu_do_not_count() -> None:
    one, other = replace(RESOLVED, adapters=(INK, HAT)), replace(RESOLVED, adapters=(HAT, INK))
    assert one.key() == other.key()
    assert [found.reference for found in one.active] == [found.reference for found in other.active] == ["ink", "hat"]
    assert replace(RESOLVED, device="cuda:1").key() == replace(RESOLVED, device="cuda:0").key()


def test_without_an_unconditional_pass_the_negative_prompt_does_not_count() -> None:
    unguided = replace(RESOLVED, guidance=1.0, guided=False)
    assert replace(unguided, negative="blurry").key() == unguided.key()
    assert replace(RESOLVED, negative="blurry").key() != RESOLVED.key()


def test_an_open_render_has_no_key() -> None:
    with pytest.raises(ValueError, match="base_sha256, steps, guidance, guided, width, height, sha256 of ink"):
        Render(base="pocket", adapters=(Adapter(reference="ink"),)).key()


def test_json_round_trip() -> None:
    full = replace(
        RESOLVED, adapters=(INK, HAT), negative="", clip_skip=1, sampler="euler", base_config="/configs", base_config_sha256="f" * 64
    )
    assert Render.from_json(full.to_json()) == full
    assert Render.from_json(full.to_json() | {"of_a_later_version": 1}) == full


def test_spelling() -> None:
    assert spell_adapters((INK, HAT)) == "ink:0.5+hat"
    assert spell_adapters(()) == "none"
    assert [number(value) for value in (1.0, 0.6, 1 / 3, -0.5)] == ["1", "0.6", "0.3333333333333333", "-0.5"]


def test_the_version_of_the_decoding_is_a_part_of_the_key_of_what_is_drawn_from_images(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = replace(RESOLVED, init=ImageFile(path="a.png", sha256="0" * 64), strength=0.5)
    before, plain = drawn.key(), RESOLVED.key()
    monkeypatch.setattr("registry.formats.image_file.VERSION", 99)
    assert replace(drawn).key() != before and replace(RESOLVED).key() == plain  # a Render computes its key once
