"""Converted adapters in the readers of other tools, which know nothing of our header: the change is as strong as in the source."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from registry.converting.job import ConvertRequest, plan_convert, run_convert
from registry.families import FAMILIES
from registry.store import Store
from tests import tiny, tiny_families

if TYPE_CHECKING:
    from torch import Tensor

NAMED = [name for name in (*tiny.FAMILIES_HERE, *tiny_families.NAMES) if name in FAMILIES and FAMILIES[name].adapter_names is not None]
SD1_K = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
RANK, ALPHA = 4, 2  # of the adapters that peft makes here


def convert(store: Store, source: Path, output: Path, to: str, **wish: Any) -> dict[str, Any]:
    """The result of a conversion."""
    return dict(run_convert(plan_convert(ConvertRequest(reference=str(source), output=output, target=to, **wish), store), store).result)


def kohya_products(path: Path) -> dict[str, Tensor]:
    """Module -> up @ down * alpha / dim, as sd-scripts' networks.lora merges it."""
    state = load_file(path)
    modules = [name.removesuffix(".lora_down.weight") for name in state if name.endswith(".lora_down.weight")]
    return {
        name: product(state[f"{name}.lora_up.weight"], state[f"{name}.lora_down.weight"])
        * (float(state[f"{name}.alpha"]) / len(state[f"{name}.lora_down.weight"]))
        for name in modules
    }


def diffusers_products(family: str, path: Path) -> dict[str, Tensor]:
    """Module -> change, as diffusers' own reader of the family gives the factors without the header: alpha is then the rank."""
    import diffusers

    read = getattr(diffusers, FAMILIES[family].pipeline).lora_state_dict(load_file(path))
    state: dict[str, Tensor] = read[0] if isinstance(read, tuple) else read
    return products(state, 1.0)


def products(state: dict[str, Tensor], scale: float) -> dict[str, Tensor]:
    return {
        name.removesuffix(".lora_A.weight").replace(".text_model.", "."): product(state[name.replace("lora_A", "lora_B")], down) * scale
        for name, down in state.items()
        if "lora_A" in name
    }


def product(up: Tensor, down: Tensor) -> Tensor:
    return up.float().flatten(1) @ down.float().flatten(1)


@pytest.mark.slow
@pytest.mark.parametrize("family", NAMED)
def test_diffusers_reads_the_same_strength_without_the_header(family: str, store: Store, tmp_path: Path) -> None:
    source = tiny.tiny_adapter(tiny.shared_folder(family), tmp_path / "a.safetensors", family=family, alpha=ALPHA, text_encoder=True)
    wanted = products(load_file(source), ALPHA / RANK)
    kohya, back = tmp_path / "kohya.safetensors", tmp_path / "back.safetensors"
    convert(store, source, kohya, "kohya", family=family)
    convert(store, kohya, back, "diffusers", family=family)
    found = diffusers_products(family, back)
    assert found.keys() == wanted.keys()
    assert all(torch.allclose(found[name], change, rtol=1e-5, atol=1e-6) for name, change in wanted.items())
    (one, other) = (sum(float(change.square().sum()) for change in changes.values()) for changes in (kohya_products(kohya), wanted))
    assert one == pytest.approx(other, rel=1e-5)  # fused layers are one module there


@pytest.mark.parametrize(
    ("alpha", "rank", "dtype", "stored"),
    [
        (1.0, 32, torch.float16, torch.float16),  # a power of two
        (1.0, 4, torch.bfloat16, torch.bfloat16),
        (3.0, 4, torch.bfloat16, torch.float32),  # 0.75 of a bfloat16 needs another bit
        (24.0, 4, torch.float16, torch.float32),
    ],
)
def test_alpha_is_in_the_factors_and_stored_without_rounding(
    alpha: float, rank: int, dtype: torch.dtype, stored: torch.dtype, store: Store, tmp_path: Path
) -> None:
    draw = torch.Generator().manual_seed(rank)
    down, up = (
        torch.randn(rank, 768, generator=draw).to(dtype),
        (torch.randn(320, rank, generator=draw) * 1e-3).to(dtype),
    )  # small, as trained
    source = tmp_path / "kohya.safetensors"
    save_file({f"{SD1_K}.lora_down.weight": down, f"{SD1_K}.lora_up.weight": up, f"{SD1_K}.alpha": torch.tensor(alpha)}, source)
    result = convert(store, source, tmp_path / "out.safetensors", "diffusers", family="sd1")
    state = load_file(result["file"])
    assert {tensor.dtype for tensor in state.values()} == {stored}
    (found,) = diffusers_products("sd1", tmp_path / "out.safetensors").values()
    assert torch.allclose(found, product(up, down) * (alpha / rank), rtol=1e-4, atol=1e-7)
    assert "multiplied into their factors" in result["notes"][0]


def test_the_note_stays_away_where_alpha_is_the_rank(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "kohya.safetensors"
    factors = {f"{SD1_K}.lora_down.weight": torch.randn(2, 768), f"{SD1_K}.lora_up.weight": torch.randn(320, 2)}
    save_file({**factors, f"{SD1_K}.alpha": torch.tensor(2.0)}, source)
    result = convert(store, source, tmp_path / "out.safetensors", "diffusers", family="sd1")
    assert not result["notes"]
    assert all(any(torch.equal(tensor, other) for other in factors.values()) for tensor in load_file(result["file"]).values())
