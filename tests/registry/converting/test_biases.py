"""A LoRA with a change of the layer's bias beside its factors: kohya's diff_b, peft's lora_B.bias, as diffusers and peft read both."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from registry.adapters.delta import bias_delta
from registry.adapters.reader import read_adapter
from registry.converting.adapter_layers import adapter_layers
from registry.converting.job import ConvertRequest, plan_convert, run_convert
from registry.converting.proof import prove
from registry.errors import Faults, JobFailed
from registry.families import FAMILIES
from registry.store import Store
from tests import tiny

OUT = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0"
CONV = "down_blocks.0.resnets.0.conv1"
QUERY = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"


def random(seed: int, *shape: int) -> Tensor:
    return 0.1 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def flat(name: str) -> str:
    return f"lora_unet_{name.replace('.', '_')}"


@pytest.fixture(scope="module")
def plain() -> dict[str, Tensor]:
    """The weights of a tiny UNet."""
    return {name: tensor.clone() for name, tensor in tiny.tiny_parts("sd1")[1].denoiser.state_dict().items()}


def kohya(path: Path, plain: dict[str, Tensor], *biased: str, bare: tuple[str, ...] = ()) -> Path:
    """Rank 2 at alpha 1, with a diff_b on the modules `biased`."""
    tensors: dict[str, Tensor] = {}
    for number, name in enumerate((*biased, *bare)):
        shape = plain[f"{name}.weight"].shape
        tensors[f"{flat(name)}.lora_down.weight"] = random(10 * number, 2, *shape[1:])
        tensors[f"{flat(name)}.lora_up.weight"] = random(10 * number + 1, shape[0], 2, *[1] * (len(shape) - 2))
        tensors[f"{flat(name)}.alpha"] = torch.tensor(1.0)
        tensors |= {f"{flat(name)}.diff_b": random(10 * number + 2, shape[0])} if name in biased else {}
    save_file(tensors, path)
    return path


def convert(store: Store, source: Path, output: Path, to: str) -> Path:
    request = ConvertRequest(reference=str(source), output=output, target=to, family="sd1")
    return Path(str(run_convert(plan_convert(request, store), store).result["file"]))


def test_diffusers_draws_with_the_bias(plain: dict[str, Tensor], store: Store, tmp_path: Path) -> None:
    source = kohya(tmp_path / "a.safetensors", plain, OUT, CONV)
    there = convert(store, source, tmp_path / "there.safetensors", "diffusers")
    pipeline, given = tiny.plain_pipeline("sd1"), load_file(source)
    before = {name: pipeline.unet.state_dict()[f"{name}.bias"].clone() for name in (OUT, CONV)}
    pipeline.load_lora_weights(there)
    pipeline.fuse_lora()
    for name in (OUT, CONV):
        layer = pipeline.unet.get_submodule(name)
        assert torch.allclose(layer.base_layer.bias - before[name], given[f"{flat(name)}.diff_b"], atol=1e-6)
        product = (given[f"{flat(name)}.lora_up.weight"].flatten(1) @ given[f"{flat(name)}.lora_down.weight"].flatten(1)) * 0.5
        (adapter,) = layer.lora_A
        assert torch.allclose(layer.get_delta_weight(adapter).flatten(1), product, atol=1e-6)


def test_peft_merges_the_bias_and_the_way_back_is_exact(plain: dict[str, Tensor], store: Store, tmp_path: Path) -> None:
    from peft import PeftModel

    source = kohya(tmp_path / "a.safetensors", plain, OUT, CONV)
    convert(store, source, tmp_path / "peft", "peft")
    _, parts = tiny.tiny_parts("sd1")
    merged = PeftModel.from_pretrained(parts.denoiser, tmp_path / "peft").merge_and_unload().state_dict()
    given = load_file(source)
    for name in (OUT, CONV):
        assert torch.allclose(merged[f"{name}.bias"] - plain[f"{name}.bias"], given[f"{flat(name)}.diff_b"], atol=1e-6)
    back = load_file(convert(store, tmp_path / "peft", tmp_path / "back.safetensors", "kohya"))
    assert back.keys() == given.keys() and all(back[f"{flat(name)}.diff_b"].equal(given[f"{flat(name)}.diff_b"]) for name in (OUT, CONV))


def test_pefts_bias_is_scaled_by_alpha(plain: dict[str, Tensor], store: Store, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    _, parts = tiny.tiny_parts("sd1")
    model = get_peft_model(parts.denoiser, LoraConfig(r=2, lora_alpha=3, lora_bias=True, target_modules=[OUT]))
    with torch.no_grad():
        for parameter in (parameter for parameter in model.parameters() if parameter.requires_grad):
            parameter.add_(random(1, *parameter.shape))
    model.save_pretrained(str(tmp_path / "made"))
    wanted = model.merge_and_unload().state_dict()[f"{OUT}.bias"] - plain[f"{OUT}.bias"]
    for to, ending in (("kohya", ".diff_b"), ("diffusers", ".lora_B.bias")):
        found = load_file(convert(store, tmp_path / "made", tmp_path / f"{to}.safetensors", to))
        (bias,) = (tensor for key, tensor in found.items() if key.endswith(ending))
        assert torch.allclose(bias, wanted, atol=1e-6)


@pytest.mark.parametrize("to", ["kohya", "onetrainer", "lycoris"])
def test_kohyas_names_keep_every_tensor(to: str, plain: dict[str, Tensor], store: Store, tmp_path: Path) -> None:
    given = load_file(kohya(tmp_path / "a.safetensors", plain, OUT, CONV, bare=(QUERY,)))
    norm = "down_blocks.0.resnets.0.norm1"
    given |= {
        f"{flat(norm)}.diff": random(50, *plain[f"{norm}.weight"].shape),
        f"{flat(norm)}.diff_b": random(51, *plain[f"{norm}.bias"].shape),
    }
    dotted = {flat(name): f"diffusion_model.{name}" for name in (OUT, CONV, QUERY, norm)}
    comfy = {f"{dotted[module]}.{ending}": given[f"{module}.{ending}"] for module, _, ending in (key.partition(".") for key in given)}
    save_file(comfy, tmp_path / "b.safetensors")
    found = load_file(convert(store, tmp_path / "b.safetensors", tmp_path / "there.safetensors", to))
    prefixes = {key.replace("lycoris_", "lora_unet_"): value for key, value in found.items()}
    assert prefixes.keys() == given.keys() and all(prefixes[key].equal(given[key]) for key in given)


@pytest.mark.parametrize("to", ["diffusers", "peft"])
def test_what_peft_has_no_place_for_is_refused(to: str, plain: dict[str, Tensor], store: Store, tmp_path: Path) -> None:
    some = kohya(tmp_path / "some.safetensors", plain, OUT, bare=(QUERY,))
    with pytest.raises(Faults, match=r"1 of its 2 modules have a bias .*to_out_0\) and 1 have none .*to_q\).*--to kohya"):
        convert(store, some, tmp_path / "out.safetensors", to)
    rows = len(plain[f"{OUT}.bias"])
    dora = load_file(kohya(tmp_path / "plain.safetensors", plain, OUT)) | {f"{flat(OUT)}.dora_scale": torch.ones(rows, 1)}
    save_file(dora, tmp_path / "dora.safetensors")
    with pytest.raises(Faults, match="is DoRA with a bias"):
        convert(store, tmp_path / "dora.safetensors", tmp_path / "out.safetensors", to)
    alone = load_file(tmp_path / "plain.safetensors") | {f"{flat(CONV)}.diff_b": torch.ones(len(plain[f"{CONV}.bias"]))}
    save_file(alone, tmp_path / "alone.safetensors")
    with pytest.raises(Faults, match=r"diff_b\), for which the LoRA of .* has no form. kohya's form holds it"):
        convert(store, tmp_path / "alone.safetensors", tmp_path / "out.safetensors", to)


def test_a_fused_layer_is_taken_apart_with_its_bias(store: Store, tmp_path: Path) -> None:
    name, rows = "lora_unet_double_blocks_0_img_attn_qkv", 3 * 3072
    bias = random(3, rows)
    tensors = {f"{name}.lora_down.weight": random(1, 2, 3072), f"{name}.lora_up.weight": random(2, rows, 2), f"{name}.diff_b": bias}
    tensors[f"{name}.lora_up.weight"][3072:6144] = 0  # the keys: a bias alone
    save_file(tensors, tmp_path / "flux.safetensors")

    def made(source: Path, to: str) -> Path:
        request = ConvertRequest(reference=str(source), output=tmp_path / f"{to}.safetensors", target=to, family="flux1")
        return Path(str(run_convert(plan_convert(request, store), store).result["file"]))

    there = made(tmp_path / "flux.safetensors", "diffusers")
    found = load_file(there)
    for number, part in enumerate("qkv"):
        assert found[f"transformer.transformer_blocks.0.attn.to_{part}.lora_B.bias"].equal(bias[number * 3072 : (number + 1) * 3072])
    (module,) = read_adapter(made(there, "kohya")).modules
    joined = bias_delta(module)
    assert joined is not None and joined.equal(bias)


@pytest.mark.parametrize("kept", [1.1, 0.0, None])
def test_the_proof_sees_a_bias_that_came_out_otherwise(kept: float | None, plain: dict[str, Tensor], tmp_path: Path) -> None:
    names, source = FAMILIES["sd1"].adapter_names, kohya(tmp_path / "a.safetensors", plain, OUT)
    before, tensors = adapter_layers(read_adapter(source), names, base=None), load_file(source)
    assert prove(before, before, dtype=None) == 0.0
    bias = tensors.pop(f"{flat(OUT)}.diff_b")
    save_file(tensors if kept is None else {**tensors, f"{flat(OUT)}.diff_b": bias * kept}, tmp_path / "b.safetensors")
    with pytest.raises(JobFailed, match="has another product in the converted file"):
        prove(before, adapter_layers(read_adapter(tmp_path / "b.safetensors"), names, base=None), dtype=None)
