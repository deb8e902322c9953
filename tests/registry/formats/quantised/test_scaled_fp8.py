"""fp8 and int8 files: the model of their weights, kept as they are stored, in ComfyUI's forms and others'."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from registry.detect.loading import load_family
from registry.errors import BadFile, Refused
from registry.families import FAMILIES
from registry.formats.quantised.weights_file import weights_file
from registry.quantised.linear import QuantisedLinear
from registry.quantised.skeleton import stored_layers, stored_titles
from tests.quantised_files import E4M3, FORMS, quantised_file
from tests.tiny import shared_folder, tiny_single_file

pytestmark = pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning")


def loaded(name: str, path: Path, *, device: str = "cpu", **given: Any) -> Any:
    options: dict[str, Any] = {"dtype": torch.float32, "device": device, "base_config": shared_folder(name), "prediction": None}
    return load_family(FAMILIES[name], path, **options | given)


def same_weights(found: nn.Module, expected: nn.Module) -> int:
    """How many layers of `found` are quantised; the weights of both are equal."""
    layers = dict(found.named_modules())
    for name, layer in expected.named_modules():
        if isinstance(layer, nn.Linear):
            other = layers[name]
            assert isinstance(other, nn.Linear) and torch.equal(other.weight, layer.weight), name
    plain = dict(found.named_parameters())
    for name, weight in expected.named_parameters():
        assert name not in plain or torch.equal(plain[name], weight), name
    return sum(isinstance(layer, QuantisedLinear) for layer in layers.values())


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("sources")
    return {name: tiny_single_file(shared_folder(name), folder / f"{name}.safetensors", family=name) for name in ("sd1", "flux1")}


PREFIX = {"sd1": "model.diffusion_model.", "flux1": ""}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sd1", "flux1"])
@pytest.mark.parametrize("form", [form for form in FORMS if not form.startswith("nf4")])
def test_the_model_is_that_of_the_weights_in_full(name: str, form: str, sources: dict[str, Path], tmp_path: Path) -> None:
    file, wide = quantised_file(sources[name], tmp_path / "x.safetensors", form, prefix=PREFIX[name])
    found, expected, skeleton = loaded(name, file), loaded(name, wide), loaded(name, file, device="meta")
    count = same_weights(found.denoiser, expected.denoiser)
    titles = stored_titles(found.denoiser)
    assert titles == {FORMS[form][2]: count} == stored_titles(skeleton.denoiser) and count > 10
    assert len(found.warnings) == len(expected.warnings)
    kept = [layer for layer in found.denoiser.modules() if isinstance(layer, QuantisedLinear)]
    assert sum(one.nbytes for layer in kept for one in layer.buffers()) == sum(
        one.nbytes for one in stored_layers(skeleton.denoiser).values()
    )
    assert all(layer.codes.element_size() == 1 for layer in kept)


def test_text_encoders_and_a_vae_of_a_single_file(sources: dict[str, Path], tmp_path: Path) -> None:
    """CLIP's layers are kept; nothing of the VAE stays quantised."""
    file, wide = quantised_file(sources["sd1"], tmp_path / "x.safetensors", "plain")
    found, expected = loaded("sd1", file), loaded("sd1", wide)
    assert same_weights(found.text_encoders["text_encoder"], expected.text_encoders["text_encoder"]) > 5
    assert same_weights(found.vae, expected.vae) == 0


def broken(source: Path, out: Path, form: str, change: Any) -> Path:
    file, _ = quantised_file(source, out, form)
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, out)
    return out


LAYER = "double_blocks.0.img_attn.qkv"


def mark(config: dict[str, Any]) -> torch.Tensor:
    return torch.tensor(list(json.dumps(config).encode()), dtype=torch.uint8)


@pytest.mark.parametrize(
    ("form", "change", "words"),
    [
        ("comfy_old", lambda all_: all_.pop(f"{LAYER}.scale_weight"), rf"{LAYER}.weight has no scale"),
        ("comfy_new", lambda all_: all_.pop(f"{LAYER}.weight_scale"), rf"{LAYER}.weight has no scale"),
        ("rows", lambda all_: all_.update({f"{LAYER}.weight_scale": torch.ones(7)}), r"weight_scale is \(7,\), which is no scale of"),
        ("rows", lambda all_: all_.update({f"{LAYER}.weight_scale": torch.ones(1, dtype=torch.int32)}), r"is I32; a scale is F32"),
        (
            "comfy_new",
            lambda all_: all_.update({f"{LAYER}.comfy_quant": mark({"format": "nvfp4"})}),
            rf"{LAYER} is in nvfp4; float8_e4m3fn",
        ),
        ("int8", lambda all_: all_.update({f"{LAYER}.comfy_quant": mark({"format": "int8_tensorwise", "convrot": True})}), "with convrot"),
        ("comfy_new", lambda all_: all_.update({f"{LAYER}.comfy_quant": torch.zeros(3, dtype=torch.uint8)}), "comfy_quant is not a JSON"),
        ("plain", lambda all_: all_.update({f"{LAYER}.gain": torch.ones(1)}), "gain is a scale of an unknown form"),
        ("plain", lambda all_: all_.update({"txt_in.weight_scale": torch.ones(1)}), "txt_in.weight_scale is beside no weight of 8 bits"),
        (
            "plain",
            lambda all_: all_.update({f"{LAYER}.weight": torch.ones(3, dtype=torch.int8)}),
            f"{LAYER}.weight is I8, and nothing says",
        ),
    ],
)
def test_what_is_not_read_is_refused_by_name(form: str, change: Any, words: str, sources: dict[str, Path], tmp_path: Path) -> None:
    file = broken(sources["flux1"], tmp_path / "x.safetensors", form, change)
    for device in ("meta", "cpu"):
        with pytest.raises(BadFile, match=words):
            loaded("flux1", file, device=device)


def test_settings_of_all_layers_in_the_header(sources: dict[str, Path], tmp_path: Path) -> None:
    file, wide = quantised_file(sources["flux1"], tmp_path / "x.safetensors", "comfy_new")
    tensors = {key: tensor for key, tensor in load_file(file).items() if not key.endswith("comfy_quant")}
    layers = {key.removesuffix(".weight"): {"format": "float8_e4m3fn"} for key, tensor in tensors.items() if tensor.dtype == E4M3}
    save_file(tensors, file, metadata={"_quantization_metadata": json.dumps({"format_version": "1.0", "layers": layers})})
    assert same_weights(loaded("flux1", file).denoiser, loaded("flux1", wide).denoiser) > 10
    layers[LAYER] = {"format": "mxfp8"}
    save_file(tensors, file, metadata={"_quantization_metadata": json.dumps({"layers": layers})})
    with pytest.raises(BadFile, match=f"{LAYER} is in mxfp8"):
        loaded("flux1", file)


@pytest.mark.parametrize("text", ["", "[]", '{"layers": {"a": 5}}', "[" * 100_000])
def test_settings_that_are_no_settings_are_refused(text: str, tmp_path: Path) -> None:
    save_file({f"{LAYER}.weight": torch.ones(2, 2)}, tmp_path / "x.safetensors", metadata={"_quantization_metadata": text})
    with pytest.raises(BadFile, match="the header's _quantization_metadata is not a JSON with the settings of layers"):
        weights_file(tmp_path / "x.safetensors")


@pytest.mark.slow
def test_a_second_quantisation_is_refused_but_for_numbers_that_are_the_model_s_own(sources: dict[str, Path], tmp_path: Path) -> None:
    scaled, _ = quantised_file(sources["flux1"], tmp_path / "scaled.safetensors", "comfy_old")
    for device in ("meta", "cpu"):
        with pytest.raises(
            Refused, match=r"base_dtype is given, but the transformer is quantised in its file \(\d+ weights in fp8 scaled\)"
        ):
            loaded("flux1", scaled, device=device, base_dtype="nf4")
    plain, wide = quantised_file(sources["flux1"], tmp_path / "plain.safetensors", "plain")
    found, expected = loaded("flux1", plain, base_dtype="nf4"), loaded("flux1", wide, base_dtype="nf4")
    assert same_weights(found.denoiser, expected.denoiser) > 10
    assert {"nf4", "int8", "fp8 without scales"} == {x.dtype_name for x in found.denoiser.modules() if isinstance(x, QuantisedLinear)}
