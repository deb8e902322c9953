"""LoHa and LoKr of convolutions without a Tucker core: the kernel's shape is the family's, or the file is refused by the module's name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from registry.adapters.combine import plan_combine, run_combine
from registry.adapters.factors import Keep
from registry.errors import Faults
from registry.references import Weighted
from registry.store import Store
from tests import tiny

CONV, LINEAR = "down_blocks.0.resnets.0.conv1", "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
SHORT = "up_blocks.0.resnets.0.conv_shortcut"
METADATA = {"ss_base_model_version": "sd_v1"}


def flat(name: str) -> str:
    return f"lora_unet_{name.replace('.', '_')}"


def random(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def loha(path: Path, modules: dict[str, tuple[int, int]], metadata: dict[str, str] | None = None) -> Path:
    """Rank 2 of matrices (rows, columns) as LyCORIS writes them, alpha 2."""
    tensors: dict[str, Tensor] = {}
    for name, (rows, columns) in modules.items():
        for side in "12":
            tensors |= {f"{name}.hada_w{side}_a": random(int(side), rows, 2), f"{name}.hada_w{side}_b": random(int(side) + 2, 2, columns)}
        tensors[f"{name}.alpha"] = torch.tensor(2.0)
    save_file(tensors, path, metadata=metadata)
    return path


def change(path: Path, name: str) -> Tensor:
    """(w1_a w1_b) * (w2_a w2_b)."""
    found = load_file(path)
    sides = [found[f"{name}.hada_w{side}_a"] @ found[f"{name}.hada_w{side}_b"] for side in "12"]
    return sides[0] * sides[1]


def resized(path: Path, output: Path, store: Store, rank: int) -> Path:
    return run_combine(plan_combine([Weighted(str(path))], store, output, keep=Keep(rank=rank), tool="resize"), store).output


def test_a_convolution_of_a_unet_gets_its_kernel_back_and_diffusers_loads_it(tmp_path: Path) -> None:
    weights = tiny.tiny_parts("sd1")[1].denoiser.state_dict()
    shapes = {name: weights[f"{name}.weight"].shape for name in (CONV, LINEAR, SHORT)}
    source = loha(tmp_path / "a.safetensors", {flat(name): (shape[0], shape[1:].numel()) for name, shape in shapes.items()}, METADATA)
    there = resized(source, tmp_path / "there.safetensors", Store(tmp_path / "home"), rank=4)
    found = load_file(there)
    assert found[f"{flat(CONV)}.lora_down.weight"].shape == (4, shapes[CONV][1], 3, 3)
    assert found[f"{flat(CONV)}.lora_up.weight"].shape == (shapes[CONV][0], 4, 1, 1)
    assert found[f"{flat(LINEAR)}.lora_down.weight"].shape == (4, shapes[LINEAR][1])
    assert found[f"{flat(SHORT)}.lora_down.weight"].shape == (4, shapes[SHORT][1], 1, 1)
    pipeline = tiny.plain_pipeline("sd1")
    pipeline.load_lora_weights(there)
    for name in (CONV, LINEAR, SHORT):
        layer = pipeline.unet.get_submodule(name)
        (adapter,) = layer.lora_A
        wanted = change(source, flat(name)).reshape(shapes[name])
        assert torch.allclose(layer.get_delta_weight(adapter), wanted, atol=1e-4)  # rank 2 by 2 is at most 4


@pytest.mark.parametrize("metadata", [{"ss_base_model_version": "hunyuan_video"}, None])
def test_an_unknown_kernel_is_refused_by_name(metadata: dict[str, str] | None, tmp_path: Path) -> None:
    source = loha(tmp_path / "a.safetensors", {"lora_unet_blocks_0_conv_depth": (8, 36), "lora_unet_blocks_0_attn_to_q": (8, 8)}, metadata)
    with pytest.raises(Faults, match=r"lora_unet_blocks_0_conv_depth is a convolution without a Tucker core"):
        plan_combine([Weighted(str(source))], Store(tmp_path / "home"), tmp_path / "out.safetensors", keep=Keep(rank=2), tool="resize")


def test_columns_that_are_no_kernel_of_three_are_refused(tmp_path: Path) -> None:
    source = loha(tmp_path / "a.safetensors", {flat(CONV): (8, 16), flat(LINEAR): (8, 8)}, METADATA)
    with pytest.raises(Faults, match=r"conv1 is a convolution without a Tucker core"):
        plan_combine([Weighted(str(source))], Store(tmp_path / "home"), tmp_path / "out.safetensors", keep=Keep(rank=2), tool="resize")
