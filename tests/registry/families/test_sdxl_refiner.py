"""SDXL's refiner: distinguished from SDXL's base, one text encoder, scores by prompt and negative, its pipeline's images; never trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from registry.detect.inspect import inspect, look
from registry.errors import BadFile, Refused
from registry.families import FAMILIES
from registry.formats.model_header import ModelHeader
from registry.formats.safetensors_header import TensorInfo
from tests.tiny import plain_pipeline, shared_folder, tiny_dataset, tiny_model, tiny_parts, tiny_single_file

pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # of diffusers' schedulers under numpy 2

MODULE = "down_blocks_1_attentions_0_transformer_blocks_0"


def loaded(path: Path, base_config: Path | None = None) -> Any:
    import torch

    return FAMILIES["sdxl_refiner"].load(path, dtype=torch.float32, device="cpu", base_config=base_config)


def test_a_folder_is_the_refiner_s_alone() -> None:
    claims = {name: family.recognise_checkpoint(look(shared_folder("sdxl_refiner"))) for name, family in FAMILIES.items()}
    assert [name for name, claim in claims.items() if claim] == ["sdxl_refiner"]
    assert FAMILIES["sdxl_refiner"].recognise_checkpoint(look(shared_folder("sdxl"))) is None
    record = inspect(shared_folder("sdxl_refiner"))
    assert (record.family, record.prediction.value) == ("sdxl_refiner", "epsilon")


@pytest.mark.parametrize(
    ("key", "width", "metadata", "claimed"),
    [
        (f"lora_unet_{MODULE}_attn2_to_k.lora_down.weight", 1280, {}, True),
        (f"lora_unet_{MODULE}_attn2_to_k.lora_down.weight", 2048, {}, False),
        (f"lora_unet_{MODULE}_attn1_to_q.lora_down.weight", 64, {"modelspec.architecture": "stable-diffusion-xl-v1-refiner/lora"}, True),
        (f"lora_unet_{MODULE}_attn1_to_q.lora_down.weight", 64, {"modelspec.architecture": "stable-diffusion-xl-v1-base/lora"}, False),
    ],
)
def test_its_adapters_are_reported_from_sdxl_s(key: str, width: int, metadata: dict[str, str], claimed: bool) -> None:
    seen = ModelHeader(path=Path("a.safetensors"), tensors={key: TensorInfo("F16", (4, width))}, metadata=metadata)
    claim, other = FAMILIES["sdxl_refiner"].recognise_adapter(seen), FAMILIES["sdxl"].recognise_adapter(seen)
    assert (claim is not None) is claimed
    assert not claimed or claim is None or other is None or other.score < claim.score


@pytest.mark.slow
def test_the_file_alone_is_the_folder_s_model(tmp_path: Path) -> None:
    folder = shared_folder("sdxl_refiner", variant="standard")
    file = tiny_single_file(folder, tmp_path / "refiner.safetensors", family="sdxl_refiner")
    record = inspect(file)
    assert (record.family, record.dialect, record.prediction.value) == ("sdxl_refiner", "ldm", None)
    parts, own = loaded(file), loaded(folder)
    pairs = (
        (parts.denoiser, own.denoiser),
        (parts.vae, own.vae),
        (parts.text_encoders["text_encoder_2"], own.text_encoders["text_encoder_2"]),
    )
    for actual, expected in pairs:
        state = expected.state_dict()
        assert state and all(state.pop(key).equal(tensor) for key, tensor in actual.state_dict().items()) and not state
    assert parts.denoiser.config.addition_time_embed_dim == own.denoiser.config.addition_time_embed_dim == 8
    assert (parts.scheduler_class, parts.scheduler_config["timestep_spacing"]) == ("EulerDiscreteScheduler", "leading")
    assert not [warning for warning in parts.warnings if "of no use" in warning]


def test_the_published_refiner_is_read_from_its_shapes() -> None:
    """Its first and last levels have no attention, its middle block has: the real config comes back."""
    import diffusers
    from accelerate import init_empty_weights

    from registry.architectures.unet.ldm_names import unet_name
    from registry.families.sdxl_refiner import LAYOUT

    assert LAYOUT.settle is not None
    with init_empty_weights():
        unet = diffusers.UNet2DConditionModel(
            block_out_channels=(384, 768, 1536, 1536),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=4,
            attention_head_dim=(6, 12, 24, 24),
            cross_attention_dim=1280,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=2560,
        )
    shapes = {str(unet_name(unet.config, key)): TensorInfo("F16", tuple(value.shape)) for key, value in unet.state_dict().items()}
    piece = LAYOUT.pieces[0]
    sizes = piece.sizes(shapes)
    configs = {"unet": {**piece.constants(sizes), **sizes}, "text_encoder_2": {"projection_dim": 1280}}
    LAYOUT.settle(configs, "epsilon")
    with init_empty_weights():
        actual = diffusers.UNet2DConditionModel.from_config(configs["unet"])
    assert {key: value.shape for key, value in actual.state_dict().items()} == {
        key: value.shape for key, value in unet.state_dict().items()
    }
    assert all(sizes[key] == value for key, value in piece.published.items())
    assert (actual.config.addition_time_embed_dim, tuple(actual.config.attention_head_dim)) == (256, (6, 12, 24, 24))


def test_scores_are_the_prompt_s_and_the_negative_s() -> None:
    family, parts = tiny_parts("sdxl_refiner")
    size = {"height": 64, "width": 32, "guidance": 5.0}
    prompt, negative = family.encode_prompts(parts, ["a", "b"]), family.negatives(parts, ["a"])
    assert family.complete(parts, prompt, **size)["time_ids"].tolist() == [[64.0, 32.0, 0.0, 0.0, 6.0]] * 2
    for state in (negative, family.encode_unconditional(parts, 1)):
        assert family.complete(parts, state, **size)["time_ids"].tolist() == [[64.0, 32.0, 0.0, 0.0, 2.5]]
    assert "score" not in family.complete(parts, prompt, **size)


@pytest.mark.parametrize("negative", [None, "a blurred dog"])
def test_it_finishes_an_image_as_its_pipeline_does(negative: str | None) -> None:
    import torch

    from infer.draw.denoise import Job, denoise
    from infer.draw.samplers import build_scheduler
    from infer.draw.start import Start

    family, parts = tiny_parts("sdxl_refiner")
    pipeline = plain_pipeline("sdxl_refiner")
    pipeline.vae = parts.vae  # at other addresses its samples differ in their last bits
    pixels = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    pipeline.scheduler = build_scheduler(parts)
    expected = pipeline(
        prompt="a red apple",
        negative_prompt=negative,
        image=pixels,
        strength=0.3,
        num_inference_steps=10,
        guidance_scale=5.0,
        generator=torch.Generator("cpu").manual_seed(7),
        output_type="latent",
    ).images
    with torch.no_grad():
        job = Job(
            conditional=family.encode_prompts(parts, ["a red apple"]),
            unconditional=family.encode_unconditional(parts, 1) if negative is None else family.negatives(parts, [negative]),
            guidance=5.0,
            steps=10,
            scheduler=build_scheduler(parts),
            seed=7,
            height=32,
            width=32,
            start=Start(pixels=2 * pixels - 1, strength=0.3),
        )
    (actual,) = denoise(family, parts, [job])
    assert float((actual - expected).abs().max()) <= 1e-5 * max(1.0, float(expected.abs().max()))


def test_a_unet_of_six_numbers_has_the_target_size(tmp_path: Path) -> None:
    import diffusers

    folder = tiny_model("sdxl_refiner", tmp_path / "six")
    config = json.loads((folder / "unet" / "config.json").read_text())
    for numbers, ids in ((6, [[64.0, 32.0, 0.0, 0.0, 64.0, 32.0]]), (4, None)):
        changed = config | {"projection_class_embeddings_input_dim": numbers * 8 + 40}
        diffusers.UNet2DConditionModel.from_config(changed).save_pretrained(folder / "unet")
        if ids is None:
            with pytest.raises(BadFile, match="takes 4 size numbers"):
                loaded(folder)
            continue
        parts, family = loaded(folder), FAMILIES["sdxl_refiner"]
        assert family.complete(parts, family.encode_prompts(parts, ["a"]), height=64, width=32, guidance=5.0)["time_ids"].tolist() == ids


def test_training_it_is_refused_with_the_reason(tmp_path: Path) -> None:
    from registry.store import Store
    from train import run
    from train.config import DataConfig, TrainConfig

    config = TrainConfig(base=str(shared_folder("sdxl_refiner")), data=DataConfig(path=str(tiny_dataset(tmp_path / "set"))), device="cpu")
    with pytest.raises(Refused, match=r"is not trained: it was made for the last fifth of the noise .* Train on SDXL's base"):
        run.plan(config, Store(tmp_path / "home"))


def test_what_it_is_made_for_is_said() -> None:
    assert any("made to finish an image" in warning for warning in tiny_parts("sdxl_refiner")[1].warnings)
