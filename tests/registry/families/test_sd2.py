"""Stable Diffusion 2: distinguished from SD 1 and SDXL, its prediction never guessed, OpenCLIP's names and its unused last layer."""

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
from tests.tiny import shared_folder, tiny_model, tiny_single_file

P = "model.diffusion_model."
MODULE = "down_blocks_0_attentions_0_transformer_blocks_0"


def loaded(path: Path, base_config: Path | None = None) -> Any:
    import torch

    return FAMILIES["sd2"].load(path, dtype=torch.float32, device="cpu", base_config=base_config)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A single file of the v build with the published constants, OpenCLIP's unused last layer in it."""
    return tiny_single_file(shared_folder("sd2", variant="v-standard"), tmp_path_factory.mktemp("sd2") / "model.safetensors", family="sd2")


def rewritten(path: Path, out: Path, *, marks: tuple[str, ...] = (), drop: str = "", metadata: dict[str, str] | None = None) -> Path:
    import torch
    from safetensors.torch import load_file, save_file

    tensors = {key: tensor for key, tensor in load_file(path).items() if not drop or drop not in key}
    save_file(tensors | {mark: torch.empty(0) for mark in marks}, out, metadata=metadata)
    return out


# --- what it is


@pytest.mark.parametrize(("variant", "prediction"), [("v", "v_prediction"), ("epsilon", "epsilon")])
def test_a_folder_s_prediction_is_its_scheduler_s(variant: str, prediction: str) -> None:
    record = inspect(shared_folder("sd2", variant=variant))
    assert (record.family, record.prediction.value) == ("sd2", prediction)
    assert record.prediction.source == "scheduler/scheduler_config.json"
    assert loaded(shared_folder("sd2", variant=variant)).prediction == prediction


def test_only_sd2_claims_a_folder_with_linear_projections() -> None:
    claims = {name: family.recognise_checkpoint(look(shared_folder("sd2"))) for name, family in FAMILIES.items()}
    assert [name for name, claim in claims.items() if claim] == ["sd2"]
    assert FAMILIES["sd2"].recognise_checkpoint(look(shared_folder("sd1"))) is None
    assert FAMILIES["sd2"].recognise_checkpoint(look(shared_folder("sdxl"))) is None


def test_a_file_s_prediction_is_unknown_until_something_says_it(file: Path, tmp_path: Path) -> None:
    record = inspect(file)
    assert (record.family, record.kind, record.dialect) == ("sd2", "checkpoint", "ldm")
    assert record.prediction.value is None and record.prediction.source is None
    assert {"unet", "vae", "text_encoder"} == set(record.components)
    reported = inspect(rewritten(file, tmp_path / "v.safetensors", metadata={"modelspec.architecture": "stable-diffusion-v2-768-v"}))
    assert (
        reported.prediction.value == "v_prediction" and reported.prediction.source == "modelspec.architecture 'stable-diffusion-v2-768-v'"
    )


@pytest.mark.parametrize(
    ("tensors", "metadata", "claimed"),
    [
        ({f"lora_unet_{MODULE}_attn2_to_k.lora_down.weight": (4, 1024)}, {}, True),
        ({"unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_v.lora_A.weight": (4, 1024)}, {}, True),
        ({"lora_te_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight": (4, 1024)}, {}, True),
        ({f"lora_unet_{MODULE}_attn1_to_q.lora_down.weight": (4, 64)}, {"ss_base_model_version": "sd_v2_v"}, True),
        ({f"lora_unet_{MODULE}_attn2_to_k.lora_down.weight": (4, 768)}, {}, False),
        ({f"lora_unet_{MODULE}_attn2_to_k.lora_down.weight": (4, 32)}, {"modelspec.architecture": "stable-diffusion-v1/lora"}, False),
        ({f"lora_unet_{MODULE}_attn2_to_k.lora_down.weight": (4, 32)}, {"modelspec.architecture": "stable-diffusion-v2-512/lora"}, True),
    ],
)
def test_its_adapters_are_reported_by_width_and_metadata(
    tensors: dict[str, tuple[int, ...]], metadata: dict[str, str], claimed: bool
) -> None:
    seen = ModelHeader(
        path=Path("a.safetensors"), tensors={key: TensorInfo("F16", shape) for key, shape in tensors.items()}, metadata=metadata
    )
    claim = FAMILIES["sd2"].recognise_adapter(seen)
    assert (claim is not None) is claimed
    others = [name for name in ("sd1", "sdxl") if (its := FAMILIES[name].recognise_adapter(seen)) and claim and its.score >= claim.score]
    assert others == []


# --- single files


def test_a_file_that_does_not_say_is_refused_with_the_word_that_helps(file: Path) -> None:
    with pytest.raises(
        Refused, match=r"has no mark of whether it predicts epsilon or v.* Set prediction=v_prediction .* give base_config=FOLDER"
    ):
        loaded(file)


@pytest.mark.slow
@pytest.mark.parametrize("prediction", ["v_prediction", "epsilon"])
def test_a_person_s_word_stands_above_marks_and_configs(prediction: str, file: Path, tmp_path: Path) -> None:
    import torch

    other = {"v_prediction": "epsilon", "epsilon": "v_prediction"}[prediction]
    folder = shared_folder("sd2", variant={"v_prediction": "epsilon-standard", "epsilon": "v-standard"}[prediction])
    marked = rewritten(file, tmp_path / "m.safetensors", metadata={"modelspec.prediction_type": {"epsilon": "epsilon"}.get(other, "v")})
    for path, config, contradicted in ((file, None, False), (marked, None, False), (file, folder, True), (folder, None, True)):
        parts = FAMILIES["sd2"].load(path, dtype=torch.float32, device="meta", base_config=config, prediction=prediction)
        assert parts.prediction == parts.scheduler_config["prediction_type"] == prediction
        assert bool([warning for warning in parts.warnings if "the user's setting" in warning or "by override" in warning]) is contradicted


@pytest.mark.slow
def test_the_file_is_the_folder_s_model_without_the_last_layer(file: Path) -> None:
    folder = shared_folder("sd2", variant="v-standard")
    parts, own = loaded(file, folder), loaded(folder)
    assert parts.warnings == () and parts.prediction == "v_prediction"
    for actual, expected in (
        (parts.denoiser, own.denoiser),
        (parts.vae, own.vae),
        (parts.text_encoders["text_encoder"], own.text_encoders["text_encoder"]),
    ):
        state = expected.state_dict()
        assert state and all(state.pop(key).equal(tensor) for key, tensor in actual.state_dict().items()) and not state


@pytest.mark.slow
def test_a_marked_file_needs_no_folder(file: Path, tmp_path: Path) -> None:
    """Layers, heads and activation as published: the same text states and the same denoiser call."""
    import torch

    parts, own = loaded(rewritten(file, tmp_path / "v.safetensors", marks=("v_pred",))), loaded(shared_folder("sd2", variant="v-standard"))
    assert (parts.scheduler_class, parts.prediction) == ("DDIMScheduler", "v_prediction")
    assert parts.scheduler_config["prediction_type"] == "v_prediction" and parts.resolution == 96 * parts.latent_factor
    assert not [warning for warning in parts.warnings if "of no use" in warning]
    assert parts.denoiser.config.upcast_attention is True
    family = FAMILIES["sd2"]
    with torch.no_grad():
        actual, expected = (family.encode_prompts(each, ["a red apple!"]) for each in (parts, own))
        assert torch.allclose(actual["embeds"], expected["embeds"], atol=1e-6)
        noisy, time = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([500.0])
        assert torch.allclose(family.predict(parts, noisy, time, actual), family.predict(own, noisy, time, expected), atol=1e-5)
    assert parts.text_encoders["text_encoder"].config.num_hidden_layers == 2
    assert parts.tokenizers["tokenizer"].pad_token == "!"


def test_an_epsilon_file_is_the_512_build(file: Path, tmp_path: Path) -> None:
    parts = loaded(rewritten(file, tmp_path / "e.safetensors", metadata={"modelspec.prediction_type": "epsilon"}))
    assert (parts.scheduler_class, parts.prediction, parts.resolution) == ("PNDMScheduler", "epsilon", 64 * parts.latent_factor)
    assert FAMILIES["sd2"].architecture_of(parts) == "stable-diffusion-v2-512"


@pytest.mark.slow
def test_the_names_are_those_diffusers_reads(tmp_path: Path) -> None:
    """Our map of OpenCLIP's names against diffusers' own converter."""
    from diffusers.loaders.single_file_utils import convert_open_clip_checkpoint
    from safetensors.torch import load_file

    folder = shared_folder("sd2", variant="v-standard")
    state = load_file(tiny_single_file(folder, tmp_path / "m.safetensors", family="sd2"))
    parts = loaded(folder)
    encoder = parts.text_encoders["text_encoder"]
    expected = convert_open_clip_checkpoint(encoder, dict(state), prefix="cond_stage_model.model.")
    expected = {key.removeprefix("text_model."): tensor for key, tensor in expected.items()}
    assert all(expected[key].equal(tensor) for key, tensor in encoder.state_dict().items())


def test_the_published_file_has_24_layers_and_the_model_23() -> None:
    from registry.families.sd2 import LAYOUT

    piece = LAYOUT.pieces[2]
    shapes = {
        "token_embedding.weight": TensorInfo("F16", (49408, 1024)),
        "positional_embedding": TensorInfo("F16", (77, 1024)),
        "text_projection": TensorInfo("F16", (1024, 1024)),
    }
    for layers in (24, 23):  # a file written from a folder has lost the last one already
        blocks = {f"transformer.resblocks.{i}.mlp.c_fc.weight": TensorInfo("F16", (4096, 1024)) for i in range(layers)}
        sizes = piece.sizes(shapes | blocks)
        assert all(sizes[name] == value for name, value in piece.published.items())
    assert piece.constants(sizes)["num_attention_heads"] == 16 and piece.constants(sizes)["hidden_act"] == "gelu"
    assert piece.spare({"num_hidden_layers": 23}, "transformer.resblocks.23.ln_1.weight")
    assert not piece.spare({"num_hidden_layers": 20}, "transformer.resblocks.23.ln_1.weight")


# --- builds that are known and not drawn


@pytest.mark.parametrize(("channels", "kind"), [(9, "inpaint"), (5, "depth")])
def test_builds_with_other_inputs_are_named_and_refused(channels: int, kind: str, tmp_path: Path) -> None:
    import diffusers

    folder = tiny_model("sd2", tmp_path / "base")
    config = json.loads((folder / "unet" / "config.json").read_text()) | {"in_channels": channels}
    diffusers.UNet2DConditionModel.from_config(config).save_pretrained(folder / "unet")
    assert inspect(folder).variant == kind
    with pytest.raises(BadFile, match=rf"has a UNet for {kind} \({channels} input channels"):
        loaded(folder)


def test_an_unclip_file_is_named_and_refused(file: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    added = {f"{P}label_emb.0.0.weight": torch.ones(8, 24), f"{P}label_emb.0.0.bias": torch.ones(8), "v_pred": torch.empty(0)}
    save_file(load_file(file) | added, tmp_path / "unclip.safetensors")
    assert (inspect(tmp_path / "unclip.safetensors").family, inspect(tmp_path / "unclip.safetensors").variant) == ("sd2", "unclip")
    with pytest.raises(Refused, match="unCLIP build"):
        loaded(tmp_path / "unclip.safetensors")


# --- text


def test_clip_skip_is_through_the_final_norm_and_never_for_the_negative() -> None:
    import torch

    family, parts = FAMILIES["sd2"], loaded(shared_folder("sd2"))
    encoder, tokenizer = parts.text_encoders["text_encoder"], parts.tokenizers["tokenizer"]
    ids = tokenizer(["a cat"], padding="max_length", max_length=tokenizer.model_max_length, return_tensors="pt").input_ids
    assert ids[0, -1] == 0  # padded with "!"
    with torch.no_grad():
        states = encoder(ids, output_hidden_states=True).hidden_states
        assert family.encode_prompts(parts, ["a cat"], clip_skip=1)["embeds"].equal(encoder.final_layer_norm(states[-2]))
        assert family.encode_unconditional(parts, 1)["embeds"].equal(family.encode_prompts(parts, [""])["embeds"])


# --- steering


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # of diffusers' schedulers under numpy 2
@pytest.mark.parametrize("masked", [False, True])
def test_a_steered_image_from_an_image_is_the_pipeline_s(masked: bool) -> None:
    """Image-to-image under a ControlNet, and inpainting, of the v build."""
    import diffusers
    import numpy
    import torch
    from PIL import Image

    from infer.draw.control import Steering
    from infer.draw.denoise import Job, denoise
    from infer.draw.samplers import build_scheduler
    from infer.draw.start import Start
    from tests.tiny import plain_pipeline, tiny_control, tiny_parts

    family, parts = tiny_parts("sd2", variant="v")
    base = plain_pipeline("sd2", variant="v")
    base.vae = parts.vae  # at other addresses its samples differ in their last bits
    shown, hint = numpy.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=numpy.uint8)
    mask = Image.new("L", (32, 32), 0)
    mask.paste(255, (0, 0, 16, 32))
    net = family.control.load(tiny_control("sd2"), parts, dtype=torch.float32, device="cpu")
    components = {
        name: part for name, part in base.components.items() if name not in ("image_encoder", "safety_checker", "feature_extractor")
    }
    components |= {"scheduler": build_scheduler(parts), "safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    if masked:
        pipeline = diffusers.StableDiffusionInpaintPipeline(**components)
        extra: dict[str, Any] = {"mask_image": mask, "height": 32, "width": 32}
    else:
        pipeline = diffusers.StableDiffusionControlNetImg2ImgPipeline(**components, controlnet=net)
        extra = {"control_image": Image.fromarray(hint), "controlnet_conditioning_scale": 0.7}
    pipeline.set_progress_bar_config(disable=True)
    settings: dict[str, Any] = {"strength": 0.6, "num_inference_steps": 7, "guidance_scale": 5.0, "output_type": "latent"}
    generator = torch.Generator("cpu").manual_seed(7)
    expected = pipeline(prompt="a red apple", image=Image.fromarray(shown), generator=generator, **settings, **extra).images

    def pixels(image: Any) -> Any:
        return torch.from_numpy(image.astype(numpy.float32)[None] / 255).permute(0, 3, 1, 2)

    redrawn = torch.from_numpy(numpy.asarray(mask, dtype=numpy.float32) / 255)[None, None] if masked else None
    with torch.no_grad():
        job = Job(
            conditional=family.encode_prompts(parts, ["a red apple"]),
            unconditional=family.encode_unconditional(parts, 1),
            guidance=5.0,
            steps=7,
            scheduler=build_scheduler(parts),
            seed=7,
            height=32,
            width=32,
            start=Start(pixels=2 * pixels(shown) - 1, strength=0.6, mask=redrawn),
            steerings=() if masked else (Steering(net=net, pixels=pixels(hint), scale=0.7),),
        )
    (actual,) = denoise(family, parts, [job])
    assert float((actual - expected).abs().max()) <= 1e-5 * max(1.0, float(expected.abs().max()))
