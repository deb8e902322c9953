"""What happens to each key, decided from headers alone: layouts are made in memory, and no file is opened."""

from pathlib import Path
from typing import Any

import pytest

from registry.formats.safetensors_header import TensorInfo
from registry.merging.keys import Keys, plan_keys
from registry.merging.methods import METHODS
from registry.tensors.layout import Layout, Stored, quantised
from tests.registry.merging.models import recipe

OUT, VAE = "model.diffusion_model.out.2.weight", "first_stage_model.decoder.conv_in.weight"
Headers = dict[str, tuple[str, tuple[int, ...]]]


def layout(name: str, headers: Headers) -> Layout:
    stored = {key: Stored(Path(name), 0, TensorInfo(dtype, shape)) for key, (dtype, shape) in headers.items()}
    return Layout(path=Path(name), is_folder=False, diffusers=False, tensors=stored, files=())


def keys_of(*headers: Headers, method: str = "weighted_sum", **settings: Any) -> Keys:
    layouts = [layout(f"{letter}.safetensors", one) for letter, one in zip("abc", headers, strict=False)]
    return plan_keys(recipe(*(one.path for one in layouts), method=method, **settings), METHODS[method], layouts)


def floats(*names: str, dtype: str = "F32", shape: tuple[int, ...] = (2, 3)) -> Headers:
    return dict.fromkeys(names, (dtype, shape))


def test_a_key_of_both_sources_is_merged_with_the_options_of_the_recipe() -> None:
    key = keys_of(floats(OUT), floats(OUT), params={"alpha": 0.3}).keys[OUT]
    assert key.merged and key.options == {"alpha": 0.3}
    assert [source.file.name for source in key.sources] == ["a.safetensors", "b.safetensors"]


def test_integers_and_empty_tensors_are_copied() -> None:
    headers = floats(OUT) | floats("position_ids", dtype="I64") | floats("v_pred", shape=(0,))
    keys = keys_of(headers, headers)
    assert keys.reasons() == {"integer": 1, "empty": 1}
    assert keys.counts() == {"merged": 1, "copied": 2, "skipped": 0}


def test_components_that_are_not_named_are_copied() -> None:
    keys = keys_of(floats(OUT, VAE), floats(OUT, VAE), components=["denoiser"])
    assert {name: key.copied for name, key in keys.keys.items()} == {OUT: None, VAE: "component"}


def test_an_unknown_component_is_a_fault_that_lists_those_there_are() -> None:
    (fault,) = keys_of(floats(OUT), floats(OUT), components=["denoiser", "vae"]).faults
    assert fault == "components: the first source has no vae; it has denoiser."


def test_a_key_that_one_source_lacks_is_a_fault() -> None:
    (fault,) = keys_of(floats(OUT, VAE), floats(OUT)).faults
    assert fault.startswith(f"source 2 (b.safetensors) lacks 1 of the first source's 2 keys: {VAE}.")


def test_missing_first_copies_what_another_lacks_and_leaves_out_what_the_first_lacks() -> None:
    keys = keys_of(floats(OUT, VAE), floats(OUT, "extra.weight"), missing="first")
    assert keys.keys[VAE].copied == "only the first source has it"
    assert (keys.extra, keys.faults) == (["extra.weight"], [])


def test_different_shapes_are_a_fault_unless_the_recipe_decides() -> None:
    sources = floats(OUT, VAE), floats(OUT, shape=(4, 2)) | floats(VAE)
    assert keys_of(*sources).faults[0].startswith(f"{OUT} has different shapes: [2, 3] and [4, 2].")
    assert keys_of(*sources, mismatch="first").keys[OUT].copied == "shape"
    assert keys_of(*sources, mismatch="overlap").keys[OUT].shared == (2, 2)


def test_the_first_rule_that_matches_decides() -> None:
    rules = [{"match": "out", "alpha": 0.9}, {"match": "diffusion_model|first_stage", "alpha": 0.1}]
    keys = keys_of(floats(OUT, VAE), floats(OUT, VAE), params={"alpha": 0.5}, rules=rules)
    assert {name: key.options["alpha"] for name, key in keys.keys.items()} == {OUT: 0.9, VAE: 0.1}
    assert keys.hits == [1, 1]


def test_a_rule_takes_a_key_from_a_source_or_drops_it() -> None:
    rules = [{"match": "^first_stage", "drop": True}, {"match": "extra", "take": 2}]
    keys = keys_of(floats(OUT, VAE), floats(OUT, VAE, "extra.weight"), rules=rules)
    assert (keys.dropped, keys.faults) == ([VAE], [])
    assert keys.keys["extra.weight"].sources[0].file.name == "b.safetensors"


def test_rules_without_effect_are_faults() -> None:
    rules: list[dict[str, Any]] = [{"match": "diffusion"}, {"match": "out"}, {"match": "nothing"}, {"match": "neither", "optional": True}]
    faults = keys_of(floats(OUT), floats(OUT), rules=[{**rule, "alpha": 0.1} for rule in rules]).faults
    assert len(faults) == 2
    assert faults[0].startswith("rule 2 (out) is shadowed")
    assert faults[1].startswith("rule 3 (nothing) matches no key.")


def test_the_dtype_of_the_result_is_the_recipes_or_the_first_sources() -> None:
    sources = floats(OUT, dtype="F16"), floats(OUT)
    assert keys_of(*sources).keys[OUT].out.dtype == "F16"
    assert keys_of(*sources, dtype="bf16").keys[OUT].out.dtype == "BF16"


def test_a_merge_of_nothing_is_a_fault() -> None:
    (fault,) = keys_of(floats("count", dtype="I64"), floats("count", dtype="I64")).faults
    assert fault.startswith("nothing would be merged")


def test_an_integer_tensor_in_a_later_source_is_a_fault() -> None:
    (fault,) = keys_of(floats(OUT), floats(OUT, dtype="I64")).faults
    assert fault == f"{OUT} is F32 in the first source and I64 in b.safetensors; only floating numbers are merged."


def test_shapes_of_different_numbers_of_axes_do_not_overlap() -> None:
    (fault,) = keys_of(floats(OUT), floats(OUT, shape=(6,)), mismatch="overlap").faults
    assert fault.startswith(f"{OUT} has different numbers of axes: [2, 3] and [6].")


def test_a_rule_that_takes_from_a_source_that_is_not_there_is_a_fault() -> None:
    faults = keys_of(floats(OUT), floats(OUT), rules=[{"match": "out", "take": 3}]).faults
    assert "rule 1 takes source 3; there are 2." in faults


IDS = "cond_stage_model.transformer.text_model.embeddings.position_ids"


@pytest.mark.parametrize(
    ("dtypes", "source", "stored"),
    [
        (("F16", "F16"), "a", "F16"),
        (("F16", "I64"), "b", "I64"),
        (("I64", "F16"), "a", "I64"),
        ((None, "I64"), "b", "I64"),
        (("I64", None), "a", "I64"),
    ],
)
def test_position_ids_are_never_merged(dtypes: tuple[str | None, ...], source: str, stored: str) -> None:
    headers = [floats(OUT) | (floats(IDS, dtype=dtype) if dtype else {}) for dtype in dtypes]
    keys = keys_of(*headers, dtype="bf16")
    assert not keys.faults and keys.keys[IDS].copied
    assert (keys.keys[IDS].sources[0].file.name, keys.keys[IDS].out.dtype) == (f"{source}.safetensors", stored)
    assert bool(keys.notes) == (dtypes in (("F16", "F16"), (None, "I64"), ("I64", None)))


def test_positions_of_another_length_are_not_taken() -> None:
    keys = keys_of(floats(OUT) | floats(IDS, shape=(1, 77)), floats(OUT) | floats(IDS, dtype="I64", shape=(1, 248)))
    assert (keys.keys[IDS].sources[0].file.name, keys.keys[IDS].out.shape) == ("a.safetensors", (1, 77))
    assert any("has floating numbers" in note for note in keys.notes)


def test_harmless_keys_are_noted_and_the_rest_is_still_a_fault() -> None:
    later = floats(OUT) | floats("model_ema.decay", shape=()) | floats("embedding_manager.words") | floats("ztsnr", shape=(0,))
    keys = keys_of(floats(OUT), later)
    assert not keys.faults and set(keys.keys) == {OUT, "ztsnr"}
    assert any("model_ema.decay, embedding_manager.words: left out" in note for note in keys.notes)
    assert len(keys_of(floats(OUT), later | floats("stranger.weight")).faults) == 1


@pytest.mark.parametrize(("number", "blocks"), [(12, 25), (9, 19)])
def test_a_list_with_base_first_is_read(number: int, blocks: int) -> None:
    names = [f"model.diffusion_model.{side}_blocks.{block}.0.weight" for side in ("input", "output") for block in range(number)]
    headers = floats(*names, "model.diffusion_model.middle_block.0.weight", VAE)
    weights = [0.9, *(index / 100 for index in range(blocks))]
    keys = keys_of(headers, headers, weights=weights)
    assert not keys.faults
    assert keys.keys[VAE].options["alpha"] == 0.9
    assert keys.keys["model.diffusion_model.input_blocks.1.0.weight"].options["alpha"] == 0.01
    assert keys.keys["model.diffusion_model.middle_block.0.weight"].options["alpha"] == number / 100
    assert keys.keys[f"model.diffusion_model.output_blocks.{number - 1}.0.weight"].options["alpha"] == (blocks - 1) / 100
    assert any("is BASE" in note for note in keys.notes)
    assert "is params.alpha (0.5): give one" in keys_of(headers, headers, weights=weights, params={"alpha": 0.5}).faults[0]
    assert f"{blocks + 1} begin with BASE" in keys_of(headers, headers, weights=weights[:-2]).faults[0]


@pytest.mark.parametrize("scale", ["weight_scale_inv", "weight.scale", "scale", "weight_scale", "gain"])
def test_an_fp8_tensor_with_a_scale_of_any_name_is_quantised(scale: str) -> None:
    weight = "model.diffusion_model.out.2"
    headers = floats(f"{weight}.weight", dtype="F8_E4M3") | floats(f"{weight}.bias", shape=(1,))
    assert quantised(layout("a", headers).tensors) is None
    assert quantised(layout("a", headers | floats(f"{weight}.{scale}", shape=(1,))).tensors) == f"{weight}.{scale}"
    assert quantised(layout("a", floats(f"{weight}.weight", dtype="F16") | floats(f"{weight}.gain", shape=(1,))).tensors) is None
