"""Chroma: T5's mask with one padding token, single files, and adapters that are distinguished from FLUX.1's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from registry.detect.inspect import inspect
from registry.errors import BadFile, Refused
from registry.families import FAMILIES, chroma
from tests.tiny import plain_pipeline, shared_folder, tiny_adapter, tiny_model, tiny_parts, transformer_single_file

pytestmark = pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning")

PROMPTS = ["a cat", "two dogs on a mat"]


def loaded(path: Path, base_config: Path | None = None) -> Any:
    import torch

    return FAMILIES["chroma"].load(path, dtype=torch.float32, device="cpu", base_config=base_config)


def test_a_folder_is_known() -> None:
    record = inspect(shared_folder("chroma"))
    assert (record.kind, record.family, record.variant, record.prediction.value) == ("checkpoint", "chroma", None, "flow")


def test_prompts_are_encoded_with_their_mask_and_one_padding_token() -> None:
    import torch

    family, parts = tiny_parts("chroma")
    with torch.no_grad():
        actual = family.encode_prompts(parts, PROMPTS)
        reference, mask = plain_pipeline("chroma")._get_t5_prompt_embeds(PROMPTS, max_sequence_length=48)
    assert torch.allclose(actual["embeds"], reference, atol=1e-5)  # weights lie otherwise in memory: kernels may differ
    assert actual["mask"].dtype == torch.bool and actual["mask"].equal(mask.bool())
    needed, fit = family.count_tokens(parts, PROMPTS[0])
    assert int(actual["mask"][0].sum()) == needed + 1
    assert fit == 48


def test_the_mask_is_part_of_the_answer() -> None:
    import torch

    family, parts = tiny_parts("chroma")
    noisy = torch.randn(1, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        state = family.encode_prompts(parts, PROMPTS[:1])
        masked = family.predict(parts, noisy, torch.tensor([500.0]), state)
        open_ = family.predict(parts, noisy, torch.tensor([500.0]), {**state, "mask": torch.ones_like(state["mask"])})
    assert float((masked - open_).abs().max()) > 1e-4


@pytest.mark.parametrize(("prefix", "original"), [("", True), ("model.diffusion_model.", True), ("", False)])
def test_a_single_file_takes_the_rest_from_base_config(prefix: str, original: bool, tmp_path: Path) -> None:
    folder = shared_folder("chroma")
    file = transformer_single_file(folder, tmp_path / "chroma.safetensors", chroma.FILE_NAMES, prefix=prefix, original=original)
    record = inspect(file)
    assert (record.kind, record.family, record.prediction.value) == ("checkpoint", "chroma", "flow")
    with pytest.raises(Refused, match=r"T5 encoder and its tokenizer are not in it and are not bundled. Give base_config=FOLDER"):
        loaded(file)
    reference = loaded(folder).denoiser.state_dict()
    actual = loaded(file, folder).denoiser.state_dict()
    assert actual.keys() == reference.keys() and all(tensor.equal(reference[name]) for name, tensor in actual.items())


def test_the_names_are_those_diffusers_reads() -> None:
    """diffusers' converter is written for the published width only, so it is shown tensors of one column."""
    import torch
    from diffusers.loaders.single_file_utils import convert_chroma_transformer_checkpoint_to_diffusers

    generator = torch.Generator().manual_seed(0)
    heights = {"attn.qkv": [3072] * 3, "linear1": [3072] * 3 + [12288]}
    file: dict[str, Any] = {}
    expected: dict[str, Any] = {}
    for layer in (one.numbered(["0"] * one.original.count("*")) for one in chroma.LAYERS):
        rows = next((rows for ending, rows in heights.items() if layer.original.endswith(ending)), [8])
        for ending, width in (("weight", (1,)), ("bias", ())):
            tensor = torch.rand(sum(rows), *width, generator=generator)
            file[f"{layer.original}.{ending}"] = tensor
            expected |= {f"{own}.{ending}": piece for own, piece in zip(layer.modules, torch.split(tensor, rows), strict=True)}
    for actual, reference in chroma.FILE_NAMES.others.items():
        file[reference.replace("*", "0")] = expected[actual.replace("*", "0")] = torch.rand(8, generator=generator)
    converted = convert_chroma_transformer_checkpoint_to_diffusers(dict(file))
    assert converted.keys() == expected.keys()
    assert [name for name, tensor in converted.items() if not tensor.equal(expected[name])] == []


def test_a_folder_of_another_family_is_no_base_config(tmp_path: Path) -> None:
    file = transformer_single_file(shared_folder("chroma"), tmp_path / "chroma.safetensors", chroma.FILE_NAMES)
    with pytest.raises(Refused, match=r"is a Chroma transformer, but base_config=.* has a FluxTransformer2DModel"):
        loaded(file, shared_folder("flux1"))


def test_scales_of_no_fp8_weight_are_refused(tmp_path: Path) -> None:
    """Its weights would be taken for the model's values, whatever the scale says."""
    import torch
    from safetensors.torch import load_file, save_file

    folder = shared_folder("chroma")
    state = load_file(transformer_single_file(folder, tmp_path / "chroma.safetensors", chroma.FILE_NAMES))
    save_file({**state, "scaled_fp8": torch.zeros(2), "txt_in.scale_weight": torch.ones(1)}, tmp_path / "scaled.safetensors")
    with pytest.raises(BadFile, match=r"txt_in\.scale_weight is beside no weight of 8 bits"):
        loaded(tmp_path / "scaled.safetensors", folder)


def test_adapters_are_reported_from_flux_s(tmp_path: Path) -> None:
    """Blocks are named and sized alike: what the file declares counts, or layers that only Chroma has."""
    import torch
    from safetensors.torch import load_file, save_file

    file = tiny_adapter(shared_folder("chroma"), tmp_path / "adapter.safetensors", family="chroma", targets="attention_mlp")
    state = load_file(file)
    for metadata in ({"modelspec.architecture": "chroma/lora"}, {"ss_base_model_version": "chroma"}):
        save_file(state, tmp_path / "declared.safetensors", metadata=metadata)
        assert inspect(tmp_path / "declared.safetensors").family == "chroma"
    time = {f"lora_unet_distilled_guidance_layer_in_proj.lora_{end}.weight": torch.ones(4, 4) for end in ("down", "up")}
    save_file(time, tmp_path / "time.safetensors")
    assert inspect(tmp_path / "time.safetensors").family == "chroma"


def test_another_transformer_is_refused(tmp_path: Path) -> None:
    import json

    folder = tiny_model("chroma", tmp_path / "odd")
    config = json.loads((folder / "vae" / "config.json").read_text())
    (folder / "vae" / "config.json").write_text(
        json.dumps(
            config
            | {"block_out_channels": [8, 8, 8], "down_block_types": ["DownEncoderBlock2D"] * 3, "up_block_types": ["UpDecoderBlock2D"] * 3}
        )
    )
    import torch

    with pytest.raises(BadFile, match="4 pixels a latent cell; Chroma has 8"):
        FAMILIES["chroma"].load(folder, dtype=torch.float32, device="meta")


def test_clip_skip_is_refused() -> None:
    family, parts = tiny_parts("chroma")
    with pytest.raises(Refused, match="Chroma has no CLIP"):
        family.encode_prompts(parts, ["a"], clip_skip=1)


def test_image_to_image_is_that_of_diffusers_own_pipeline() -> None:
    """Its inpainting pipeline cannot be held against: in diffusers 0.42 it asks for a config that Chroma's transformer has not."""
    import diffusers
    import numpy
    import torch
    from PIL import Image

    from infer.draw.denoise import Job, denoise
    from infer.draw.samplers import build_scheduler
    from infer.draw.start import Start

    family, parts = tiny_parts("chroma")
    base = plain_pipeline("chroma")
    base.vae = parts.vae  # the very same: a copy at other addresses differs in the last bits
    last: Any = parts.vae.encoder.conv_out
    with torch.no_grad():
        last.weight[16:], last.bias[16:] = 0.0, -2.0  # an untrained VAE's samples are thousands wide
    image = Image.fromarray(numpy.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=numpy.uint8))
    pixels = torch.from_numpy(numpy.asarray(image, dtype=numpy.float32) / 255).permute(2, 0, 1)[None] * 2 - 1
    with torch.no_grad():
        job = Job(
            conditional=family.encode_prompts(parts, PROMPTS[:1]),
            unconditional=family.encode_unconditional(parts, 1),
            guidance=5.0,
            steps=7,
            scheduler=build_scheduler(parts),
            seed=7,
            height=64,
            width=64,
            start=Start(pixels=pixels, strength=0.6),
        )
        (actual,) = denoise(family, parts, [job])
    components = {key: part for key, part in base.components.items() if key not in ("image_encoder", "feature_extractor")}
    pipeline = diffusers.ChromaImg2ImgPipeline(**components)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = build_scheduler(parts)
    packed = pipeline(
        prompt=PROMPTS[0],
        image=image,
        strength=0.6,
        num_inference_steps=7,
        guidance_scale=5.0,
        height=64,
        width=64,
        max_sequence_length=48,
        generator=torch.Generator("cpu").manual_seed(7),
        output_type="latent",
    ).images
    reference = pipeline._unpack_latents(packed, 64, 64, 8)
    assert float((actual - reference).abs().max()) <= 1e-5 * max(1.0, float(reference.abs().max()))
