"""Converted adapters in diffusers' own loader: what it makes of kohya's names is what it makes of its own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file, save_file

from registry.converting.job import ConvertRequest, plan_convert, run_convert
from registry.families import FAMILIES
from registry.store import Store
from tests import tiny

if TYPE_CHECKING:
    from torch import Tensor

pytestmark = pytest.mark.slow


def loaded(family: str, path: Path) -> dict[str, Tensor]:
    """Module -> its change, of every layer with an adapter in a pipeline that loaded the file."""
    from peft.tuners.lora import LoraLayer

    pipeline = tiny.plain_pipeline(family)
    pipeline.load_lora_weights(path)
    known = FAMILIES[family]
    found: dict[str, Tensor] = {}
    for component in (known.denoiser, *known.text_encoders):
        for name, layer in getattr(pipeline, component).named_modules():
            if isinstance(layer, LoraLayer) and layer.lora_A:
                (adapter,) = layer.lora_A.keys()
                found[f"{component}.{name}"] = layer.get_delta_weight(adapter).detach()
    return found


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
@pytest.mark.parametrize("targets", ["attention", "attention_mlp"])
def test_diffusers_loads_the_same_change_from_other_tools_names(family: str, targets: str, store: Store, tmp_path: Path) -> None:
    source = tiny.tiny_adapter(
        tiny.shared_folder(family), tmp_path / "a.safetensors", family=family, targets=targets, alpha=2, text_encoder=True
    )
    kohya, back, onetrainer = (tmp_path / f"{name}.safetensors" for name in ("kohya", "back", "onetrainer"))
    for output in (kohya, onetrainer):
        request = ConvertRequest(reference=str(source), output=output, target=output.stem, family=family)
        run_convert(plan_convert(request, store), store)
    run_convert(plan_convert(ConvertRequest(reference=str(kohya), output=back, target="diffusers", family=family), store), store)
    wanted = loaded(family, source)
    for path in (kohya, back, onetrainer):
        found = loaded(family, path)
        assert wanted.keys() <= found.keys()
        for name, change in found.items():
            assert torch.allclose(change, wanted.get(name, torch.zeros_like(change)), rtol=1e-5, atol=1e-6), name


@pytest.mark.parametrize("target", ["kohya", "onetrainer"])
def test_diffusers_reads_flux_in_the_names_of_other_tools(target: str, store: Store, tmp_path: Path) -> None:
    """Its converter counts on the published width, 3072, which no tiny model has: so its names and factors are compared."""
    from diffusers.loaders.lora_conversion_utils import _convert_kohya_flux_lora_to_diffusers

    draw = torch.Generator().manual_seed(0)
    single, double = "transformer.single_transformer_blocks.0", "transformer.transformer_blocks.0"
    sizes = {
        **{f"{single}.attn.to_{part}": (3072, 3072) for part in "qkv"},
        f"{single}.proj_mlp": (3072, 12288),
        f"{single}.proj_out": (15360, 3072),
        **{f"{double}.attn.add_{part}_proj": (3072, 3072) for part in "qkv"},
        f"{double}.ff_context.net.2": (12288, 3072),
        f"{double}.norm1_context.linear": (3072, 18432),
    }
    if target == "onetrainer":  # of its other layers diffusers 0.42 drops the layer's name
        sizes = {module: size for module, size in sizes.items() if ".attn." in module}
    source, there = tmp_path / "flux.safetensors", tmp_path / "there.safetensors"
    mine: dict[str, Tensor] = {}
    for module, (into, out) in sizes.items():
        mine |= {
            f"{module}.lora_A.weight": torch.randn(2, into, generator=draw),
            f"{module}.lora_B.weight": torch.randn(out, 2, generator=draw),
        }
    save_file(mine, source, metadata={"lora_adapter_metadata": '{"transformer.r": 2, "transformer.lora_alpha": 1}'})
    run_convert(plan_convert(ConvertRequest(reference=str(source), output=there, target=target, family="flux1"), store), store)
    expected = _convert_kohya_flux_lora_to_diffusers(load_file(there))
    assert expected.keys() == mine.keys()
    rows = slice(0, 64)  # enough of a product to tell
    for module in sizes:
        wanted, found = (state[f"{module}.lora_B.weight"][rows] @ state[f"{module}.lora_A.weight"] for state in (mine, expected))
        assert torch.allclose(wanted / 2, found, rtol=1e-5, atol=1e-5), module
