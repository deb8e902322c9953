"""GGUF files, written by the GGUF package: the model of their weights, kept in their blocks, and what diffusers' reader makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from registry.detect.inspect import inspect
from registry.errors import BadFile
from registry.families import FAMILIES, qwen_image
from registry.quantised.skeleton import stored_layers, stored_titles
from tests.quantised_files import gguf_file
from tests.registry.formats.quantised.test_scaled_fp8 import loaded, same_weights
from tests.registry.formats.test_gguf import gguf
from tests.tiny import shared_folder, tiny_single_file, transformer_single_file

pytestmark = pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning")
PREFIX = {"sd1": "model.diffusion_model.", "flux1": ""}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("sources")
    return {
        name: tiny_single_file(shared_folder(name, **given), folder / f"{name}.safetensors", family=name) for name, given in BUILDS.items()
    }


BUILDS: dict[str, dict[str, Any]] = {"sd1": {"standard": True}, "flux1": {}}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind"), [("flux1", "Q8_0"), ("flux1", "Q4_0"), ("flux1", "Q5_1"), ("sd1", "Q8_0"), ("sd1", "Q4_1")])
def test_the_model_is_that_of_the_weights_in_full(name: str, kind: str, sources: dict[str, Path], tmp_path: Path) -> None:
    """FLUX.1's transformer with its fused layers, and a UNet alone with convolutions in blocks."""
    file, wide = gguf_file(sources[name], tmp_path / "x.gguf", kind, prefix=PREFIX[name], architecture="flux" if name == "flux1" else "sd1")
    folder = shared_folder(name, **BUILDS[name])
    found, expected = (loaded(name, path, base_config=folder) for path in (file, wide))
    skeleton = loaded(name, file, base_config=folder, device="meta")
    count = same_weights(found.denoiser, expected.denoiser)
    assert count > 10 and stored_titles(found.denoiser) == {f"GGUF {kind}": count} == stored_titles(skeleton.denoiser)
    kept = sum(one.nbytes for layer in found.denoiser.modules() for name, one in layer.named_buffers(recurse=False) if name == "codes")
    assert kept == sum(one.nbytes for one in stored_layers(skeleton.denoiser).values())
    record = inspect(file)
    assert (record.family, record.dtype, record.dialect) == (name, f"GGUF {kind}", "gguf")


def test_diffusers_reads_the_same_weights(tmp_path: Path) -> None:
    """Its own reader on the same file: its weights are rounded to fp16, whatever it computes in. FLUX.1's takes published widths alone."""
    import diffusers

    folder = shared_folder("qwen_image")
    source = transformer_single_file(folder, tmp_path / "qwen.safetensors", qwen_image.FILE_NAMES, original=False)
    file, _ = gguf_file(source, tmp_path / "x.gguf", "Q8_0", architecture="qwen_image")
    other = diffusers.QwenImageTransformer2DModel.from_single_file(
        str(file),
        config=str(folder),
        subfolder="transformer",
        quantization_config=diffusers.GGUFQuantizationConfig(compute_dtype=torch.float32),
        dtype=torch.float32,
    )
    other.dequantize()
    found, names = loaded("qwen_image", file).denoiser, dict(other.named_modules())
    count = 0
    for name, layer in found.named_modules():
        if isinstance(layer, torch.nn.Linear):
            expected = names[name].weight
            assert torch.allclose(layer.weight, expected.float(), rtol=1e-3, atol=1e-6), name
            count += 1
    assert count > 20


@pytest.mark.slow
def test_training_and_drawing_take_it_as_any_base(sources: dict[str, Path], tmp_path: Path) -> None:
    """One backward pass: the gradients of the weights in full."""
    from tests.tiny import SIZES
    from tests.train.test_quantised import lora_gradients
    from train.config import LoraConfig, TrainConfig

    folder, config = shared_folder("flux1"), TrainConfig(lora=LoraConfig(rank=2))
    pair = gguf_file(sources["flux1"], tmp_path / "x.gguf", "Q4_0")
    found, expected = (
        lora_gradients(FAMILIES["flux1"], loaded("flux1", path, base_config=folder), SIZES["flux1"], config) for path in pair
    )
    assert len(found) == len(expected) > 10
    for left, right in zip(found, expected, strict=True):
        assert torch.allclose(left, right, rtol=0, atol=1e-5 * float(right.abs().max()))


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"double_blocks.0.img_attn.qkv.weight": (16, (96, 32))}, r"qkv\.weight is in GGUF's IQ2_XXS; IQ4_NL, IQ4_XS"),
        ({"double_blocks.0.img_attn.qkv.weight": (2, (96, 33))}, r"qkv\.weight is \(96, 33\), whose rows are no whole blocks of 32"),
        ({"double_blocks.0.img_attn.qkv.weight": (2, (96, 32))}, r"qkv\.weight lies behind the end of the file"),
        ({"double_blocks.0.img_attn.qkv.weight": (77, (96, 32))}, r"qkv\.weight is in GGUF's GGML_77"),
    ],
)
def test_what_is_not_read_is_refused_by_name(tensors: dict[str, Any], words: str, tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(gguf({"double_blocks.0.img_attn.norm.key_norm.scale": (0, (8,)), **tensors}) + bytes(128))
    for device in ("meta", "cpu"):
        with pytest.raises(BadFile, match=words):
            loaded("flux1", path, device=device)


def test_a_shape_beside_the_tensor_that_is_none_of_its_weights_is_refused(tmp_path: Path) -> None:
    import gguf as package
    import numpy as np

    writer = package.GGUFWriter(tmp_path / "x.gguf", "sd1")
    writer.add_array("comfy.gguf.orig_shape.input_blocks.0.0.weight", [7, 5])
    writer.add_tensor("input_blocks.0.0.weight", np.zeros((4, 8), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(BadFile, match=r"input_blocks\.0\.0\.weight is \[7, 5\], which is no shape of 32 weights"):
        loaded("sd1", tmp_path / "x.gguf")
    with pytest.raises(BadFile, match="no shape of 32 weights"):
        inspect(tmp_path / "x.gguf")
