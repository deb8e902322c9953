"""Modules whose tensors have the wrong form: named by `lora inspect`, refused by whatever would use them."""

import json
from pathlib import Path

import pytest
import torch

from registry.adapters.inspect import diff_adapters, inspect_adapter
from registry.adapters.reader import read_adapter
from registry.adapters.shape_check import misshape
from registry.converting.adapters import plan_adapter
from registry.errors import BadFile, Refused
from tests.registry.adapters.made_adapters import NAMES, QUERY, lora
from tests.registry.merging.models import read, written

NAME = NAMES[QUERY][0]


@pytest.mark.parametrize("shape", [(), (2,), (0, 6)])
def test_a_factor_of_too_few_axes_makes_a_broken_module(shape: tuple[int, ...], tmp_path: Path) -> None:
    tensors = {f"{NAME}.lora_down.weight": torch.ones(shape), f"{NAME}.lora_up.weight": torch.ones(8, 2)}
    file = written(tmp_path / "a.safetensors", tensors)
    (facts,) = inspect_adapter(read_adapter(file)).modules
    assert facts.state == "broken" and "has a down of" in str(facts.fault)
    with pytest.raises(Refused, match="has a down of"):
        diff_adapters(read_adapter(file), read_adapter(file))
    for target in ("kohya", "diffusers"):
        with pytest.raises(Refused, match="has a down of"):
            plan_adapter(file, tmp_path / "out.safetensors", target=target, family="sd1", base=None, dtype=None)


@pytest.mark.parametrize("alpha", [1e300, -1e308, float("inf"), float("nan")])
def test_an_alpha_beyond_fp32_makes_a_broken_module(alpha: float, tmp_path: Path) -> None:
    values = read(lora(tmp_path / "a.safetensors", modules=(QUERY,)))
    values[f"{NAME}.alpha"] = torch.tensor(alpha, dtype=torch.float64)
    (facts,) = inspect_adapter(read_adapter(written(tmp_path / "b.safetensors", values))).modules
    assert facts.state == "broken"


def test_a_complex_alpha_is_no_number(tmp_path: Path) -> None:
    values = read(lora(tmp_path / "a.safetensors", modules=(QUERY,)))
    values[f"{NAME}.alpha"] = torch.tensor(1 + 2j)
    with pytest.raises(BadFile, match=r"alpha is C64 \[\]; one number was expected"):
        read_adapter(written(tmp_path / "b.safetensors", values))


@pytest.mark.parametrize("blocks", [(4,), (4, 6), (2, 3, 3)])
def test_a_rotation_of_too_few_axes_or_another_size_is_refused(blocks: tuple[int, ...], tmp_path: Path) -> None:
    file = written(tmp_path / "a.safetensors", {f"{NAME}.oft_blocks": torch.ones(blocks)})
    (module,) = read_adapter(file).modules
    assert misshape(module, (8, 8)) is not None


@pytest.mark.parametrize("shape", [(2, 2, 3), (4, 1, 1, 1)])
def test_a_kronecker_factor_with_a_kernel_is_a_broken_module(shape: tuple[int, ...], tmp_path: Path) -> None:
    tensors = {f"{NAME}.lokr_w1": torch.ones(2, 2), f"{NAME}.lokr_w2_a": torch.ones(shape), f"{NAME}.lokr_w2_b": torch.ones(2, 4)}
    (facts,) = inspect_adapter(read_adapter(written(tmp_path / "a.safetensors", tensors))).modules
    assert facts.state == "broken" and "where 2 axes were expected" in str(facts.fault)


@pytest.mark.parametrize("role", ["diff_b", "lora_B.bias"])
@pytest.mark.parametrize("target", ["kohya", "diffusers"])
def test_a_bias_of_another_height_than_its_factors_is_refused(target: str, role: str, tmp_path: Path) -> None:
    tensors = {f"{NAME}.lora_down.weight": torch.ones(2, 6), f"{NAME}.lora_up.weight": torch.ones(8, 2), f"{NAME}.{role}": torch.ones(3)}
    file = written(tmp_path / "a.safetensors", tensors)
    with pytest.raises(Refused, match=r"of \[3\] for 8 rows"):
        plan_adapter(file, tmp_path / "out.safetensors", target=target, family="sd1", base=None, dtype=None)


def test_singular_values_of_another_rank_are_refused(tmp_path: Path) -> None:
    tensors = {f"{QUERY}.lora_A": torch.ones(2, 6), f"{QUERY}.lora_B": torch.ones(8, 2), f"{QUERY}.lora_E": torch.ones(3, 1)}
    settings = json.dumps({"unet.init_r": 2, "unet.lora_alpha": 4})
    file = written(tmp_path / "a.safetensors", tensors, lora_adapter_metadata=settings)
    with pytest.raises(Refused, match="has 3 singular values for a rank of 2"):
        plan_adapter(file, tmp_path / "out.safetensors", target="kohya", family="sd1", base=None, dtype=None)


def test_an_xlabs_factor_without_axes_is_a_broken_module(tmp_path: Path) -> None:
    name = "single_blocks.0.processor.qkv_lora"
    file = written(tmp_path / "a.safetensors", {f"{name}.down.weight": torch.ones(2, 6), f"{name}.up.weight": torch.ones(())})
    (facts,) = inspect_adapter(read_adapter(file)).modules
    assert facts.state == "broken" and "has a up of []" in str(facts.fault)
