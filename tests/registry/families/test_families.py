"""The families' functions on the tiny models: text, latents, one denoiser call, loading, recognising."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from registry.errors import BadFile, Faults, Refused
from registry.families import FAMILIES
from registry.formats.model_header import ModelHeader
from registry.formats.safetensors_header import TensorInfo
from tests.tiny import FAMILIES_HERE, POSITIONS, SIZES, plain_pipeline, shared_folder, tiny_parts, tiny_sd1

PROMPTS = ["a red apple", "hi!"]  # the second fits the tiny limit with room for padding
Model = tuple[str, Any, Any]


@pytest.fixture(scope="module", params=FAMILIES_HERE)
def model(request: pytest.FixtureRequest) -> Model:
    return (request.param, *tiny_parts(request.param))


def apart(actual: Any, expected: Any) -> float:
    return float((actual - expected).abs().max())


# --- text


def test_prompts_are_encoded_as_the_pipeline_does_it(model: Model) -> None:
    import torch

    name, family, parts = model
    pipeline = plain_pipeline(name)
    with torch.no_grad():
        actual = family.encode_prompts(parts, PROMPTS)
        if name == "flux1":
            embeds, pooled, _ids = pipeline.encode_prompt(PROMPTS, None, max_sequence_length=48)
        else:
            expected = pipeline.encode_prompt(
                prompt=PROMPTS, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=True, negative_prompt=None
            )
            embeds, nothing = expected[:2]
            pooled = expected[2] if name == "sdxl" else None
            negative = family.encode_unconditional(parts, 2)
            assert apart(negative["embeds"], nothing) == 0.0
            if name == "sdxl":
                assert apart(negative["pooled"], expected[3]) == 0.0 == float(negative["pooled"].abs().max())
    assert apart(actual["embeds"], embeds) == 0.0
    assert pooled is None or apart(actual["pooled"], pooled) == 0.0
    assert apart(actual["embeds"][0], actual["embeds"][1]) > 0.1


def test_sdxl_without_forced_zeros_encodes_the_empty_prompt() -> None:
    family, parts = tiny_parts("sdxl")
    parts.config = {**parts.config, "force_zeros_for_empty_prompt": False}
    assert family.encode_unconditional(parts, 1)["embeds"].equal(family.encode_prompts(parts, [""])["embeds"])


def test_clip_skip_of_sd1_is_the_layer_before_through_the_final_norm() -> None:
    """diffusers' own encode_prompt cannot do it under transformers 5: CLIPTextModel has lost its text_model."""
    import torch

    family, parts = tiny_parts("sd1")
    encoder = parts.text_encoders["text_encoder"]
    ids = parts.tokenizers["tokenizer"](PROMPTS, padding="max_length", max_length=POSITIONS, truncation=True, return_tensors="pt").input_ids
    with torch.no_grad():
        states = encoder(ids, output_hidden_states=True).hidden_states
        assert family.encode_prompts(parts, PROMPTS, clip_skip=1)["embeds"].equal(encoder.final_layer_norm(states[-2]))
        assert family.encode_prompts(parts, PROMPTS, clip_skip=0)["embeds"].equal(family.encode_prompts(parts, PROMPTS)["embeds"])
    for skip in (2, -1):
        with pytest.raises(Refused, match=rf"clip_skip is {skip}; this text encoder has 2 layers, so 0 to 1"):
            family.encode_prompts(parts, PROMPTS, clip_skip=skip)
    nothing = family.encode_unconditional(parts, 1)["embeds"]
    assert nothing.equal(family.encode_prompts(parts, [""])["embeds"])  # the pipelines never skip layers of the negative


def test_clip_skip_of_sdxl_is_diffusers_own() -> None:
    import torch

    family, parts = tiny_parts("sdxl")
    with torch.no_grad():
        actual = family.encode_prompts(parts, PROMPTS, clip_skip=0)["embeds"]
        expected = plain_pipeline("sdxl").encode_prompt(PROMPTS, device="cpu", do_classifier_free_guidance=False, clip_skip=0)[0]
    assert apart(actual, expected) == 0.0
    with pytest.raises(Refused, match="clip_skip is 1; this text encoder has 2 layers, so 0 to 0"):
        family.encode_prompts(parts, PROMPTS, clip_skip=1)


@pytest.mark.parametrize(("variant", "length"), [("dev", 512), ("schnell", 256)])
def test_flux_text_length_is_the_build_s_own(variant: str, length: int) -> None:
    """T5's padding is attended without a mask, so another length is another image."""
    family, parts = tiny_parts("flux1", variant=variant)
    assert family.encode_prompts(parts, ["a"])["embeds"].shape[1] == 48  # what the tiny tokenizer holds
    parts.tokenizers["tokenizer_2"].model_max_length = 512
    assert family.encode_prompts(parts, ["a"])["embeds"].shape[1] == length
    assert family.count_tokens(parts, "a")[1] == length


def test_clip_skip_means_nothing_to_flux() -> None:
    family, parts = tiny_parts("flux1")
    with pytest.raises(Refused, match="no layer to skip"):
        family.encode_prompts(parts, PROMPTS, clip_skip=1)


def test_tokens_are_counted_with_their_marks_and_the_model_s_own_limit(model: Model) -> None:
    name, family, parts = model
    needed, fit = family.count_tokens(parts, "red apple")
    marks, held = (1, 48) if name == "flux1" else (2, POSITIONS)
    assert fit == held
    assert needed == marks + len("redapple") + (2 if name == "flux1" else 0)  # T5's tokens for the two word beginnings
    long = "word " * 30
    needed, fit = family.count_tokens(parts, long)
    assert needed > fit
    shortened = family.encode_prompts(parts, [long])["embeds"]
    assert shortened.shape[1] == fit


def test_the_second_tokenizer_of_sdxl_pads_with_an_exclamation_mark() -> None:
    family, parts = tiny_parts("sdxl")
    padded = {name: parts.tokenizers[name]("hi", padding="max_length", max_length=8).input_ids[-1] for name in family.tokenizers}
    assert padded == {"tokenizer": 513, "tokenizer_2": 0}


# --- latents


def test_latents_are_scaled_and_shifted_by_the_vae_s_own_numbers(model: Model) -> None:
    import torch

    name, family, parts = model
    size = SIZES[name]
    pixels = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    config = parts.vae.config
    with torch.no_grad():
        posterior = family.encode_images(parts, pixels)
        raw = parts.vae.encode(pixels).latent_dist
        scale, shift = config.scaling_factor, config.shift_factor or 0.0
        assert torch.allclose(posterior.mean, (raw.mean - shift) * scale)
        noise = torch.randn(posterior.mean.shape, generator=torch.Generator().manual_seed(1))
        assert torch.allclose(posterior.sample(noise), (raw.mean + raw.std * noise - shift) * scale, atol=1e-6)
        assert torch.allclose(family.decode(parts, posterior.mean), parts.vae.decode(raw.mean).sample, atol=1e-5)
    assert posterior.mean.shape == (2, family.latent_channels, size // parts.latent_factor, size // parts.latent_factor)


def test_a_vae_with_a_mean_and_deviation_of_each_channel() -> None:
    import torch

    from registry.architectures.vae.kl import decode_kl, encode_kl

    _family, parts = tiny_parts("sdxl")
    vae = parts.vae
    pixels = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        raw = vae.encode(pixels).latent_dist
        vae.register_to_config(latents_mean=[1.0, 2.0, 3.0, 4.0], latents_std=[0.5, 1.0, 2.0, 4.0])
        posterior = encode_kl(vae, pixels)
        middle, spread = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 4, 1, 1), torch.tensor([0.5, 1.0, 2.0, 4.0]).view(1, 4, 1, 1)
        assert torch.allclose(posterior.mean, (raw.mean - middle) / spread * vae.config.scaling_factor)
        assert torch.allclose((0.5 * torch.as_tensor(posterior.logvar)).exp(), raw.std / spread * vae.config.scaling_factor, rtol=1e-4)
        assert torch.allclose(decode_kl(vae, posterior.mean), vae.decode(raw.mean).sample, atol=1e-4)


# --- the denoiser


def test_a_timestep_per_sample(model: Model) -> None:
    import torch

    name, family, parts = model
    size = SIZES[name]
    with torch.no_grad():
        conditioning = family.complete(parts, family.encode_prompts(parts, PROMPTS), height=size, width=size, guidance=3.0)
        noisy = torch.randn(2, family.latent_channels, 8, 8, generator=torch.Generator().manual_seed(0))
        together = family.predict(parts, noisy, torch.tensor([37.0, 731.0]), conditioning)
        for row, time in enumerate((37.0, 731.0)):
            alone = {key: value[row : row + 1] for key, value in conditioning.items()}
            assert apart(together[row : row + 1], family.predict(parts, noisy[row : row + 1], torch.tensor([time]), alone)) <= 2e-6
        later = family.predict(parts, noisy, torch.tensor([731.0, 37.0]), conditioning)
    assert together.shape == noisy.shape
    assert apart(together, later) > 1e-3  # the time plays a part


def test_every_condition_plays_a_part(model: Model) -> None:
    """A dropped condition passes unnoticed on a dull model: each tensor, changed alone, changes the prediction."""
    import torch

    name, family, parts = model
    size = SIZES[name]
    with torch.no_grad():
        conditioning = family.complete(parts, family.encode_prompts(parts, PROMPTS[:1]), height=size, width=size, guidance=3.0)
        noisy, time = torch.randn(1, family.latent_channels, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([500.0])
        base = family.predict(parts, noisy, time, conditioning)
        for key, value in conditioning.items():
            changed = family.predict(parts, noisy, time, {**conditioning, key: value + value.abs().mean() + 1.0})
            assert apart(base, changed) > 1e-5, key


def test_sdxl_size_ids_are_one_row_a_sample() -> None:
    """The pipeline's own order (negative, positive, negative, ...) is wrong for batches whose size ids differ."""
    family, parts = tiny_parts("sdxl")
    conditioning = family.complete(parts, family.encode_prompts(parts, PROMPTS), height=64, width=32, guidance=5.0)
    assert conditioning["time_ids"].tolist() == [[64.0, 32.0, 0.0, 0.0, 64.0, 32.0]] * 2


def test_sdxl_is_trained_with_each_images_own_size_and_crop() -> None:
    import torch

    family, parts = tiny_parts("sdxl")
    conditioning = family.complete(parts, family.encode_prompts(parts, PROMPTS), height=32, width=32, guidance=5.0)
    assert family.condition_on_crop is not None
    own = family.condition_on_crop(conditioning, torch.tensor([[100, 300, 0, 32], [40, 20, 16, 0]]))
    assert own["time_ids"].tolist() == [[100.0, 300.0, 0.0, 32.0, 32.0, 32.0], [40.0, 20.0, 16.0, 0.0, 32.0, 32.0]]


def test_flux_guidance_is_given_only_where_it_is_embedded() -> None:
    for variant, embedded in (("dev", True), ("schnell", False)):
        family, parts = tiny_parts("flux1", variant=variant)
        conditioning = family.complete(parts, family.encode_prompts(parts, PROMPTS), height=64, width=64, guidance=2.5)
        assert ("guidance" in conditioning) is embedded
        assert not embedded or conditioning["guidance"].tolist() == [2.5, 2.5]
        assert any("no guidance" in warning for warning in parts.warnings) is not embedded


def test_flux_tokens_are_two_by_two_cells_and_come_back() -> None:
    import torch

    from registry.architectures.transformer.packing import pack, unpack

    latents = torch.arange(2 * 16 * 4 * 6, dtype=torch.float32).view(2, 16, 4, 6)
    tokens = pack(latents)
    assert tokens.shape == (2, 6, 64)
    assert tokens[0, 1, :4].tolist() == latents[0, 0, 0:2, 2:4].flatten().tolist()  # second token: the next two columns
    assert unpack(tokens, like=latents).equal(latents)


# --- loading


def test_a_half_precision_folder_is_loaded_as_asked_in_every_component(tmp_path: Path) -> None:
    """transformers takes a file's own dtype where none is given: mixed precision, and a crash at the first step."""
    import torch

    pipeline = plain_pipeline("sd1").to(torch.float16)
    pipeline.save_pretrained(tmp_path / "half")
    parts = FAMILIES["sd1"].load(tmp_path / "half", dtype=torch.float32, device="cpu")
    dtypes = {weight.dtype for module in (parts.denoiser, parts.vae, *parts.text_encoders.values()) for weight in module.parameters()}
    assert dtypes == {torch.float32}
    assert FAMILIES["sd1"].load(tmp_path / "half", dtype=torch.bfloat16, device="cpu").dtype == torch.bfloat16


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sd1", pytest.param("sdxl", marks=pytest.mark.slow)])
def test_a_folder_as_older_libraries_wrote_it(name: str, tmp_path: Path) -> None:
    """The published folders: CLIP's keys under text_model with position ids, a dtype in the config, tokenizers of two text files."""
    import torch
    from safetensors.torch import load_file, save_file

    from registry.home import clip_bpe_dir

    new = shared_folder(name, standard=True)
    old = shutil.copytree(new, tmp_path / "old")
    family = FAMILIES[name]
    for component in family.text_encoders:
        path = old / component / "model.safetensors"
        inner = ("text_model.", "text_projection.")
        state = {key if key.startswith(inner) else f"text_model.{key}": value for key, value in load_file(path).items()}
        save_file(state | {"text_model.embeddings.position_ids": torch.arange(POSITIONS)[None]}, path, metadata={"format": "pt"})
        config = json.loads((old / component / "config.json").read_text())
        config |= {"torch_dtype": config.pop("dtype", "float32").replace("32", "16"), "transformers_version": "4.21.0"}
        (old / component / "config.json").write_text(json.dumps(config))
    for component in family.tokenizers:
        shutil.rmtree(old / component)
        (old / component).mkdir()
        for file in ("vocab.json", "merges.txt"):
            shutil.copy(clip_bpe_dir() / file, old / component)
        pad = "!" if component == "tokenizer_2" else "<|endoftext|>"
        settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": POSITIONS, "pad_token": pad, "do_lower_case": True}
        (old / component / "tokenizer_config.json").write_text(json.dumps(settings))
    prompts = ["A photo of a CAT, sitting! on (a) café-mat 3.14", "don't  stop"]
    actual, expected = (
        family.encode_prompts(family.load(folder, dtype=torch.float32, device="cpu"), prompts)["embeds"] for folder in (old, new)
    )
    assert actual.equal(expected)


def test_sdxl_s_vae_is_kept_in_float32_where_half_overflows() -> None:
    import torch

    family = FAMILIES["sdxl"]
    parts = family.load(shared_folder("sdxl"), dtype=torch.float16, device="cpu")
    assert parts.dtype == torch.float16
    assert next(parts.vae.parameters()).dtype == torch.float32
    with torch.no_grad():
        assert family.decode(parts, torch.zeros(1, 4, 8, 8, dtype=torch.float16)).dtype == torch.float32


def test_what_a_model_says_of_itself(model: Model) -> None:
    name, _family, parts = model
    assert (parts.latent_factor, parts.resolution) == {"sd1": (4, 32), "sdxl": (4, 32), "flux1": (8, 1024)}[name]
    assert parts.prediction == ("flow" if name == "flux1" else "epsilon")
    assert not any(weight.requires_grad for weight in parts.denoiser.parameters())
    assert not parts.denoiser.training and not parts.vae.training


def test_a_skeleton_has_every_shape_and_no_weight(model: Model) -> None:
    import torch

    name, family, parts = model
    skeleton = family.load(shared_folder(name), dtype=torch.bfloat16, device="meta")
    for actual, expected in zip((skeleton.denoiser, skeleton.vae), (parts.denoiser, parts.vae), strict=True):
        assert {key: value.shape for key, value in actual.state_dict().items()} == {
            key: value.shape for key, value in expected.state_dict().items()
        }
        assert {(weight.device.type, weight.dtype) for weight in actual.parameters()} == {("meta", torch.bfloat16)}
    assert family.count_tokens(skeleton, "a cat") == family.count_tokens(parts, "a cat")
    assert (skeleton.prediction, skeleton.latent_factor, skeleton.resolution) == (parts.prediction, parts.latent_factor, parts.resolution)


@pytest.mark.slow
def test_every_module_the_families_are_made_of_can_be_imported_first() -> None:
    """Importing what families share imports no family, and nothing heavy: the order of imports never matters."""
    import subprocess
    import sys

    root = Path(__file__).parents[3]
    rooms = [*(root / "registry" / "architectures").rglob("*.py"), *(root / "registry" / "formats").glob("*.py")]
    names = [".".join(path.relative_to(root).with_suffix("").parts) for path in rooms if path.stem != "__init__"]
    code = f"""
import importlib, sys
for name in {names!r}:
    for module in [module for module in sys.modules if module.split(".")[0] == "registry"]:
        del sys.modules[module]
    importlib.import_module(name)
    assert not any(module.startswith("registry.families") for module in sys.modules), name
    assert importlib.import_module("registry.families").FAMILIES
assert not {{"torch", "diffusers", "transformers"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)


def test_the_prediction_is_the_scheduler_s() -> None:
    assert tiny_parts("sd1", prediction="v_prediction")[1].prediction == "v_prediction"


def test_all_that_is_wrong_with_a_folder_is_reported_at_once(tmp_path: Path) -> None:
    folder = tiny_sd1(tmp_path / "base")
    index = json.loads((folder / "model_index.json").read_text())
    index |= {"unet": ["my_code", "MyUNet"], "vae": ["diffusers", "AutoencoderNone"], "text_encoder": [None, None]}
    (folder / "model_index.json").write_text(json.dumps(index))
    import torch

    with pytest.raises(Faults) as reported:
        FAMILIES["sd1"].load(folder, dtype=torch.float32, device="cpu")
    message = str(reported.value)
    assert "wants code from 'my_code'" in message
    assert "AutoencoderNone, which the installed diffusers does not have" in message
    assert "has no component 'text_encoder'" in message


def test_pickled_weights_are_not_opened(tmp_path: Path) -> None:
    import torch

    folder = tiny_sd1(tmp_path / "base")
    weights = next((folder / "unet").glob("*.safetensors"))
    weights.rename(folder / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(BadFile, match="only pickled weights") as reported:
        FAMILIES["sd1"].load(folder, dtype=torch.float32, device="cpu")
    assert reported.value.code == "pickle"


def test_an_inpainting_unet_is_refused(tmp_path: Path) -> None:
    import diffusers
    import torch

    folder = tiny_sd1(tmp_path / "base")
    config = json.loads((folder / "unet" / "config.json").read_text()) | {"in_channels": 9}
    diffusers.UNet2DConditionModel.from_config(config).save_pretrained(folder / "unet")
    with pytest.raises(BadFile, match=r"a UNet for inpaint \(9 input channels"):
        FAMILIES["sd1"].load(folder, dtype=torch.float32, device="cpu")


def test_a_prediction_nobody_trains_is_refused(tmp_path: Path) -> None:
    import torch

    folder = tiny_sd1(tmp_path / "base")
    path = folder / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"prediction_type": "sample"}))
    with pytest.raises(BadFile, match="predicts 'sample'; this family knows epsilon or v_prediction"):
        FAMILIES["sd1"].load(folder, dtype=torch.float32, device="cpu")


def test_a_base_config_beside_a_folder_is_refused(model: Model) -> None:
    import torch

    name, family, _parts = model
    with pytest.raises(Refused, match="a diffusers folder with configs of its own"):
        family.load(shared_folder(name), dtype=torch.float32, device="cpu", base_config=shared_folder(name))


# --- recognising


def look_at(folder: Path) -> ModelHeader:
    from registry.detect.inspect import look

    return look(folder)


@pytest.mark.parametrize("name", FAMILIES_HERE)
def test_a_folder_is_claimed_by_its_own_family_only(name: str) -> None:
    seen = look_at(shared_folder(name))
    claims = {other: FAMILIES[other].recognise_checkpoint(seen) for other in FAMILIES_HERE}
    assert [other for other, claim in claims.items() if claim] == [name]
    claim = claims[name]
    assert claim is not None and claim.prediction == ("flow" if name == "flux1" else "epsilon")
    assert claim.prediction_source == "scheduler/scheduler_config.json"


def adapter_look(tensors: dict[str, tuple[int, ...]], **metadata: str) -> ModelHeader:
    info = {name: TensorInfo("F32", shape) for name, shape in tensors.items()}
    return ModelHeader(path=Path("adapter.safetensors"), tensors=info, metadata=metadata)


SLIDER: dict[str, tuple[int, ...]] = {"lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q.lora_down.weight": (4, 320)}


@pytest.mark.parametrize(
    ("tensors", "metadata", "family"),
    [
        ({"lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k.lora_down.weight": (4, 768)}, {}, "sd1"),
        ({"unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.lora_A.weight": (4, 2048)}, {}, "sdxl"),
        ({"lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k.lora_down.weight": (4, 2048)}, {}, "sdxl"),
        ({"unet.down_blocks.1.attentions.0.transformer_blocks.9.attn1.to_q.lora_A.weight": (4, 1280)}, {}, "sdxl"),
        (SLIDER | {"lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": (4, 1280)}, {}, "sdxl"),
        (SLIDER, {"ss_base_model_version": "sd_v1"}, "sd1"),
        (SLIDER, {"modelspec.architecture": "stable-diffusion-xl-v1-base/lora"}, "sdxl"),
        ({"unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k.lora_A.weight": (4, 1024)}, {}, None),  # SD 2
        ({"lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight": (4, 3072)}, {}, "flux1"),
        ({"transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight": (4, 3072)}, {}, "flux1"),
        ({"transformer.single_transformer_blocks.0.attn.to_qkv_mlp_proj.lora_A.weight": (4, 3072)}, {}, None),  # FLUX.2
        ({"transformer.transformer_blocks.0.attn.to_q.lora_A.weight": (4, 1536)}, {}, None),  # SD 3
    ],
)
def test_an_adapter_is_claimed_with_confidence_by_one_family(tensors: Any, metadata: dict[str, str], family: str | None) -> None:
    seen = adapter_look(tensors, **metadata)
    claims = {name: claim for name in FAMILIES_HERE if (claim := FAMILIES[name].recognise_adapter(seen)) and claim.score > 0.5}
    assert list(claims) == ([family] if family else [])


def test_a_slider_that_could_be_either_is_claimed_by_both_without_confidence() -> None:
    claims = {name: FAMILIES[name].recognise_adapter(adapter_look(SLIDER)) for name in FAMILIES_HERE}
    assert {name: claim.score for name, claim in claims.items() if claim} == {"sd1": 0.3, "sdxl": 0.3}


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES_HERE)
def test_presets_name_layers_that_exist_and_grow(name: str) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    counts = []
    for targets in FAMILIES[name].lora_presets.values():
        _family, parts = tiny_parts(name)
        wanted = targets if isinstance(targets, str) else list(targets)
        inject_adapter_in_model(LoraConfig(r=2, target_modules=wanted), parts.denoiser)
        layers = {key.rpartition(".lora_A.")[0] for key in parts.denoiser.state_dict() if ".lora_A." in key}
        assert "proj_out" not in layers, "the last layer of FLUX.1 has the name of a block's"
        counts.append(len(layers))
    assert counts == sorted(set(counts)) and len(counts) == 3
