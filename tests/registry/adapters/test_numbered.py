"""Adapters that name no modules: XLabs' attention processors and cloneofsimo's numbers, against diffusers' own names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file, save_file

from registry.adapters.combine import plan_combine, run_combine
from registry.adapters.delta import delta
from registry.adapters.reader import read_adapter
from registry.adapters.understood import adapter_faults
from registry.converting.job import ConvertRequest, plan_convert, run_convert
from registry.detect.inspect import inspect
from registry.errors import BadFile, Refused
from registry.references import Weighted
from registry.store import Store

if TYPE_CHECKING:
    from torch import Tensor

WIDTH = 8


def xlabs(path: Path, *, prefix: str = "") -> Path:
    """A rank 2 adapter of one double and one single block."""
    draw = torch.Generator().manual_seed(0)
    sizes = {
        f"double_blocks.0.processor.{layer}_lora{stream}": (WIDTH, height)
        for layer, height in (("qkv", 3 * WIDTH), ("proj", WIDTH))
        for stream in "12"
    }
    sizes |= {"single_blocks.0.processor.qkv_lora": (WIDTH, 3 * WIDTH), "single_blocks.0.processor.proj_lora": (5 * WIDTH, WIDTH)}
    tensors: dict[str, Tensor] = {}
    for name, (into, out) in sizes.items():
        tensors |= {
            f"{prefix}{name}.down.weight": torch.randn(2, into, generator=draw),
            f"{prefix}{name}.up.weight": torch.randn(out, 2, generator=draw),
        }
    save_file(tensors, path)
    return path


def convert(store: Store, source: Path, output: Path, to: str, family: str | None = None) -> dict[str, Tensor]:
    plan = plan_convert(ConvertRequest(reference=str(source), output=output, target=to, family=family), store)
    return load_file(str(run_convert(plan, store).result["file"]))


@pytest.mark.parametrize("prefix", ["", "diffusion_model."])
def test_xlabs_layers_are_those_of_diffusers_own_converter(prefix: str, store: Store, tmp_path: Path) -> None:
    from diffusers.loaders.lora_conversion_utils import _convert_xlabs_flux_lora_to_diffusers

    source = xlabs(tmp_path / "x.safetensors", prefix=prefix)
    wanted = _convert_xlabs_flux_lora_to_diffusers(load_file(source))
    found = convert(store, source, tmp_path / "out.safetensors", "diffusers", "flux1")
    assert found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in found)


def test_combining_xlabs_keeps_both_streams(store: Store, tmp_path: Path) -> None:
    source = xlabs(tmp_path / "x.safetensors")
    plan = plan_combine([Weighted(str(source), 0.5)], store, tmp_path / "half.safetensors")
    half = read_adapter(run_combine(plan, store, register=False).output)
    assert half.dialect == "kohya" and "lora_unet_double_blocks_0_txt_attn_qkv" in {module.name for module in half.modules}
    whole = read_adapter(source)
    assert len(half.modules) == len(whole.modules) == 8  # a single block's q, k and v are three
    for place, module in whole.by_place.items():
        assert torch.allclose(delta(half.by_place[place]), 0.5 * delta(module), atol=1e-5), place


def test_a_factor_without_axes_is_a_broken_module(tmp_path: Path) -> None:
    name = "single_blocks.0.processor.qkv_lora"
    save_file({f"{name}.down.weight": torch.ones(2, 6), f"{name}.up.weight": torch.ones(())}, tmp_path / "a.safetensors")
    (fault,) = adapter_faults(read_adapter(tmp_path / "a.safetensors"))
    assert "has a up of []" in fault


def test_two_tensors_for_one_factor_are_refused(tmp_path: Path) -> None:
    name = "unet.mid_block.attentions.0.proj_in"
    tensors = {
        f"{name}.lora_A.weight": torch.ones(2, 4),
        f"{name}.lora_down.weight": torch.ones(2, 4),
        f"{name}.lora_B.weight": torch.ones(4, 2),
    }
    save_file(tensors, tmp_path / "x.safetensors")
    with pytest.raises(BadFile, match=r"one factor of a module twice, .*lora_A\.weight and .*lora_down\.weight|lora_down.*lora_A"):
        read_adapter(tmp_path / "x.safetensors")


def cloneofsimo(path: Path, classes: tuple[str, ...], *, cross: int = 768, skipped: int = 0) -> dict[str, str]:
    """A rank 1 adapter of every linear layer in these classes of the published UNet; gives `unet:number` -> diffusers' name."""
    import diffusers

    with torch.device("meta"):
        unet = diffusers.UNet2DConditionModel(cross_attention_dim=cross)
    layers = [
        (f"{outer}.{inner}", layer)
        for outer, block in unet.named_modules()
        if type(block).__name__ in classes
        for inner, layer in block.named_modules()
        if type(layer) is torch.nn.Linear
    ][skipped:]
    tensors = {f"unet:{number}:down": torch.full((1, layer.in_features), 1.0 + number) for number, (_, layer) in enumerate(layers)}
    tensors |= {f"unet:{number}:up": torch.ones(layer.out_features, 1) for number, (_, layer) in enumerate(layers)}
    tensors |= {f"text_encoder:{number}:down": torch.full((1, cross), 1.0) for number in range(8)}
    tensors |= {f"text_encoder:{number}:up": torch.ones(cross, 1) for number in range(8)}
    save_file(tensors, path)
    return {f"unet:{number}": name for number, (name, _) in enumerate(layers)}


@pytest.mark.parametrize(("cross", "family"), [(768, "sd1"), (1024, "sd2")])
@pytest.mark.parametrize("classes", [("Attention",), ("Attention", "GEGLU")])
def test_cloneofsimos_numbers_are_layers_in_diffusers_order(
    classes: tuple[str, ...], cross: int, family: str, store: Store, tmp_path: Path
) -> None:
    names = cloneofsimo(tmp_path / "x.safetensors", classes, cross=cross)
    assert inspect(tmp_path / "x.safetensors").family == family
    found = convert(store, tmp_path / "x.safetensors", tmp_path / "out.safetensors", "diffusers")
    assert len(names) == 16 * (8 + ("GEGLU" in classes))
    for number, (_, name) in enumerate(names.items()):
        assert float(found[f"unet.{name}.lora_A.weight"][0, 0]) == 1.0 + number, name
    assert sum(name.startswith("text_encoder.") for name in found) == 16
    assert "text_encoder.text_model.encoder.layers.1.self_attn.out_proj.lora_A.weight" in found


def test_cloneofsimos_numbers_of_no_known_order_are_refused_by_name(store: Store, tmp_path: Path) -> None:
    cloneofsimo(tmp_path / "x.safetensors", ("Attention",), skipped=1)
    with pytest.raises(Refused, match=r"unet:0"):
        convert(store, tmp_path / "x.safetensors", tmp_path / "out.safetensors", "diffusers", "sd1")
