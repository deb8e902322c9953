"""Modules whose tensors have the wrong form: named by `lora inspect`, refused by whatever would use them."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from registry.adapters.combine import plan_combine
from registry.adapters.fuse import plan_fuse, run_fuse
from registry.adapters.inspect import diff_adapters, inspect_adapter
from registry.adapters.reader import read_adapter
from registry.adapters.shape_check import misshape, outline_shape, run_without_numbers
from registry.adapters.understood import adapter_faults
from registry.converting.adapters import plan_adapter
from registry.detect.compatibility import fits
from registry.errors import BadFile, Faults, JobFailed, Refused
from registry.references import Weighted
from registry.store import Store
from tests.registry.adapters.made_adapters import CONV, NAMES, QUERY, checkpoint, lora, random
from tests.registry.merging.models import read, written

NAME = NAMES[QUERY][0]
NORM_NAME = "lora_unet_down_blocks_0_resnets_0_norm1"
PAIR = {"lora_down.weight": random(1, 2, 6), "lora_up.weight": random(2, 8, 2)}  # of QUERY, which is 8 x 6
CORE = {"lora_up.weight": random(1, 8, 2, 1, 1), "lora_mid.weight": random(2, 2, 2, 3, 3)}
SIDES = {"hada_w1_a": random(1, 8, 2), "hada_w1_b": random(2, 2, 6), "hada_w2_a": random(3, 8, 2)}


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


@pytest.mark.parametrize(
    "shapes",
    [
        {"lora_up.weight": (8, 2), "lora_down.weight": (2, 6)},
        {"lora_up.weight": (8, 2, 1, 1), "lora_down.weight": (2, 6, 3, 3)},
        {"lora_up.weight": (8, 2, 1, 1), "lora_mid.weight": (2, 2, 3, 3), "lora_down.weight": (2, 6, 1, 1)},
        {"lokr_w1": (2, 3), "lokr_w2": (4, 5)},
        {"lokr_w1": (2, 3), "lokr_w2": (4, 5, 3, 3)},
        {"lokr_w1_a": (2, 2), "lokr_w1_b": (2, 3), "lokr_w2_a": (4, 2), "lokr_w2_b": (2, 5)},
        {"lokr_w1": (2, 3), "lokr_w2_a": (4, 3), "lokr_w2_b": (2, 5)},
        {"lokr_w1": (2, 3), "lokr_t2": (2, 2, 3, 3), "lokr_w2_a": (2, 4), "lokr_w2_b": (2, 5)},
    ],
)
def test_the_shape_of_a_change_from_its_factors_is_that_of_its_definition(shapes: dict[str, tuple[int, ...]], tmp_path: Path) -> None:
    tensors = {f"{NAME}.{ending}": torch.ones(shape) for ending, shape in shapes.items()}
    (module,) = read_adapter(written(tmp_path / "a.safetensors", tensors | {f"{NAME}.alpha": torch.tensor(2.0)})).modules
    assert outline_shape(module) == run_without_numbers(module)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64])
def test_an_alpha_is_read_in_any_dtype(dtype: torch.dtype, tmp_path: Path) -> None:
    tensors = {f"{NAME}.{ending}": value for ending, value in PAIR.items()} | {f"{NAME}.alpha": torch.tensor([12.0]).to(dtype)}
    (module,) = read_adapter(written(tmp_path / "a.safetensors", tensors)).modules
    assert module.alpha == 12.0


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


FORMS: dict[str, tuple[str, dict[str, Tensor], str]] = {  # no base makes them sound
    "a bias of another length": (NAME, {**PAIR, "diff_b": random(3, 10)}, r"has a diff_b of \[10\], where 8 numbers were expected"),
    "a norm's bias": (NORM_NAME, {"w_norm": random(3, 4), "b_norm": random(4, 7)}, r"has a b_norm of \[7\], where 4 numbers"),
    "one magnitude for all": (NAME, {**PAIR, "dora_scale": random(3, 1, 1)}, r"has a DoRA magnitude of \[1, 1\], where 8 numbers"),
    "a kernel in two factors": (NAMES[CONV][0], {**CORE, "lora_down.weight": random(3, 2, 4, 3, 3)}, "do not fit each other"),
    "a LoHa of two shapes": (
        NAME,
        {**SIDES, "hada_w2_b": random(4, 2, 1)},
        r"w1_b and a w2_b that do not fit each other: \[2, 6\] and \[2, 1\]",
    ),
    "an alpha that is none": (NAME, {**PAIR, "alpha": torch.tensor(float("nan"))}, "has an alpha of nan"),
    "an alpha beyond fp32": (NAME, {**PAIR, "alpha": torch.tensor(1e300, dtype=torch.float64)}, r"has an alpha of 1e\+300"),
    "a constraint that is none": (NAME, {"oft_blocks": random(3, 2, 4, 4), "alpha": torch.tensor(float("nan"))}, "has an alpha of nan"),
}


@pytest.mark.parametrize("case", FORMS)
def test_tensors_that_contradict_each_other_are_refused_everywhere(case: str, tmp_path: Path) -> None:
    name, tensors, words = FORMS[case]
    path = written(tmp_path / "a.safetensors", {f"{name}.{ending}": tensor for ending, tensor in tensors.items()})
    adapter, base = read_adapter(path), checkpoint(tmp_path / "base.safetensors")
    (fault,) = adapter_faults(adapter)
    (facts,) = inspect_adapter(adapter).modules
    assert facts.state == "broken" and str(facts.fault) in fault and not fits(path, base).ok
    for run in (
        lambda: plan_fuse(str(base), [Weighted(str(path))], Store(tmp_path / "home"), tmp_path / "out.safetensors"),
        lambda: diff_adapters(adapter, adapter),
    ):
        with pytest.raises(Faults, match=words):
            run()


MISFITS: dict[str, tuple[str, dict[str, Tensor], str]] = {  # another base could take them
    "scales of the columns for the rows": (NAME, {"on_input": torch.tensor(False), "weight": random(1, 6)}, "6 scales of rows where"),
    "scales of a norm's columns": (NORM_NAME, {"on_input": torch.tensor(True), "weight": random(1, 4)}, "4 scales of columns where"),
    "scales beside a rotation": (NAME, {"oft_blocks": random(1, 2, 4, 4), "rescale": random(2, 3, 1)}, "3 scales of rows where"),
    "a butterfly of too many factors": (NAME, {"oft_blocks": random(1, 7, 2, 4, 4)}, "a butterfly of 7 factors of 4 x 4 where"),
    "a butterfly of single numbers": (NAME, {"oft_blocks": random(1, 2, 8, 1, 1)}, "a butterfly of 2 factors of 1 x 1 where"),
    "blocks that are not square": (NAME, {"oft_blocks": random(1, 2, 3, 4)}, "which are not square"),
    "a product for a norm": (
        NORM_NAME,
        {"lora_down.weight": random(1, 2, 1), "lora_up.weight": random(2, 4, 2)},
        r"where the base has \[4\]",
    ),
    "a bias longer than a LoKr": (
        NAME,
        {"lokr_w1": random(1, 2, 2), "lokr_w2": random(2, 4, 3), "diff_b": random(3, 10)},
        "a bias of 10 where the base has 8 rows",
    ),
    "magnitudes of a LoKr": (
        NAME,
        {"lokr_w1": random(1, 2, 2), "lokr_w2": random(2, 4, 3), "dora_scale": random(3, 1)},
        "a DoRA magnitude of 1 where",
    ),
}


@pytest.mark.parametrize("case", MISFITS)
def test_what_does_not_fit_the_layer_is_seen_by_fuse_and_fits(case: str, tmp_path: Path) -> None:
    name, tensors, words = MISFITS[case]
    path = written(tmp_path / "a.safetensors", {f"{name}.{ending}": tensor for ending, tensor in tensors.items()})
    base = checkpoint(tmp_path / "base.safetensors")
    with pytest.raises(Faults, match=words):
        plan_fuse(str(base), [Weighted(str(path))], Store(tmp_path / "home"), tmp_path / "out.safetensors")
    found = fits(path, base)
    assert not found.ok and found.mismatched


def test_whole_numbers_in_the_base_are_not_changed_and_this_is_said(tmp_path: Path) -> None:
    values = read(checkpoint(tmp_path / "base.safetensors"))
    values[f"{QUERY}.weight"] = values[f"{QUERY}.weight"].to(torch.int8)
    base, path = written(tmp_path / "int.safetensors", values), lora(tmp_path / "a.safetensors")
    with pytest.raises(Faults, match="I8 in the base, where floating point numbers were expected"):
        plan_fuse(str(base), [Weighted(str(path))], Store(tmp_path / "home"), tmp_path / "out.safetensors")


@pytest.mark.parametrize("start", ["pissa", "olora", ""])
def test_a_base_with_numbers_that_are_none_is_named_as_the_cause(start: str, tmp_path: Path) -> None:
    values = read(checkpoint(tmp_path / "base.safetensors"))
    values[f"{QUERY}.weight"][0, 0] = float("nan")
    name = NAMES[QUERY][1]
    settings = f'{{"unet.r": 2, "unet.lora_alpha": 2, "unet.init_lora_weights": "{start}"}}'
    factors = {f"{name}.lora_A.weight": random(1, 2, 6), f"{name}.lora_B.weight": random(2, 8, 2)}
    tensors, metadata = (factors, {"lora_adapter_metadata": settings}) if start else ({f"{NAME}.oft_blocks": random(1, 2, 4, 4)}, {})
    base, path = written(tmp_path / "nan.safetensors", values), written(tmp_path / "a.safetensors", tensors, **metadata)
    store = Store(tmp_path / "home")
    with pytest.raises(JobFailed, match=r"attn1\.to_q\.weight of the base has numbers that are none"):
        run_fuse(plan_fuse(str(base), [Weighted(str(path))], store, tmp_path / "out.safetensors"), store)


def test_adapters_with_numbers_that_are_none_are_not_the_same(tmp_path: Path) -> None:
    values = read(lora(tmp_path / "a.safetensors", modules=(QUERY,)))
    values[f"{NAME}.lora_up.weight"][0, 0] = float("nan")
    broken = read_adapter(written(tmp_path / "b.safetensors", values))
    with pytest.raises(Refused, match="has numbers that are none"):
        diff_adapters(broken, broken)


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


def test_numbers_that_are_none_are_refused_by_name_before_anything_is_read(tmp_path: Path, store: Store) -> None:
    values = read(lora(tmp_path / "a.safetensors", modules=(QUERY,)))
    values[f"{NAME}.lora_up.weight"][0, 0] = float("nan")
    file, base = written(tmp_path / "b.safetensors", values), checkpoint(tmp_path / "base.safetensors")
    with pytest.raises(Faults, match=rf"b: 1 of its 3 tensors has numbers that are NaN or infinite: {NAME}.lora_up.weight. Take another"):
        plan_fuse(str(base), [Weighted(str(file), 1.0)], store, tmp_path / "out.safetensors")
    with pytest.raises(Faults, match="b: 1 of its 3 tensors has numbers"):
        plan_combine([Weighted(str(file), 1.0)], store, tmp_path / "out.safetensors")
