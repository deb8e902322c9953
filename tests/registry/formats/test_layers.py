"""The layers of every family under both their names: nothing is lost on the way to kohya's flat names and back."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from registry.architectures.transformer.flux_names import FLUX_LAYERS
from registry.families import FAMILIES
from registry.formats.layers import AdapterNames, Layer, Spellings, every, originals, same_names
from tests import tiny, tiny_families

NAMED = [name for name in (*tiny.FAMILIES_HERE, *tiny_families.NAMES) if name in FAMILIES and FAMILIES[name].adapter_names is not None]


def names_of(family: str) -> AdapterNames:
    names = FAMILIES[family].adapter_names
    assert names is not None
    return names


def layers_of(module: Any) -> list[str]:
    """The modules that a LoRA can be put on: linear layers and convolutions."""
    return [name for name, layer in module.named_modules() if type(layer).__name__ in ("Linear", "Conv2d", "LoRACompatibleLinear")]


def unet(**config: Any) -> Any:
    from accelerate import init_empty_weights
    from diffusers import UNet2DConditionModel

    with init_empty_weights():
        return UNet2DConditionModel(**config)


def sdxl_unet() -> Any:
    return unet(
        block_out_channels=(320, 640, 1280),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2, 10),
        cross_attention_dim=2048,
        attention_head_dim=(5, 10, 20),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
    )


@pytest.mark.parametrize("family", NAMED)
def test_every_layer_of_a_model_comes_back_from_its_flat_name(family: str) -> None:
    _, parts = tiny.tiny_parts(family)
    names = names_of(family)
    lost = []
    for module in layers_of(parts.denoiser):
        found = names.denoiser.find(module.replace(".", "_"))
        if found is None or found.part is None or found.layer.modules[found.part] != module:
            lost.append(module)
    assert not lost


@pytest.mark.parametrize("family", NAMED)
def test_no_two_layers_of_a_model_share_a_name(family: str) -> None:
    _, parts = tiny.tiny_parts(family)
    names = names_of(family)
    layers = {found.layer for module in layers_of(parts.denoiser) if (found := names.denoiser.find(module))}
    flat = [layer.original.replace(".", "_") for layer in layers]
    assert len(set(flat)) == len(flat)
    for layer in layers:
        found = names.denoiser.find(layer.original.replace(".", "_"))
        assert found is not None and found.layer == layer


def test_text_encoders_are_named_with_and_without_the_outer_name() -> None:
    _, parts = tiny.tiny_parts("sdxl")
    for component in ("text_encoder", "text_encoder_2"):
        for module in layers_of(parts.text_encoders[component]):
            inner = module if module == "text_projection" else f"text_model.{module.removeprefix('text_model.')}"
            found = names_of("sdxl").text.find(inner.replace(".", "_"))
            assert found is not None and found.layer.original == inner


def test_sdxl_has_the_names_that_sd_scripts_writes() -> None:
    names = names_of("sdxl")
    modules = layers_of(sdxl_unet())
    originals_of = {module: found.layer.original for module in modules if (found := names.denoiser.find(module))}
    assert set(originals_of) == set(modules)
    assert originals_of["down_blocks.1.attentions.0.transformer_blocks.1.attn2.to_k"] == "input_blocks.4.1.transformer_blocks.1.attn2.to_k"
    assert originals_of["up_blocks.0.upsamplers.0.conv"] == "output_blocks.2.2.conv"
    assert originals_of["down_blocks.1.resnets.0.time_emb_proj"] == "input_blocks.4.0.emb_layers.1"
    assert originals_of["mid_block.attentions.0.proj_in"] == "middle_block.1.proj_in"
    assert originals_of["add_embedding.linear_1"] == "label_emb.0.0"
    assert len(set(originals_of.values())) == len(modules)


def test_only_the_published_widths_give_sdxl_its_original_names() -> None:
    is_published = names_of("sdxl").original
    assert is_published is not None
    assert is_published({"down_blocks.1.attentions.0.proj_in": 640, "mid_block.attentions.0.transformer_blocks.0.attn1.to_q": 1280})
    assert not is_published({"down_blocks.1.attentions.0.proj_in": 640, "mid_block.attentions.0.transformer_blocks.0.attn1.to_q": 640})
    assert not is_published({"down_blocks.1.resnets.0.conv1": 320})  # says nothing of the blocks


def test_a_fused_layer_is_found_whole_and_by_its_parts() -> None:
    spellings = Spellings(FLUX_LAYERS)
    whole = spellings.find("single_blocks_7_linear1")
    assert whole is not None and whole.part is None
    assert whole.layer.modules[3] == "single_transformer_blocks.7.proj_mlp"
    assert whole.layer.rows(3072) == (3072, 3072, 3072, 12288)
    part = spellings.find("single_transformer_blocks.7.attn.to_k")
    assert part is not None and (part.layer, part.part) == (whole.layer, 1)
    assert spellings.find("double_blocks.7.img_attn.nothing") is None


def test_rows_may_be_shares_of_the_input() -> None:
    layer = Layer("layers.*.attention.qkv", every("layers.*.attn.", ("to_q", "to_k", "to_v")), widths=(1, Fraction(1, 3), Fraction(1, 3)))
    assert layer.rows(2304) == (2304, 768, 768)


def test_originals_are_those_that_a_model_has() -> None:
    layers = (*same_names("blocks.*.ff"), Layer("deep.*.qkv", every("blocks.*.", ("q", "k", "v"))))
    found = originals(layers, ["blocks.0.ff", "blocks.1.q", "blocks.1.k", "other.3"])
    assert {name: layer.modules for name, layer in found.items()} == {
        "blocks.0.ff": ("blocks.0.ff",),
        "deep.1.qkv": ("blocks.1.q", "blocks.1.k", "blocks.1.v"),
    }


def test_halves_may_be_swapped_in_layers_of_one_height_only() -> None:
    """SD3's last block scales and shifts only, and in the other order than norms elsewhere."""
    always, last = Layer("a.*", ("b.*",), swapped=True), Layer("a.*", ("b.*",), swapped=True, swapped_height=2)
    assert always.swaps(64, 32) and always.swaps(192, 32)
    assert last.swaps(64, 32) and not last.swaps(192, 32)
    assert last.numbered(["3"]) == Layer("a.3", ("b.3",), swapped=True, swapped_height=2)
    assert not Layer("a", ("b",)).swaps(64, 32)
