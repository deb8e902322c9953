"""Qwen-Image: its template, masks, guidance rule and video VAE, its files and the names of its adapters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from registry.detect.inspect import inspect, look
from registry.errors import BadFile, Refused
from registry.families import FAMILIES, qwen_image
from registry.record import Record
from tests.registry.made import model
from tests.tiny import plain_pipeline, shared_folder, tiny_adapter, tiny_model, tiny_parts, transformer_single_file

PROMPTS = ["a red apple", "hi {x}"]


def loaded(path: Path, base_config: Path | None = None, *, device: str = "cpu") -> Any:
    return FAMILIES["qwen_image"].load(path, dtype=torch.float32, device=device, base_config=base_config)


def state_of(prompts: list[str]) -> tuple[Any, Any, dict[str, Any]]:
    family, parts = tiny_parts("qwen_image")
    with torch.no_grad():
        return family, parts, family.encode_prompts(parts, prompts)


def answer(family: Any, parts: Any, state: dict[str, Any]) -> Any:
    noisy = torch.randn(len(state["embeds"]), 16, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return family.predict(parts, noisy, torch.full((len(noisy),), 500.0), state)


# --- text


def test_prompts_are_encoded_as_the_pipeline_does_it() -> None:
    _family, _parts, actual = state_of(PROMPTS)
    with torch.no_grad():
        reference, mask = plain_pipeline("qwen_image").encode_prompt(list(PROMPTS), max_sequence_length=512)
    assert actual["embeds"].equal(reference) and actual["mask"].equal(mask.bool())
    assert actual["mask"].sum(1).tolist()[0] > actual["mask"].sum(1).tolist()[1]


def test_a_mask_travels_though_it_hides_nothing() -> None:
    _family, _parts, alone = state_of(PROMPTS[:1])
    assert alone["mask"].dtype == torch.bool and bool(alone["mask"].all())


def test_padding_is_never_attended() -> None:
    family, parts, both = state_of(PROMPTS)
    short = {key: value[1:] for key, value in both.items()}
    kept = int(short["mask"].sum())
    alone = {key: value[:, :kept] for key, value in short.items()}
    assert float((answer(family, parts, short) - answer(family, parts, alone)).abs().max()) <= 1e-6
    seen = {**short, "mask": torch.ones_like(short["mask"])}
    assert float((answer(family, parts, short) - answer(family, parts, seen)).abs().max()) > 1e-3


def test_what_is_too_long_is_cut_to_what_the_pipeline_call_gives_it() -> None:
    family, parts, state = state_of(["word " * 120])
    needed, fit = family.count_tokens(parts, "word " * 120)
    assert state["embeds"].shape[1] == fit == 512 < needed
    short = family.encode_prompts(parts, ["hi"])
    assert short["embeds"].shape[1] == family.count_tokens(parts, "hi")[0]


def test_clip_skip_means_nothing_to_it() -> None:
    family, parts = tiny_parts("qwen_image")
    with pytest.raises(Refused, match="no layer to skip"):
        family.encode_prompts(parts, PROMPTS, clip_skip=1)


# --- guidance


def test_guidance_keeps_the_length_of_each_token() -> None:
    """Two tokens of 2 x 2 cells and one channel; each is scaled back to the conditional one's length of 5 and 10."""
    conditional = torch.tensor([[3.0, 4.0, 6.0, 8.0], [0.0, 0.0, 0.0, 0.0]]).view(1, 1, 2, 4)
    unconditional = torch.tensor([[3.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]).view(1, 1, 2, 4)
    guided = qwen_image.guide(conditional, unconditional, 2.0)  # combined: (3, 8) and (12, 16)
    expected = torch.tensor([3 * 5 / 73**0.5, 8 * 5 / 73**0.5, 6.0, 8.0])
    assert torch.allclose(guided[0, 0, 0], expected)


def test_an_unconditional_pass_needs_a_negative_prompt() -> None:
    family, parts = tiny_parts("qwen_image")
    assert family.guided(parts, 4.0, negative=True) and not family.guided(parts, 4.0, negative=False)
    assert not family.guided(parts, 1.0, negative=True)


# --- images


def test_latents_are_normalised_by_each_channel_s_own_numbers() -> None:
    family, parts = tiny_parts("qwen_image")
    pixels = torch.rand(2, 3, 64, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1
    config: Any = parts.vae.config
    middle, spread = (torch.tensor(numbers).view(1, -1, 1, 1) for numbers in (config.latents_mean, config.latents_std))
    with torch.no_grad():
        posterior = family.encode_images(parts, pixels)
        raw = parts.vae.encode(pixels[:, :, None]).latent_dist
        assert torch.allclose(posterior.mean * spread + middle, raw.mean[:, :, 0], atol=1e-6)
        noise = torch.ones_like(posterior.mean)
        assert torch.allclose(posterior.sample(noise) * spread + middle, (raw.mean + raw.std)[:, :, 0], atol=1e-6)
        assert posterior.mean.shape == (2, 16, 8, 6)
        images = family.decode(parts, posterior.mean)
        assert torch.allclose(images, parts.vae.decode(raw.mean).sample[:, :, 0], atol=1e-5)


# --- files


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model.", "transformer."])
def test_a_single_file_takes_the_rest_from_base_config(prefix: str, tmp_path: Path) -> None:
    folder = shared_folder("qwen_image")
    names = qwen_image.FILE_NAMES
    file = transformer_single_file(folder, tmp_path / "qwen.safetensors", names, prefix=prefix, original=False)
    record = inspect(file)
    assert (record.kind, record.family, record.variant, record.prediction.value) == ("checkpoint", "qwen_image", None, "flow")
    with pytest.raises(Refused, match=r"not bundled\. Give base_config=FOLDER"):
        loaded(file)
    actual, reference = loaded(file, folder), loaded(folder)
    expected = reference.denoiser.state_dict()
    assert all(tensor.equal(expected[name]) for name, tensor in actual.denoiser.state_dict().items())
    assert actual.source == file and "text encoders" in actual.warnings[0]


@pytest.mark.parametrize(
    ("class_name", "config", "variant"),
    [
        ("QwenImageEditPipeline", {}, "edit"),
        ("QwenImageEditPlusPipeline", {"zero_cond_t": True}, "edit-2511"),
        ("QwenImageLayeredPipeline", {"use_additional_t_cond": True}, "layered"),
        ("QwenImagePipeline", {}, None),
    ],
)
def test_a_folder_tells_its_variant(class_name: str, config: dict[str, Any], variant: str | None, tmp_path: Path) -> None:
    folder = changed(tmp_path, class_name, config)
    record = inspect(folder)
    assert (record.family, record.variant, record.prediction.source) == ("qwen_image", variant, "scheduler/scheduler_config.json")
    if config:
        with pytest.raises(BadFile, match=f"{next(iter(config))} in its config"):
            loaded(folder, device="meta")


def test_a_build_with_embedded_guidance_is_refused(tmp_path: Path) -> None:
    """diffusers' class cannot run one."""
    with pytest.raises(BadFile, match="guidance_embeds in its config"):
        loaded(changed(tmp_path, "QwenImagePipeline", {"guidance_embeds": True}), device="meta")


def changed(tmp_path: Path, class_name: str, config: dict[str, Any]) -> Path:
    """A folder of the tiny build that says something else of itself."""
    folder = tiny_model("qwen_image", tmp_path / "model")
    for file, reported in ((folder / "model_index.json", {"_class_name": class_name}), (folder / "transformer" / "config.json", config)):
        file.write_text(json.dumps({**json.loads(file.read_text()), **reported}))
    return folder


def test_a_single_file_tells_its_variant(tmp_path: Path) -> None:
    shapes = {"txt_norm.weight": (3584,), "img_in.weight": (8, 64), "transformer_blocks.0.attn.add_k_proj.weight": (8, 8)}
    model(tmp_path / "qwen.safetensors", shapes | {"__index_timestep_zero__": (1,)})
    assert inspect(tmp_path / "qwen.safetensors").variant == "edit-2511"


# --- adapters


def adapter(path: Path, *modules: str, width: int = 3072, down: str = ".lora_A.weight") -> Record:
    model(path, {f"{module}{down}": (4, width) for module in modules})
    return inspect(path)


@pytest.mark.parametrize(
    "modules",
    [
        ("transformer.transformer_blocks.0.attn.add_k_proj", "transformer.transformer_blocks.0.img_mlp.net.2"),
        ("diffusion_model.transformer_blocks.0.txt_mlp.net.0.proj",),
        ("diffusion_model.transformer_blocks.0.img_mod.1",),
        ("transformer.transformer_blocks.59.attn.to_q",),
    ],
)
def test_its_adapters_are_known_by_names_and_width(modules: tuple[str, ...], tmp_path: Path) -> None:
    record = adapter(tmp_path / "x.safetensors", *modules)
    assert (record.kind, record.family, record.components) == ("adapter", "qwen_image", ("transformer",))


def test_kohya_s_spelling_is_known(tmp_path: Path) -> None:
    record = adapter(tmp_path / "x.safetensors", "lora_unet_transformer_blocks_0_img_mlp_net_2", down=".lora_down.weight")
    assert (record.family, record.dialect) == ("qwen_image", "kohya")


def test_bare_attention_is_reported_by_its_width_or_not_at_all(tmp_path: Path) -> None:
    record = adapter(tmp_path / "x.safetensors", "transformer.transformer_blocks.0.attn.to_q")
    assert "qwen_image" in record.candidates or record.family == "qwen_image"
    adapter(tmp_path / "y.safetensors", "transformer.transformer_blocks.0.attn.to_q", width=1536)  # SD 3's
    assert FAMILIES["qwen_image"].recognise_adapter(look(tmp_path / "y.safetensors")) is None


def test_an_adapter_with_another_tool_s_named_adapter_is_read(tmp_path: Path) -> None:
    """`lora_A.default.weight`, as peft saves a model with its adapter's name."""
    from safetensors.torch import load_file, save_file

    family, parts = tiny_parts("qwen_image")
    file = tiny_adapter(parts.source, tmp_path / "a.safetensors", family="qwen_image", targets="attention_mlp")
    state = {key.replace(".weight", ".default.weight"): tensor for key, tensor in load_file(file).items()}
    save_file(state, tmp_path / "b.safetensors")
    plain, named = (family.lora_state(tmp_path / f"{name}.safetensors", parts)[0] for name in "ab")
    assert plain.keys() == named.keys() and all(tensor.equal(named[key]) for key, tensor in plain.items())


@pytest.mark.parametrize("component", ["transformer", "text_encoder", "vae"])
def test_a_folder_that_lacks_a_weight_is_refused(component: str, tmp_path: Path) -> None:
    """transformers fills in random numbers and goes on; diffusers stumbles over it later."""
    from safetensors.torch import load_file, save_file

    folder = tiny_model("qwen_image", tmp_path / "model")
    (file,) = (folder / component).glob("*.safetensors")
    state = load_file(file)
    gone = next(name for name in state if name.endswith("weight") and "lm_head" not in name and "visual" not in name)
    save_file({name: tensor for name, tensor in state.items() if name != gone}, file, metadata={"format": "pt"})
    with pytest.raises(BadFile, match=rf"lacks 1 of its model's weights \(first: .*{gone.rpartition('.')[0].rpartition('.')[2]}"):
        loaded(folder)
