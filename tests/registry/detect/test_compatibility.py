"""Fit by modules and shapes, against the very base: folders and single files, every spelling of a module's name."""

from pathlib import Path

import pytest
import torch

from registry.detect.inspect import fits
from registry.errors import BadFile
from tests.registry.made import Shapes, diffusers_folder, lora, model, sd1_attention


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return diffusers_folder(tmp_path / "small")


def ldm(path: Path, width: int = 128, channels: int = 48) -> Path:
    """A single file with the modules of `diffusers_folder` in LDM names."""
    place = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0"
    text = "cond_stage_model.transformer.text_model.encoder.layers.0.self_attn.q_proj.weight"
    shapes: dict[str, tuple[int, ...]] = {
        "model.diffusion_model.input_blocks.0.0.weight": (channels, 4, 3, 3),
        "model.diffusion_model.input_blocks.1.0.in_layers.2.weight": (channels, channels, 3, 3),
        f"{place}.attn1.to_q.weight": (channels, channels),
        f"{place}.attn2.to_q.weight": (channels, channels),
        f"{place}.attn2.to_k.weight": (channels, width),
        f"{place}.attn2.to_v.weight": (channels, width),
        f"{place}.attn2.to_out.0.weight": (channels, channels),
        text: (width, width),
    }
    model(path, shapes)
    return path


MODULES = sd1_attention(128, channels=48, blocks=(0,))


@pytest.mark.parametrize("dialect", ["diffusers", "kohya", "peft"])
def test_an_adapter_fits_the_base_it_was_made_for(tmp_path: Path, small: Path, dialect: str) -> None:
    lora(tmp_path / "x.safetensors", MODULES, dialect=dialect)
    for base in (small, ldm(tmp_path / "single.safetensors")):
        fit = fits(tmp_path / "x.safetensors", base)
        assert fit.ok and fit.components["unet"].matched == 3 and fit.missing == () == fit.mismatched


def test_an_adapter_of_the_small_base_never_fits_stable_diffusion_1_nor_the_reverse(tmp_path: Path, small: Path) -> None:
    lora(tmp_path / "small.safetensors", MODULES)
    lora(tmp_path / "sd1.safetensors", sd1_attention())
    sd1 = ldm(tmp_path / "v1.safetensors", 768, 320)
    fit = fits(tmp_path / "small.safetensors", sd1)
    assert not fit.ok and fit.share == 0.0 and len(fit.mismatched) == 3
    assert "48 to 48, the base has 320 to 320" in fit.explain()
    fit = fits(tmp_path / "sd1.safetensors", small)
    assert not fit.ok and fit.share == 0.0 and len(fit.mismatched) == 3 and len(fit.missing) == 3


def test_what_is_missing_is_named_and_counted_by_component(tmp_path: Path, small: Path) -> None:
    down = {"down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k": (128, 48), "down_blocks.7.attentions.0.proj_in": (48, 48)}
    lora(tmp_path / "x.safetensors", down)
    fit = fits(tmp_path / "x.safetensors", small)
    assert fit.share == 0.5 and fit.missing == ("unet.down_blocks.7.attentions.0.proj_in",)
    assert fit.to_json()["components"] == {"unet": {"matched": 1, "total": 2}} and "50%" in fit.explain()


def test_text_encoder_modules_count_under_their_component(tmp_path: Path, small: Path) -> None:
    name = "encoder.layers.0.self_attn.q_proj"
    for path, module, dialect in (
        ("new", name, "diffusers"),
        ("old", f"text_model.{name}", "diffusers"),
        ("kohya", f"text_model.{name}", "kohya"),
    ):
        lora(tmp_path / path, {module: (128, 128)}, component="text_encoder", dialect=dialect)
        for base in (small, ldm(tmp_path / "single.safetensors")):
            fit = fits(tmp_path / path, base)
            assert fit.ok and set(fit.components) == {"text_encoder"}


def test_kohya_with_ldm_names_fits_a_diffusers_folder(tmp_path: Path, small: Path) -> None:
    lora(tmp_path / "x.safetensors", {"input_blocks.1.1.transformer_blocks.0.attn2.to_k": (128, 48)}, dialect="kohya")
    assert fits(tmp_path / "x.safetensors", small).ok


def test_convolutions_must_have_the_same_kernel(tmp_path: Path, small: Path) -> None:
    name = "unet.down_blocks.0.resnets.0.conv1"
    model(tmp_path / "3", {f"{name}.lora_A.weight": (4, 48, 3, 3), f"{name}.lora_B.weight": (48, 4, 1, 1)})
    model(tmp_path / "1", {f"{name}.lora_A.weight": (4, 48, 1, 1), f"{name}.lora_B.weight": (48, 4, 1, 1)})
    assert fits(tmp_path / "3", small).ok
    assert "kernel 3x3" in fits(tmp_path / "1", small).explain()


K = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"


P = "base_model.model.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
C = "lora_unet_down_blocks_0_resnets_0_conv1"


@pytest.mark.parametrize(
    ("shapes", "good"),
    [
        ({f"{K}.hada_w1_a": (48, 4), f"{K}.hada_w1_b": (4, 128), f"{K}.hada_w2_a": (48, 4), f"{K}.hada_w2_b": (4, 128)}, True),
        ({f"{K}.hada_w1_a": (48, 4), f"{K}.hada_w1_b": (4, 768), f"{K}.hada_w2_a": (48, 4), f"{K}.hada_w2_b": (4, 768)}, False),
        ({f"{K}.lokr_w1": (6, 8), f"{K}.lokr_w2": (8, 16)}, True),
        ({f"{K}.lokr_w1": (6, 8), f"{K}.lokr_w2": (8, 96)}, False),
        ({f"{C}.hada_w1_a": (48, 4), f"{C}.hada_w1_b": (4, 48 * 9), f"{C}.hada_w2_a": (48, 4), f"{C}.hada_w2_b": (4, 48 * 9)}, True),
        ({f"{C}.hada_w1_a": (48, 4), f"{C}.hada_w1_b": (4, 48), f"{C}.hada_w2_a": (48, 4), f"{C}.hada_w2_b": (4, 48)}, False),
        ({f"{C}.hada_t1": (4, 4, 3, 3), f"{C}.hada_w1_a": (4, 48), f"{C}.hada_w1_b": (4, 48)}, True),
        ({f"{K}.lokr_w1": (6, 8), f"{K}.lokr_w2_a": (8, 2), f"{K}.lokr_w2_b": (2, 16)}, True),
        ({f"{K}.lokr_w1": (6, 8), f"{K}.lokr_w2_a": (8, 2), f"{K}.lokr_w2_b": (2, 96)}, False),
        ({f"{K}.lokr_w1": (6, 8), f"{K}.lokr_t2": (2, 2, 1, 1), f"{K}.lokr_w2_a": (2, 8), f"{K}.lokr_w2_b": (2, 16)}, True),
        ({f"{K}.lokr_w1": (6, 8), f"{K}.lokr_t2": (2, 2, 1, 1), f"{K}.lokr_w2_a": (2, 8), f"{K}.lokr_w2_b": (2, 17)}, False),
        ({f"{K}.a1.weight": (128, 2), f"{K}.a2.weight": (2, 128), f"{K}.b1.weight": (48, 2), f"{K}.b2.weight": (2, 128)}, True),
        ({f"{K}.a1.weight": (768, 2), f"{K}.a2.weight": (2, 768), f"{K}.b1.weight": (48, 2), f"{K}.b2.weight": (2, 768)}, False),
        ({f"{K}.oft_blocks": (12, 4, 4)}, True),
        ({f"{K}.oft_blocks": (80, 4, 4)}, False),
        ({f"{K}.oft_blocks": (2, 12, 4, 4), f"{K}.rescale": (48, 1)}, True),
        ({f"{K}.oft_blocks": (2, 80, 4, 4), f"{K}.rescale": (320, 1)}, False),
        ({f"{K}.weight": (128,), f"{K}.on_input": ()}, True),  # the flag is set: the inputs' scales
        ({f"{K}.weight": (48,), f"{K}.on_input": ()}, False),
        ({f"{K}.weight": (320,), f"{K}.on_input": ()}, False),
        ({f"{P}.ia3_l": (48, 1)}, True),
        ({f"{P}.ia3_l": (1, 768)}, False),
        ({f"{P}.oft_R.weight": (16, 28)}, True),
        ({f"{P}.oft_R.weight": (96, 28)}, False),
        ({f"{P}.boft_R": (1, 16, 8, 8), f"{P}.boft_s": (48, 1)}, True),
        ({f"{P}.boft_R": (1, 96, 8, 8), f"{P}.boft_s": (48, 1)}, False),
        ({f"{K}.diff": (48, 128)}, True),
        ({f"{K}.diff": (48, 768)}, False),
    ],
)
def test_lycoris_shapes(tmp_path: Path, small: Path, shapes: Shapes, good: bool) -> None:
    model(tmp_path / "x", shapes)
    assert (fits(tmp_path / "x", small).share == 1.0) is good


FLUX = {
    "double_blocks.0.img_attn.qkv.weight": (48, 16),
    "double_blocks.0.img_attn.proj.weight": (16, 16),
    "double_blocks.0.img_attn.norm.key_norm.scale": (8,),
    "single_blocks.0.linear1.weight": (48 + 64, 16),
    "single_blocks.0.linear2.weight": (16, 80),
    "img_in.weight": (16, 64),
}


def test_flux_in_both_spellings(tmp_path: Path) -> None:
    model(tmp_path / "bfl.safetensors", FLUX)
    diffusers = {
        "transformer_blocks.0.attn.to_q.weight": (16, 16),
        "transformer_blocks.0.attn.to_k.weight": (16, 16),
        "transformer_blocks.0.attn.to_v.weight": (16, 16),
        "single_transformer_blocks.0.attn.to_q.weight": (16, 16),
        "single_transformer_blocks.0.attn.to_k.weight": (16, 16),
        "single_transformer_blocks.0.attn.to_v.weight": (16, 16),
        "single_transformer_blocks.0.proj_mlp.weight": (64, 16),
    }
    model(tmp_path / "folder" / "transformer" / "diffusion_pytorch_model.safetensors", diffusers)
    lora(
        tmp_path / "d",
        {"transformer_blocks.0.attn.to_q": (16, 16), "single_transformer_blocks.0.proj_mlp": (16, 64)},
        component="transformer",
    )
    lora(tmp_path / "k", {"double_blocks.0.img_attn.qkv": (16, 48), "single_blocks.0.linear1": (16, 112)}, dialect="kohya")
    for adapter in ("d", "k"):
        for base in ("bfl.safetensors", "folder"):
            fit = fits(tmp_path / adapter, tmp_path / base)
            assert fit.ok and fit.components["transformer"].total == 2, fit.explain()
    lora(tmp_path / "wrong", {"double_blocks.0.img_attn.qkv": (16, 47)}, dialect="kohya")
    assert not fits(tmp_path / "wrong", tmp_path / "folder").ok


def test_fits_asks_what_fuse_asks(tmp_path: Path, small: Path) -> None:
    """Shapes alone said 100% of what fuse refuses."""
    from safetensors.torch import load_file, save_file

    good = tmp_path / "a.safetensors"
    lora(good, MODULES, dialect="peft")
    tensors = load_file(good)
    del tensors[next(key for key in tensors if "lora_B" in key)]
    save_file(tensors, tmp_path / "half.safetensors")
    found = fits(tmp_path / "half.safetensors", small)
    assert found.share == 1.0 and not found.ok and "is half a lora: up missing" in found.explain()
    assert found.to_json()["refused"] == list(found.refused) and not fits(good, small).refused


def test_a_bias_that_the_base_has_not_is_named(tmp_path: Path, small: Path) -> None:
    """Drawing adds it beside the layer; a fused weight cannot hold it."""
    from safetensors.torch import load_file, save_file

    lora(tmp_path / "a.safetensors", MODULES)
    tensors = load_file(tmp_path / "a.safetensors")
    up = next(key for key in tensors if "lora_B" in key and "to_q" in key)
    save_file({**tensors, up.replace(".weight", ".bias"): torch.ones(len(tensors[up]))}, tmp_path / "b.safetensors")
    assert fits(tmp_path / "a.safetensors", small).without_bias == ()
    found = fits(tmp_path / "b.safetensors", small)
    assert found.ok and found.to_json()["without_bias"] == [up.removesuffix(".lora_B.weight")]
    assert "Fusing refuses it: the base has no bias in" in found.explain()


def test_what_is_no_adapter_is_refused(tmp_path: Path, small: Path) -> None:
    with pytest.raises(BadFile, match="no keys of an adapter"):
        fits(small / "unet" / "diffusion_pytorch_model.safetensors", small)
