"""FLUX.2: dev and klein distinguished, text layers, the VAE's statistics, single files, and adapters that stay with their build."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from registry.detect.inspect import inspect
from registry.errors import BadFile, Refused
from registry.families import FAMILIES, flux2
from tests.tiny import plain_pipeline, shared_folder, tiny_adapter, tiny_model, tiny_parts, transformer_single_file
from tests.tiny_families.flux2 import LAYERS

VARIANTS = ("dev", "klein-base", "klein")
PROMPTS = ["a cat", "two [IMG] dogs on a mat"]


def loaded(path: Path, base_config: Path | None = None) -> Any:
    import torch

    return FAMILIES["flux2"].load(path, dtype=torch.float32, device="cpu", base_config=base_config)


def with_settings(folder: Path, **settings: Any) -> Path:
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | settings))
    return folder


# --- what it is


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_folder_is_known_with_its_build(variant: str) -> None:
    record = inspect(shared_folder("flux2", variant=variant))
    assert (record.kind, record.family, record.variant, record.prediction.value) == ("checkpoint", "flux2", variant, "flow")


@pytest.mark.slow
@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
@pytest.mark.parametrize(("variant", "reported"), [("dev", "dev"), ("klein", "klein")])
def test_a_single_file_takes_the_rest_from_base_config(variant: str, reported: str, prefix: str, tmp_path: Path) -> None:
    folder = shared_folder("flux2", variant=variant)
    for original in (True, False):
        file = transformer_single_file(
            folder, tmp_path / f"flux2-{original}.safetensors", flux2.FILE_NAMES, prefix=prefix, original=original
        )
        record = inspect(file)
        assert (record.kind, record.family, record.variant) == ("checkpoint", "flux2", reported)
        with pytest.raises(Refused, match=r"language model and its tokenizer are not in it and are not bundled. Give base_config=FOLDER"):
            loaded(file)
        reference = loaded(folder).denoiser.state_dict()
        actual = loaded(file, folder).denoiser.state_dict()
        assert actual.keys() == reference.keys() and all(tensor.equal(reference[name]) for name, tensor in actual.items())
    other = {"dev": "klein", "klein": "dev"}[variant]
    with pytest.raises(Refused, match=rf"is a {variant} build, but base_config=.* is a {other} build"):
        loaded(file, shared_folder("flux2", variant=other))


@pytest.mark.parametrize("variant", ["dev", "klein"])
def test_the_names_are_those_diffusers_reads(variant: str, tmp_path: Path) -> None:
    from diffusers.loaders.single_file_utils import convert_flux2_transformer_checkpoint_to_diffusers
    from safetensors.torch import load_file

    folder = shared_folder("flux2", variant=variant)
    file = transformer_single_file(folder, tmp_path / "flux2.safetensors", flux2.FILE_NAMES)
    converted = convert_flux2_transformer_checkpoint_to_diffusers(load_file(file))
    expected = loaded(folder).denoiser.state_dict()
    assert converted.keys() == expected.keys()
    assert [name for name, tensor in converted.items() if not tensor.equal(expected[name])] == []


# --- text


@pytest.mark.parametrize("variant", ["dev", "klein"])
def test_prompts_are_encoded_as_the_pipeline_does_it(variant: str) -> None:
    import torch

    family, parts = tiny_parts("flux2", variant=variant)
    with torch.no_grad():
        actual = family.encode_prompts(parts, PROMPTS)["embeds"]
        reference, _ids = plain_pipeline("flux2", variant=variant).encode_prompt(PROMPTS, text_encoder_out_layers=LAYERS)
    assert torch.allclose(actual, reference, atol=1e-5)  # weights lie otherwise in memory: kernels may differ
    assert actual.shape == (2, 512, 96)
    assert float((actual[0] - actual[1]).abs().max()) > 0.1


@pytest.mark.parametrize("variant", ["dev", "klein"])
def test_tokens_are_counted_with_the_template(variant: str) -> None:
    family, parts = tiny_parts("flux2", variant=variant)
    short, fit = family.count_tokens(parts, "a")
    assert fit == 512
    assert family.count_tokens(parts, "abcd")[0] == short + 3


def test_the_layers_to_read_are_the_record_s(tmp_path: Path) -> None:
    """The published indices are beyond a small encoder: the last layers are assumed, with a note, unless given in model_index.json."""
    assumed = loaded(shared_folder("flux2", variant="klein"))
    assert any("layers [1, 2, 3] are read (assumed)" in warning for warning in assumed.warnings)
    reported = loaded(with_settings(tiny_model("flux2", tmp_path / "declared", variant="klein"), text_encoder_out_layers=[0, 2, 1]))
    assert not any("assumed" in warning for warning in reported.warnings)
    import torch

    with torch.no_grad():
        actual = FAMILIES["flux2"].encode_prompts(reported, PROMPTS)["embeds"]
        reference, _ids = plain_pipeline("flux2", variant="klein").encode_prompt(PROMPTS, text_encoder_out_layers=(0, 2, 1))
    assert torch.allclose(actual, reference, atol=1e-5)


@pytest.mark.parametrize("layers", [[1, 2], [1, 2, 4]])
def test_layers_that_are_not_there_are_refused(layers: list[int], tmp_path: Path) -> None:
    import torch

    folder = with_settings(tiny_model("flux2", tmp_path / "odd", variant="klein"), text_encoder_out_layers=layers)
    with pytest.raises(BadFile, match=r"Set 'text_encoder_out_layers' in model_index\.json"):
        FAMILIES["flux2"].load(folder, dtype=torch.float32, device="meta")


def test_a_processor_is_read_as_its_tokenizer(tmp_path: Path) -> None:
    """FLUX.2-dev's tokenizer is Pixtral's processor, whose reader of images wants torchvision; text does not."""
    folder = tiny_model("flux2", tmp_path / "dev", variant="dev")
    with_settings(folder, tokenizer=["transformers", "PixtralProcessor"])
    (folder / "tokenizer" / "processor_config.json").write_text(json.dumps({"processor_class": "PixtralProcessor", "patch_size": 14}))
    import torch

    family, plain = tiny_parts("flux2", variant="dev")
    with torch.no_grad():
        actual = family.encode_prompts(loaded(folder), PROMPTS)["embeds"]
        assert torch.allclose(actual, family.encode_prompts(plain, PROMPTS)["embeds"], atol=1e-5)


def test_a_tokenizer_without_a_template_is_refused(tmp_path: Path) -> None:
    folder = tiny_model("flux2", tmp_path / "bare", variant="klein")
    (folder / "tokenizer" / "chat_template.jinja").unlink()
    with pytest.raises(BadFile, match="without a chat template"):
        loaded(folder)


# --- images


@pytest.mark.slow
def test_latents_are_normalised_by_the_vae_s_statistics() -> None:
    import torch

    family, parts = tiny_parts("flux2", variant="klein")
    pipeline = plain_pipeline("flux2", variant="klein")
    pixels = torch.rand(2, 3, 64, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        posterior = family.encode_images(parts, pixels)
        reference = pipeline._encode_vae_image(pixels, generator=None)
        assert posterior.logvar is None and torch.allclose(posterior.mean, reference, atol=1e-5)
        assert posterior.mean.shape == (2, 128, 4, 2)
        back = family.decode(parts, posterior.mean)
        plainly = pipeline.vae.decode(pipeline.vae.encode(pixels).latent_dist.mode(), return_dict=False)[0]
    assert float((back - plainly).abs().max()) <= 1e-5 * float(plainly.abs().max())
    assert (parts.latent_factor, family.channels(parts)) == (16, 128)


# --- denoising


@pytest.mark.slow
def test_guidance_is_embedded_in_dev_only() -> None:
    """diffusers answers a dev build without guidance too, with another velocity: leaving it out may not pass unnoticed."""
    import torch

    for variant in VARIANTS:
        family, parts = tiny_parts("flux2", variant=variant)
        with torch.no_grad():
            state = family.complete(parts, family.encode_prompts(parts, ["a"]), height=64, width=64, guidance=3.0)
        assert ("guidance" in state) == (variant == "dev")
        assert family.classifier_free(parts) == (variant == "klein-base")
        assert family.guided(parts, 4.0, negative=False) == (variant == "klein-base")
        assert any("no guidance" in warning for warning in parts.warnings) == (variant == "klein")
    family, parts = tiny_parts("flux2", variant="dev")
    noisy = torch.randn(1, 128, 4, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        embeds = family.encode_prompts(parts, ["a"])
        answers = [
            family.predict(parts, noisy, torch.tensor([500.0]), family.complete(parts, embeds, height=64, width=64, guidance=guidance))
            for guidance in (1.0, 4.0)
        ]
        with pytest.raises(KeyError, match="guidance"):
            family.predict(parts, noisy, torch.tensor([500.0]), embeds)
    assert float((answers[0] - answers[1]).abs().max()) > 1e-4


@pytest.mark.parametrize(("tokens", "steps"), [(16, 4), (4096, 50), (4300, 28), (4301, 28), (8192, 4)])
def test_the_shift_is_black_forest_labs_fit(tokens: int, steps: int) -> None:
    from diffusers.pipelines.flux2.pipeline_flux2 import compute_empirical_mu

    assert flux2.empirical_mu(tokens, steps=steps) == pytest.approx(compute_empirical_mu(tokens, steps), abs=1e-12)


def test_no_controlnet_is_taken() -> None:
    import torch

    family, parts = tiny_parts("flux2", variant="klein")
    assert isinstance(family.control, str)
    with pytest.raises(Refused, match="takes no ControlNet"):
        family.predict(parts, torch.zeros(1, 128, 4, 4), torch.tensor([1.0]), {"embeds": torch.zeros(1, 512, 96)}, control={})


# --- adapters


def test_an_adapter_says_which_build_it_is_for(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    file = tiny_adapter(shared_folder("flux2", variant="klein"), tmp_path / "adapter.safetensors", family="flux2")
    state = load_file(file)
    assert inspect(file).family == "flux2"
    for key, declared, variant in (
        ("modelspec.architecture", "flux-2-klein-base-4b/lora", "klein-4b"),
        ("modelspec.architecture", "Flux.2-dev/lora", "dev"),
        ("modelspec.architecture", "flux-2-klein/lora", "klein"),
        ("ss_base_model_version", "flux2", None),
        ("ss_base_model_version", "flux2_klein_base_9b", "klein-9b"),
    ):
        save_file(state, tmp_path / "declared.safetensors", metadata={key: declared})
        record = inspect(tmp_path / "declared.safetensors")
        assert (record.family, record.variant) == ("flux2", variant)


@pytest.mark.parametrize(
    ("module", "out", "into", "variant"),
    [
        ("single_blocks.0.linear1", 27648, 3072, "klein-4b"),  # FLUX.1's gives 21504
        ("single_blocks.19.linear2", 3072, 12288, "klein-4b"),  # FLUX.1's takes 15360
        ("double_blocks.0.img_mlp.0", 18432, 3072, "klein-4b"),  # FLUX.1's gives 12288
        ("double_blocks.4.txt_mlp.2", 3072, 9216, "klein-4b"),  # FLUX.1's takes 12288
        ("single_blocks.0.linear1", 36864, 4096, "klein-9b"),
        ("double_blocks.7.img_attn.qkv", 18432, 6144, "dev"),
        ("single_blocks.1.linear1", 288, 32, None),
    ],
)
@pytest.mark.parametrize("prefix", ["lora_unet_", "diffusion_model."])
def test_the_first_code_s_names_are_reported_from_flux1_by_size(
    module: str, out: int, into: int, variant: str | None, prefix: str, tmp_path: Path
) -> None:
    import torch
    from safetensors.torch import save_file

    spelled = prefix + (module.replace(".", "_") if prefix.endswith("_") else module)
    down, up = torch.zeros(1, into), torch.zeros(out, 1)
    save_file({f"{spelled}.lora_down.weight": down, f"{spelled}.lora_up.weight": up}, tmp_path / "adapter.safetensors")
    record = inspect(tmp_path / "adapter.safetensors")
    assert (record.family, record.variant) == ("flux2", variant)


def test_what_a_file_declares_settles_names_that_two_families_share(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    state = {
        f"lora_unet_double_blocks_0_img_attn_qkv.lora_{end}.weight": torch.zeros(*size)
        for end, size in {"down": (1, 3072), "up": (9216, 1)}.items()
    }
    save_file(state, tmp_path / "adapter.safetensors", metadata={"modelspec.architecture": "flux-2-klein-4b/lora"})
    record = inspect(tmp_path / "adapter.safetensors")
    assert (record.family, record.variant) == ("flux2", "klein-4b")


@pytest.mark.parametrize(
    ("adapter", "base", "fine"),
    [
        ("klein-4b", "klein-base-4b", True),
        ("klein", "klein-4b", True),
        ("klein-9b", "klein-4b", False),
        ("klein", "dev", False),
        ("dev", "dev", True),
        ("dev", "klein-base", False),
    ],
)
def test_builds_that_go_together(adapter: str, base: str, fine: bool) -> None:
    assert FAMILIES["flux2"].same_build(adapter, base) is fine


def test_kohya_s_fused_layer_is_the_one_diffusers_has(tmp_path: Path) -> None:
    """diffusers' own converter and ours read linear1 alike: q, k, v and the first MLP layer are one layer in both codes."""
    import torch
    from diffusers import Flux2KleinPipeline
    from safetensors.torch import save_file

    family, parts = tiny_parts("flux2", variant="klein")
    generator = torch.Generator().manual_seed(0)
    fused = parts.denoiser.single_transformer_blocks[0].attn.to_qkv_mlp_proj.weight.shape
    save_file(
        {
            "lora_unet_single_blocks_0_linear1.lora_down.weight": torch.randn(4, fused[1], generator=generator),
            "lora_unet_single_blocks_0_linear1.lora_up.weight": torch.randn(fused[0], 4, generator=generator),
            "lora_unet_single_blocks_0_linear1.alpha": torch.tensor(2.0),
        },
        tmp_path / "kohya.safetensors",
    )
    actual, facts = family.lora_state(tmp_path / "kohya.safetensors", parts)
    reference = Flux2KleinPipeline.lora_state_dict(str(tmp_path / "kohya.safetensors"))
    assert actual.keys() == reference.keys()
    name = "transformer.single_transformer_blocks.0.attn.to_qkv_mlp_proj"
    product = actual[f"{name}.lora_B.weight"] @ actual[f"{name}.lora_A.weight"] * (facts["metadata"]["transformer.lora_alpha"] / 4)
    assert torch.allclose(product, reference[f"{name}.lora_B.weight"] @ reference[f"{name}.lora_A.weight"], atol=1e-5)


def test_the_klein_build_draws_what_its_plain_pipeline_draws() -> None:
    from tests.infer.draw.test_every_family import TOLERANCE, apart, drawn, job, plain

    build = ("flux2", *tiny_parts("flux2", variant="klein"), plain_pipeline("flux2", variant="klein"))
    (actual,) = drawn(build, [job(build, guidance=4.0)])
    assert apart(actual, plain(build, guidance=4.0)) <= TOLERANCE
