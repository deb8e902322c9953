"""Adapters on a loaded model: every tensor lands, weights are diffusers' weights, and off is off to the bit."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from registry.errors import BadFile, Refused, UnknownName
from tests.tiny import SIZES, plain_pipeline, shared_folder, tiny_adapter, tiny_parts

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Already found a `peft_config`:UserWarning"),  # of diffusers' own loader, for a second adapter
]

PROMPT = "a red apple"
State = dict[str, Any]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """One adapter file of a family and its settings, made once."""
    folder = tmp_path_factory.mktemp("adapters")

    def make(family: str, **options: Any) -> Path:
        out = folder / (re.sub(r"\W+", "-", f"{family}-{options}") + ".safetensors")
        return out if out.exists() else tiny_adapter(shared_folder(family), out, family=family, **options)

    return make


def image(family: Any, parts: Any) -> Any:
    """The latents of one image, prompts encoded under whatever is attached."""
    import torch

    from infer.draw.denoise import Job, denoise
    from infer.draw.samplers import build_scheduler

    with torch.no_grad():
        conditional = family.encode_prompts(parts, [PROMPT])
        unconditional = None if not family.classifier_free(parts) else family.encode_unconditional(parts, 1)
    size = SIZES[family.name]
    job = Job(
        conditional=conditional,
        unconditional=unconditional,
        guidance=5.0,
        steps=3,
        scheduler=build_scheduler(parts, "euler"),
        seed=7,
        height=size,
        width=size,
    )
    return denoise(family, parts, [job])[0]


def plain_image(family: Any, parts: Any, pipeline: Any) -> Any:
    import torch

    from infer.draw.samplers import build_scheduler

    size = SIZES[family.name]
    pipeline.scheduler = build_scheduler(parts, "euler")
    extra = {"max_sequence_length": 48} if not family.classifier_free(parts) else {}
    latents = pipeline(
        prompt=PROMPT,
        num_inference_steps=3,
        guidance_scale=5.0,
        height=size,
        width=size,
        generator=torch.Generator("cpu").manual_seed(7),
        output_type="latent",
        **extra,
    ).images
    return pipeline._unpack_latents(latents, size, size, pipeline.vae_scale_factor) if latents.ndim == 3 else latents


def apart(actual: Any, reference: Any) -> float:
    """Of the widest latent: an untrained model's end tens wide, and kernels sum in an order that depends on where memory lies."""
    return float((actual - reference).abs().max()) / max(1.0, float(reference.abs().max()))


def saved(state: State, out: Path, metadata: dict[str, str] | None = None) -> Path:
    from safetensors.torch import save_file

    save_file({key: tensor.contiguous() for key, tensor in state.items()}, out, metadata=metadata)
    return out


def loaded(path: Path) -> State:
    from safetensors.torch import load_file

    return load_file(path)


# --- weights


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sd1", "flux1", pytest.param("sdxl", marks=pytest.mark.slow)])
def test_weights_are_diffusers_weights_and_none_is_the_base(name: str, files: Callable[..., Path]) -> None:
    from infer.draw.adapters import attach, detach, set_weights

    family, parts = tiny_parts(name)
    pipeline = plain_pipeline(name)
    base = image(family, parts)
    first = files(name, text_encoder=True, alpha=2.0)
    second = files(name, targets=list(family.lora_presets)[-1], seed=3)
    attach(family, parts, {"first": first, "second": second})
    assert image(family, parts).equal(base)  # attached is not yet used
    for adapter, path in (("first", first), ("second", second)):
        pipeline.load_lora_weights(path.parent, weight_name=path.name, adapter_name=adapter)
    for weights in ({"first": 1.0}, {"second": 0.7}, {"first": 0.5, "second": -0.3}):
        set_weights(parts, weights)
        pipeline.set_adapters(list(weights), list(weights.values()))
        actual = image(family, parts)
        assert apart(actual, plain_image(family, parts, pipeline)) <= 1e-5
        assert apart(actual, base) > 0.01, "the adapter shows"
    set_weights(parts, {"first": 0.0})
    assert image(family, parts).equal(base)
    set_weights(parts, {})
    assert image(family, parts).equal(base)
    detach(parts)
    assert image(family, parts).equal(base)
    assert not hasattr(parts.denoiser, "peft_config")
    assert all("base_layer" not in key for key in parts.denoiser.state_dict())


def test_nothing_attached_learns(files: Callable[..., Path]) -> None:
    from infer.draw.adapters import attach, set_weights

    family, parts = tiny_parts("sd1")
    attach(family, parts, {"x": files("sd1", text_encoder=True)})
    set_weights(parts, {"x": 1.0})
    modules = [parts.denoiser, *parts.text_encoders.values()]
    assert not [name for module in modules for name, weight in module.named_parameters() if weight.requires_grad]


@pytest.mark.slow
def test_one_of_two_is_detached(files: Callable[..., Path]) -> None:
    from infer.draw.adapters import attach, detach, set_weights

    family, parts = tiny_parts("sd1")
    base = image(family, parts)
    attach(family, parts, {"x": files("sd1"), "y": files("sd1", seed=3)})
    set_weights(parts, {"y": 1.0})
    with_y = image(family, parts)
    detach(parts, ["x"])
    set_weights(parts, {"y": 1.0})
    assert image(family, parts).equal(with_y)
    set_weights(parts, {})
    assert image(family, parts).equal(base)
    attach(family, parts, {"x": files("sd1")})  # the name is free again
    set_weights(parts, {"y": 1.0})
    assert image(family, parts).equal(with_y)


def test_an_unknown_name_is_answered_with_the_nearest(files: Callable[..., Path]) -> None:
    from infer.draw.adapters import attach, set_weights

    family, parts = tiny_parts("sd1")
    attach(family, parts, {"ink": files("sd1")})
    with pytest.raises(UnknownName, match=r"'imk' is attached. Did you mean 'ink'"):
        set_weights(parts, {"imk": 1.0})
    with pytest.raises(Refused, match="ink are attached already"):
        attach(family, parts, {"ink": files("sd1")})


# --- spellings


def to_kohya(state: State, *, alpha: float | None, encoder: str = "lora_te_text_model_") -> State:
    """kohya's names of a peft state: `unet.a.b.lora_A.weight` -> `lora_unet_a_b.lora_down.weight`, with an alpha a module."""
    import torch

    out: State = {}
    for key, tensor in state.items():
        module, factor, _weight = key.rsplit(".", 2)
        component, _, inner = module.partition(".")
        prefix = "lora_unet_" if component in ("unet", "transformer") else encoder
        name = prefix + inner.replace(".", "_")
        out[f"{name}.{'lora_down' if factor == 'lora_A' else 'lora_up'}.weight"] = tensor
        if alpha is not None:
            out[f"{name}.alpha"] = torch.tensor(alpha)
    return out


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sd1", pytest.param("sdxl", marks=pytest.mark.slow)])
def test_kohya_names_and_alpha(name: str, files: Callable[..., Path], tmp_path: Path) -> None:
    """The same numbers under kohya's names draw the same image; alpha 2 at rank 4 is half the strength."""
    from infer.draw.adapters import attach, set_weights

    family, parts = tiny_parts(name)
    actual = files(name, targets="convolutions", alpha=2.0)
    reference = saved(to_kohya(loaded(actual), alpha=2.0), tmp_path / "kohya.safetensors")
    without = saved(to_kohya(loaded(actual), alpha=None), tmp_path / "no-alpha.safetensors")
    attach(family, parts, {"actual": actual, "reference": reference, "without": without})
    images = {}
    for adapter, weight in (("actual", 1.0), ("reference", 1.0), ("without", 0.5)):
        set_weights(parts, {adapter: weight})
        images[adapter] = image(family, parts)
    assert apart(images["actual"], images["reference"]) <= 1e-5
    assert apart(images["actual"], images["without"]) <= 1e-5  # no alpha is alpha = rank: twice as strong


def test_kohya_s_ldm_names(files: Callable[..., Path], tmp_path: Path) -> None:
    """SDXL adapters name the UNet's layers as LDM does: input_blocks_4_1_..."""
    from infer.draw.adapters import attach, set_weights
    from registry.architectures.unet.ldm_names import unet_name

    family, parts = tiny_parts("sdxl")
    actual = files("sdxl", targets="convolutions")
    renamed: State = {}
    for key, tensor in loaded(actual).items():
        module, factor, _weight = key.removeprefix("unet.").rsplit(".", 2)
        ldm = unet_name(parts.denoiser.config, module)
        assert ldm is not None
        renamed[f"unet.{ldm}.{factor}.weight"] = tensor
    reference = saved(to_kohya(renamed, alpha=4.0), tmp_path / "ldm.safetensors")
    assert any(key.startswith("lora_unet_input_blocks_") for key in loaded(reference))
    attach(family, parts, {"actual": actual, "reference": reference})
    set_weights(parts, {"actual": 1.0})
    expected = image(family, parts)
    set_weights(parts, {"reference": 1.0})
    assert apart(image(family, parts), expected) <= 1e-5


@pytest.mark.parametrize("kept", ["q_proj", "q_proj|k_proj|v_proj|fc1", "out_proj|fc2"])
def test_text_encoder_layers_that_diffusers_drops_are_read(kept: str, files: Callable[..., Path], tmp_path: Path) -> None:
    """A kohya file with q_proj only raises in diffusers, one with attention but no out_proj loses it in silence."""
    from infer.draw.adapters import attach, set_weights

    family, parts = tiny_parts("sd1")
    state = {key: tensor for key, tensor in loaded(files("sd1", text_encoder=True)).items() if key.startswith("text_encoder.")}
    state = {key: tensor for key, tensor in state.items() if re.search(kept, key)}
    attach(family, parts, {"x": saved(to_kohya(state, alpha=1.0), tmp_path / "te.safetensors")})
    base = family.encode_prompts(parts, [PROMPT])["embeds"]
    set_weights(parts, {"x": 1.0})
    assert apart(family.encode_prompts(parts, [PROMPT])["embeds"], base) > 1e-3
    landed = [name for name, _weight in parts.text_encoders["text_encoder"].named_parameters() if ".lora_A.x." in name]
    assert len(landed) == len(state) // 2 > 0


def test_old_diffusers_names(files: Callable[..., Path], tmp_path: Path) -> None:
    """Attention processors before diffusers 0.22: `attn1.processor.to_q_lora.down.weight`, and to_out without its 0."""
    from infer.draw.adapters import attach, set_weights

    family, parts = tiny_parts("sd1")
    actual = files("sd1")
    old = {}
    for key, tensor in loaded(actual).items():
        found = re.fullmatch(r"(.*\.attn[12])\.(to_[qkv]|to_out)(?:\.0)?\.lora_(A|B)\.weight", key)
        assert found
        old[f"{found[1]}.processor.{found[2]}_lora.{'down' if found[3] == 'A' else 'up'}.weight"] = tensor
    attach(family, parts, {"actual": actual, "old": saved(old, tmp_path / "old.safetensors")})
    set_weights(parts, {"actual": 1.0})
    expected = image(family, parts)
    set_weights(parts, {"old": 1.0})
    assert apart(image(family, parts), expected) <= 1e-5


def test_flux_kohya_names_with_fused_layers(tmp_path: Path) -> None:
    """`double_blocks_0_img_attn_qkv` is q, k and v over one down factor; a layer outside the blocks has its place too."""
    import torch

    from infer.draw.adapters import attach, set_weights

    family, parts = tiny_parts("flux1")
    generator = torch.Generator().manual_seed(0)
    layers = {
        "double_blocks_0_img_attn_qkv": (32, 96),
        "double_blocks_1_txt_mlp_0": (32, 128),
        "single_blocks_1_linear1": (32, 96 + 128),
        "vector_in_in_layer": (32, 32),  # diffusers' own reading loses this one
        "final_layer_adaLN_modulation_1": (32, 64),  # its halves are the other way round
    }
    state: State = {}
    for name, (wide, tall) in layers.items():
        state[f"lora_unet_{name}.lora_down.weight"] = torch.randn(4, wide, generator=generator) * 0.3
        state[f"lora_unet_{name}.lora_up.weight"] = torch.randn(tall, 4, generator=generator) * 0.3
        state[f"lora_unet_{name}.alpha"] = torch.tensor(2.0)
    read, facts = family.lora_state(saved(state, tmp_path / "flux.safetensors"), parts)
    fused = state["lora_unet_double_blocks_0_img_attn_qkv.lora_up.weight"]
    assert read["transformer.transformer_blocks.0.attn.to_k.lora_B.weight"].equal(fused[32:64])
    assert read["transformer.single_transformer_blocks.1.proj_mlp.lora_B.weight"].shape == (128, 4)
    final = state["lora_unet_final_layer_adaLN_modulation_1.lora_up.weight"]
    assert read["transformer.norm_out.linear.lora_B.weight"].equal(torch.cat([final[32:], final[:32]]))
    assert len(read) == 2 * (3 + 1 + 4 + 1 + 1)
    assert facts["metadata"]["transformer.alpha_pattern"] == {f"^{re.escape(key)}": 2.0 for key in _modules(read)}
    base = image(family, parts)
    attach(family, parts, {"x": tmp_path / "flux.safetensors"})
    set_weights(parts, {"x": 1.0})
    assert apart(image(family, parts), base) > 1e-3


def _modules(read: State) -> list[str]:
    return [key.removeprefix("transformer.").removesuffix(".lora_A.weight") for key in read if key.endswith("lora_A.weight")]


def test_dora_of_peft(tmp_path: Path) -> None:
    """A magnitude vector is read where peft wrote it; the image is that of the adapter when it was made."""
    import torch
    from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model

    from infer.draw.adapters import attach, set_weights

    family, made_on = tiny_parts("sd1")
    torch.manual_seed(0)
    inject_adapter_in_model(LoraConfig(r=4, lora_alpha=8, target_modules=["to_q", "to_v"], use_dora=True), made_on.denoiser)
    for key, weight in made_on.denoiser.named_parameters():
        if "lora_B" in key:
            weight.data.normal_(0.0, 0.3)
        elif "magnitude" in key:
            weight.data.mul_(1.5)
    expected = image(family, made_on)
    state = {f"unet.{key}": value for key, value in get_peft_model_state_dict(made_on.denoiser).items()}
    settings = {"unet.r": 4, "unet.lora_alpha": 8, "unet.use_dora": True, "unet.target_modules": ["to_q", "to_v"]}
    path = saved(state, tmp_path / "dora.safetensors", {"lora_adapter_metadata": json.dumps(settings)})
    family, parts = tiny_parts("sd1")
    base = image(family, parts)
    attach(family, parts, {"dora": path})
    set_weights(parts, {"dora": 1.0})
    assert apart(image(family, parts), expected) <= 1e-5 < apart(base, expected)
    set_weights(parts, {})
    assert image(family, parts).equal(base)


def test_reading_gives_copies(files: Callable[..., Path]) -> None:
    family, parts = tiny_parts("sd1")
    path = files("sd1", alpha=2.0)
    read, facts = family.lora_state(path, parts)
    for tensor in read.values():
        tensor.zero_()
    again, _facts = family.lora_state(path, parts)
    assert all(float(tensor.abs().max()) > 0 for tensor in again.values())
    assert facts["metadata"]["unet.lora_alpha"] == 2.0


# --- refusals


def test_a_file_none_of_whose_keys_land_is_refused_and_leaves_no_trace(files: Callable[..., Path], tmp_path: Path) -> None:
    import torch

    from infer.draw.adapters import attach

    family, parts = tiny_parts("sd1")
    stray = {f"transformer.blocks.{i}.to_q.lora_{f}.weight": torch.zeros(4, 4) for i in range(3) for f in "AB"}
    with pytest.raises(Refused, match="0 of its 6 tensors have their place, 6 have not"):
        attach(family, parts, {"good": files("sd1"), "stray": saved(stray, tmp_path / "stray.safetensors")})
    assert not hasattr(parts.denoiser, "peft_config")


def test_one_tensor_without_a_place_is_enough_to_refuse(files: Callable[..., Path], tmp_path: Path) -> None:
    import torch

    from infer.draw.adapters import attach

    family, parts = tiny_parts("sd1")
    state = loaded(files("sd1")) | {f"unet.nowhere.to_q.lora_{one}.weight": torch.zeros(4, 4) for one in "AB"}
    with pytest.raises(Refused, match=r"64 of its 66 tensors have their place, 2 have not: unet\.nowhere"):
        attach(family, parts, {"x": saved(state, tmp_path / "odd.safetensors")})


def test_an_adapter_of_another_width_is_refused_with_both_widths(files: Callable[..., Path], tmp_path: Path) -> None:
    import torch

    from infer.draw.adapters import attach

    family, parts = tiny_parts("sd1")
    state = loaded(files("sd1"))
    key = next(key for key in state if "attn2.to_k.lora_A" in key)
    state[key] = torch.zeros(4, 768)
    with pytest.raises(Refused, match="768 wide where the model has 32"):
        attach(family, parts, {"x": saved(state, tmp_path / "wide.safetensors")})
    assert not hasattr(parts.denoiser, "peft_config")


@pytest.mark.parametrize(
    ("ending", "kind"), [("hada_w1_a", "loha"), ("lokr_w1", "lokr"), ("dora_scale", "DoRA in kohya's form"), ("lora_mid.weight", "mid of")]
)
def test_other_kinds_of_adapters_are_refused_by_name(ending: str, kind: str, files: Callable[..., Path], tmp_path: Path) -> None:
    import torch

    family, parts = tiny_parts("sd1")
    state = to_kohya(loaded(files("sd1")), alpha=1.0)
    name = next(iter(state)).split(".")[0]
    rows = len(state[f"{name}.lora_up.weight"])
    state[f"{name}.{ending}"] = torch.zeros((rows, 1) if ending == "dora_scale" else (4, 4))
    with pytest.raises((BadFile, Refused), match=kind):
        family.lora_state(saved(state, tmp_path / "other.safetensors"), parts)


def test_what_is_not_a_lora_is_refused(tmp_path: Path) -> None:
    family, parts = tiny_parts("sd1")
    (tmp_path / "text.safetensors").write_text("not a model")
    with pytest.raises(BadFile, match="not a safetensors file"):
        family.lora_state(tmp_path / "text.safetensors", parts)
    with pytest.raises(BadFile, match="no keys of an adapter"):
        family.lora_state(saved({}, tmp_path / "empty.safetensors"), parts)
