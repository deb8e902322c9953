"""Stable Diffusion 3 and 3.5: names of the original implementation, what files hold, T5 left out, the doubled shift, kohya's adapters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from registry.architectures.transformer.sd3_names import FILE_NAMES, PIECES
from registry.detect.inspect import inspect, look
from registry.errors import BadFile, Faults, Refused
from registry.families import FAMILIES
from registry.formats.model_header import ModelHeader
from registry.formats.safetensors_header import TensorInfo
from tests.tiny import plain_pipeline, shared_folder, tiny_adapter, tiny_dataset, tiny_model, tiny_parts, transformer_single_file

PROMPT = "a red apple"


def loaded(path: Path, base_config: Path | None = None) -> Any:
    import torch

    return FAMILIES["sd3"].load(path, dtype=torch.float32, device="cpu", base_config=base_config)


def whole_file(folder: Path, out: Path, *components: str) -> Path:
    """The transformer in its first names and these components beside it, as published files have them."""
    from safetensors.torch import load_file, save_file

    transformer_single_file(folder, out, FILE_NAMES, prefix="model.diffusion_model.")
    tensors, parts = load_file(out), loaded(folder)
    modules = {"vae": parts.vae, **parts.text_encoders}
    for piece in (piece for piece in PIECES if piece.component in components):
        module: Any = modules[piece.component]
        for name, tensor in module.state_dict().items():
            location = piece.location(module.config, name, tuple(tensor.shape))
            assert location is not None
            if name not in piece.identities:
                convolution = ".attn_1." in location.key and tensor.ndim == 2  # LDM's VAE has 1 x 1 convolutions there
                tensors[piece.prefix + location.key] = (tensor[:, :, None, None] if convolution else tensor).clone().contiguous()
    save_file(tensors, out)
    return out


def same(actual: Any, reference: Any) -> bool:
    state = reference.state_dict()
    return bool(state) and all(state.pop(name).equal(tensor) for name, tensor in actual.state_dict().items()) and not state


# --- what it is


@pytest.mark.parametrize("variant", ["3", "3.5"])
def test_a_folder_is_claimed_by_sd3_only(variant: str) -> None:
    claims = {name: family.recognise_checkpoint(look(shared_folder("sd3", variant=variant))) for name, family in FAMILIES.items()}
    assert [name for name, claim in claims.items() if claim] == ["sd3"]
    record = inspect(shared_folder("sd3", variant=variant))
    assert (record.family, record.prediction.value, record.prediction.source) == ("sd3", "flow", "scheduler/scheduler_config.json")
    assert (record.variant == "3.5-medium") is (variant == "3.5")


@pytest.mark.parametrize(
    ("modules", "width", "claimed"),
    [
        (["lora_unet_joint_blocks_0_x_block_attn_qkv", "lora_unet_joint_blocks_23_context_block_mlp_fc1"], 1536, True),
        (["lora_unet_joint_blocks_37_x_block_attn_qkv"], 2432, True),
        (["diffusion_model.joint_blocks.0.context_block.attn.qkv"], 1536, True),
        (["transformer.transformer_blocks.0.attn.add_q_proj", "transformer.transformer_blocks.0.attn.to_q"], 1536, True),
        (["transformer.transformer_blocks.0.attn.add_q_proj", "transformer.transformer_blocks.0.attn.to_q"], 3072, False),
        (["lora_unet_double_blocks_0_img_attn_qkv"], 3072, False),
    ],
)
def test_its_adapters_are_reported_in_every_spelling(modules: list[str], width: int, claimed: bool) -> None:
    tensors = {f"{module}.lora_down.weight": TensorInfo("F16", (4, width)) for module in modules}
    seen = ModelHeader(path=Path("a.safetensors"), tensors=tensors)
    assert (FAMILIES["sd3"].recognise_adapter(seen) is not None) is claimed


# --- single files


def test_the_names_are_those_diffusers_reads(tmp_path: Path) -> None:
    """Its converter on every tensor of a build with norms and second attentions; the last block's text stream is turned round."""
    from diffusers.loaders.single_file_utils import convert_sd3_transformer_checkpoint_to_diffusers
    from safetensors.torch import load_file

    folder = shared_folder("sd3", variant="3.5")
    file = transformer_single_file(folder, tmp_path / "sd3.safetensors", FILE_NAMES, prefix="model.diffusion_model.")
    reference = convert_sd3_transformer_checkpoint_to_diffusers(load_file(file))
    own = loaded(folder).denoiser.state_dict()
    assert reference.keys() == own.keys()
    assert [name for name, tensor in own.items() if not reference[name].equal(tensor)] == []


@pytest.mark.slow
@pytest.mark.parametrize("components", [(), ("vae",), ("vae", "text_encoder", "text_encoder_2", "text_encoder_3")], ids=len)
def test_a_file_gives_what_it_holds_and_the_folder_the_rest(components: tuple[str, ...], tmp_path: Path) -> None:
    """Everything differs from the folder's, so that nothing can be taken from the wrong one."""
    import torch

    folder = tiny_model("sd3", tmp_path / "own", variant="3.5")
    parts = loaded(folder)
    with torch.no_grad():
        for name in ("transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3"):
            module = {"transformer": parts.denoiser, "vae": parts.vae, **parts.text_encoders}[name]
            for weight in module.parameters():
                weight.mul_(1.5)
            if name == "text_encoder":
                module.text_projection.weight.copy_(torch.eye(*module.text_projection.weight.shape))
            module.save_pretrained(folder / name)
    file = whole_file(folder, tmp_path / "sd3.safetensors", *components)
    record = inspect(file)
    assert (record.family, record.kind, record.prediction.value) == ("sd3", "checkpoint", "flow")
    read, own, rest = loaded(file, shared_folder("sd3", variant="3.5")), loaded(folder), loaded(shared_folder("sd3", variant="3.5"))
    assert same(read.denoiser, own.denoiser) and read.source == file
    assert same(read.vae, own.vae if "vae" in components else rest.vae)
    for name in own.text_encoders:
        assert same(read.text_encoders[name], (own if name in components else rest).text_encoders[name]), name
    assert [warning for warning in read.warnings if "are not used" in warning] == []
    assert any(("holds transformer, vae" if components else "holds a transformer;") in warning for warning in read.warnings)


def test_a_file_alone_is_refused_with_the_word_that_helps(tmp_path: Path) -> None:
    file = transformer_single_file(shared_folder("sd3"), tmp_path / "sd3.safetensors", FILE_NAMES)
    with pytest.raises(Refused, match="base_config=FOLDER"):
        loaded(file)


def test_a_folder_of_another_build_is_refused(tmp_path: Path) -> None:
    file = transformer_single_file(shared_folder("sd3", variant="3.5"), tmp_path / "sd3.safetensors", FILE_NAMES)
    with pytest.raises(Refused, match=r"has 2 blocks, 1 of them with a second attention; base_config=.* has 2 and 0"):
        loaded(file, shared_folder("sd3"))


def test_a_transformer_of_other_latents_is_refused(tmp_path: Path) -> None:
    import diffusers

    folder = tiny_model("sd3", tmp_path / "base")
    config = dict(diffusers.SD3Transformer2DModel.load_config(folder / "transformer")) | {"in_channels": 33}
    diffusers.SD3Transformer2DModel.from_config(config).save_pretrained(folder / "transformer")
    with pytest.raises(BadFile, match="of 33 channels"):
        loaded(folder)


# --- text


@pytest.mark.slow
def test_prompts_are_encoded_as_the_pipeline_does_it() -> None:
    import torch

    family, parts = tiny_parts("sd3")
    with torch.no_grad():
        for skip in (None, 0):
            actual = family.encode_prompts(parts, [PROMPT, "b"], clip_skip=skip)
            reference = plain_pipeline("sd3").encode_prompt([PROMPT, "b"], None, None, device="cpu", clip_skip=skip, max_sequence_length=48)
            assert torch.allclose(actual["embeds"], reference[0], atol=1e-6) and torch.allclose(actual["pooled"], reference[2], atol=1e-6)
        assert torch.allclose(family.encode_unconditional(parts, 2)["embeds"], reference[1], atol=1e-6)
    assert actual["embeds"].shape[1] == 24 + 48
    parts.tokenizers["tokenizer_3"].model_max_length = 512
    with torch.no_grad():
        assert family.encode_prompts(parts, ["a"])["embeds"].shape[1] == 24 + 256  # diffusers' own length


def test_without_t5_zeros_stand_for_its_states_and_that_is_said() -> None:
    import torch

    family, parts = tiny_parts("sd3", variant="3-no_t5")
    with torch.no_grad():
        embeds = family.encode_prompts(parts, [PROMPT])["embeds"]
    assert embeds.shape == (1, 24 + 256, 96)
    assert float(embeds[:, 24:].abs().max()) == 0.0 < float(embeds[:, :24].abs().max())
    assert any("has no T5" in warning for warning in parts.warnings)
    assert set(parts.text_encoders) == {"text_encoder", "text_encoder_2"} and "tokenizer_3" not in parts.tokenizers
    assert family.count_tokens(parts, "ab")[1] == 24


def test_a_null_in_the_index_is_t5_left_out(tmp_path: Path) -> None:
    import json

    folder = tiny_model("sd3", tmp_path / "base")
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"text_encoder_3": [None, None], "tokenizer_3": [None, None]}))
    assert "text_encoder_3" not in loaded(folder).text_encoders


def test_a_t5_that_is_named_and_not_there_is_refused_with_what_to_do(tmp_path: Path) -> None:
    import shutil

    folder = tiny_model("sd3", tmp_path / "base")
    shutil.rmtree(folder / "text_encoder_3")
    with pytest.raises(Refused, match=r"names a T5 .* that is not there.*null, null"):
        loaded(folder)


# --- denoising


def test_a_static_shift_is_applied_twice_at_the_low_end() -> None:
    """The scheduler's own ends are shifted already: 8.93 is the last step, where even sigmas would give 500."""
    import diffusers

    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    FAMILIES["sd3"].set_timesteps(scheduler, 4, height=1024, width=1024)
    assert [round(float(time), 2) for time in scheduler.timesteps] == [1000.0, 857.69, 602.15, 8.93]


def test_a_dynamic_shift_goes_by_the_image_s_tokens() -> None:
    import diffusers
    from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import calculate_shift

    actual, reference = (diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True) for _ in range(2))
    FAMILIES["sd3"].set_timesteps(actual, 4, height=512, width=768)
    reference.set_timesteps(4, mu=calculate_shift(32 * 48, max_shift=reference.config.get("max_shift", 1.16)))
    assert actual.timesteps.equal(reference.timesteps)


def test_a_size_beyond_the_table_of_places_is_refused_by_every_plan(tmp_path: Path) -> None:
    from infer.draw.denoise import check_size
    from infer.draw.render import Render
    from infer.draw.resolve import Resolver
    from registry.store import Store
    from train import run
    from train.config import DataConfig, TrainConfig

    family, parts = tiny_parts("sd3")  # 24 positions of 16 pixels
    check_size(family, parts, height=384, width=64)
    with pytest.raises(Refused, match="400x64 pixels; this build of sd3 has position embeddings for 384 a side"):
        check_size(family, parts, height=64, width=400)
    store, base = Store(tmp_path / "home"), str(shared_folder("sd3"))
    with pytest.raises(Faults, match="position embeddings for 384"):
        Resolver(store).resolve(Render(base=base, width=400, height=64))
    data = DataConfig(path=str(tiny_dataset(tmp_path / "set", 3)))
    with pytest.raises(Refused, match=r"resolution=400: this build of sd3 has position embeddings for 384"):
        run.plan(TrainConfig(base=base, data=data, resolution=400, device="cpu"), store)


@pytest.mark.parametrize("masked", [False, True])
def test_image_to_image_and_inpainting_are_the_pipelines(masked: bool) -> None:
    import diffusers
    import numpy
    import torch
    from PIL import Image

    from infer.draw.denoise import Job, denoise
    from infer.draw.samplers import build_scheduler
    from infer.draw.start import Start

    family, parts = tiny_parts("sd3")
    base = plain_pipeline("sd3")
    base.vae = parts.vae  # at other addresses its samples differ in their last bits
    name = "StableDiffusion3InpaintPipeline" if masked else "StableDiffusion3Img2ImgPipeline"
    pipeline = getattr(diffusers, name)(**{**base.components, "scheduler": build_scheduler(parts)})
    pipeline.set_progress_bar_config(disable=True)
    noise = numpy.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=numpy.uint8)
    mask = Image.new("L", (64, 64), 0)
    mask.paste(255, (0, 0, 32, 64))
    reference = pipeline(
        prompt=PROMPT,
        image=Image.fromarray(noise),
        **({"mask_image": mask} if masked else {}),
        height=64,
        width=64,
        strength=0.6,
        num_inference_steps=7,
        guidance_scale=7.0,
        max_sequence_length=48,
        generator=torch.Generator("cpu").manual_seed(7),
        output_type="latent",
    ).images
    pixels = torch.from_numpy(noise).permute(2, 0, 1)[None].float() / 127.5 - 1
    shown = torch.from_numpy(numpy.asarray(mask, dtype=numpy.float32) / 255)[None, None] if masked else None
    with torch.no_grad():
        job = Job(
            conditional=family.encode_prompts(parts, [PROMPT]),
            unconditional=family.encode_unconditional(parts, 1),
            guidance=7.0,
            steps=7,
            scheduler=build_scheduler(parts),
            seed=7,
            height=64,
            width=64,
            start=Start(pixels=pixels, strength=0.6, mask=shown),
        )
    (actual,) = denoise(family, parts, [job])
    assert float((actual - reference).abs().max()) <= 1e-5 * max(1.0, float(reference.abs().max()))


# --- adapters


@pytest.mark.slow
def test_a_file_in_kohya_s_names_does_what_diffusers_names_do(tmp_path: Path) -> None:
    """Fused q, k, v and the last block's modulation included; diffusers' own loader reads such a file to no effect."""
    import torch
    from safetensors.torch import load_file, save_file

    from registry.architectures.transformer.sd3_names import LAYERS
    from registry.formats.layers import Spellings

    folder = shared_folder("sd3", variant="3.5")
    family, parts = tiny_parts("sd3", variant="3.5")
    file = tiny_adapter(folder, tmp_path / "a.safetensors", family="sd3", targets="modulation", rank=2)
    state, _facts = family.lora_state(file, parts)
    spellings, kohya, expected = Spellings(LAYERS), dict[str, Any](), dict[str, Any]()
    for name, up in load_file(file).items():
        module, _, role = name.removeprefix("transformer.").rpartition(".lora_")
        found = spellings.find(module)
        if role != "B.weight" or found is None or found.part not in (0, None):
            continue
        layer, downs = found.layer, state[f"transformer.{module}.lora_A.weight"]  # q's factor for all three: kohya's have one in common
        ups = torch.cat([state[f"transformer.{own}.lora_B.weight"] for own in layer.modules])
        expected |= {f"transformer.{own}.lora_A.weight": downs for own in layer.modules}
        expected |= {f"transformer.{own}.lora_B.weight": state[f"transformer.{own}.lora_B.weight"] for own in layer.modules}
        ups = torch.cat(ups.chunk(2)[::-1]) if layer.swaps(len(up), downs.shape[1]) else ups
        flat = f"lora_unet_{layer.original.replace('.', '_')}"
        kohya |= {f"{flat}.lora_down.weight": downs.clone(), f"{flat}.lora_up.weight": ups, f"{flat}.alpha": torch.tensor(1.0)}
    assert {"lora_unet_joint_blocks_1_context_block_adaLN_modulation_1.alpha", "lora_unet_joint_blocks_0_x_block_attn2_qkv.alpha"} <= set(
        kohya
    )
    save_file(kohya, tmp_path / "kohya.safetensors")
    record = inspect(tmp_path / "kohya.safetensors")
    assert (record.kind, record.family, record.dialect) == ("adapter", "sd3", "kohya")
    read, facts = family.lora_state(tmp_path / "kohya.safetensors", parts)
    assert read.keys() == expected.keys() == state.keys()
    assert [name for name, tensor in read.items() if not tensor.equal(expected[name])] == []
    assert set(facts["metadata"]["transformer.alpha_pattern"].values()) == {1.0}


def test_kohya_s_file_of_another_build_is_refused_and_never_read_in_part(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    family, parts = tiny_parts("sd3")
    name = "lora_unet_joint_blocks_0_x_block_attn2_qkv"  # a second attention, which this build has not
    save_file({f"{name}.lora_down.weight": torch.ones(2, 32), f"{name}.lora_up.weight": torch.ones(96, 2)}, tmp_path / "a.safetensors")
    with pytest.raises(Refused, match="does not fit this model: 0 of its 2 tensors"):
        family.lora_state(tmp_path / "a.safetensors", parts)


# --- training


@pytest.mark.slow
def test_its_middle_timesteps_are_trained_most_and_its_build_is_named(tmp_path: Path) -> None:
    from registry.store import Store
    from train import run
    from train.config import DataConfig, TrainConfig

    data = DataConfig(path=str(tiny_dataset(tmp_path / "set", 4)))
    made = run.plan(TrainConfig(base=str(shared_folder("sd3")), data=data, resolution=64, device="cpu"), Store(tmp_path / "home"))
    assert made.config.objective.timesteps == "logit_normal"
    names = {variant: FAMILIES["sd3"].architecture_of(tiny_parts("sd3", variant=variant)[1]) for variant in ("3", "3.5")}
    assert names == {"3": "stable-diffusion-v3-medium", "3.5": "stable-diffusion-v3.5-medium"}
