"""A LoRA with a bias and norms beside it, as ComfyUI's extraction writes them: one change in every command, whatever the keys' order."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from registry.adapters.combine import plan_combine, run_combine
from registry.adapters.delta import bias_delta, delta
from registry.adapters.factors import Keep
from registry.adapters.fuse import plan_fuse, run_fuse
from registry.adapters.inspect import diff_adapters, inspect_adapter
from registry.adapters.reader import read_adapter
from registry.detect.compatibility import fits
from registry.errors import Faults
from registry.references import Weighted
from registry.store import Store
from tests.registry.adapters.made_adapters import CONV, NAMES, NORM, QUERY, checkpoint, random
from tests.registry.merging.models import read, written

NORM_NAME = "lora_unet_down_blocks_0_resnets_0_norm1"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "home")


def extraction(path: Path, seed: int = 30) -> Path:
    """A convolution with a bias, a matrix without, and a norm; alpha is the rank."""
    conv, query = NAMES[CONV][0], NAMES[QUERY][0]
    return written(
        path,
        {
            f"{conv}.diff_b": random(seed, 8),
            f"{conv}.lora_down.weight": random(seed + 1, 2, 4, 3, 3),
            f"{conv}.lora_up.weight": random(seed + 2, 8, 2, 1, 1),
            f"{query}.lora_down.weight": random(seed + 3, 2, 6),
            f"{query}.lora_up.weight": random(seed + 4, 8, 2),
            f"{NORM_NAME}.diff": random(seed + 5, 4),
            f"{NORM_NAME}.diff_b": random(seed + 6, 4),
        },
    )


def by_hand(base: Path, *adapters: tuple[Path, float]) -> dict[str, torch.Tensor]:
    """W + weight x up down, b + weight x diff_b."""
    found = read(base)
    for path, weight in adapters:
        values, conv, query = load_file(path), NAMES[CONV][0], NAMES[QUERY][0]
        up, down = values[f"{conv}.lora_up.weight"].flatten(1), values[f"{conv}.lora_down.weight"].flatten(1)
        found[f"{CONV}.weight"] = found[f"{CONV}.weight"] + weight * (up @ down).reshape(8, 4, 3, 3)
        found[f"{CONV}.bias"] = found[f"{CONV}.bias"] + weight * values[f"{conv}.diff_b"]
        product = values[f"{query}.lora_up.weight"] @ values[f"{query}.lora_down.weight"]
        found[f"{QUERY}.weight"] = found[f"{QUERY}.weight"] + weight * product
        found[f"{NORM}.weight"] = found[f"{NORM}.weight"] + weight * values[f"{NORM_NAME}.diff"]
        found[f"{NORM}.bias"] = found[f"{NORM}.bias"] + weight * values[f"{NORM_NAME}.diff_b"]
    return found


def same(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> bool:
    """fp32 sums and products of numbers near 1; SVDs are fp64 inside."""
    return found.keys() == wanted.keys() and all(torch.allclose(found[key], wanted[key], rtol=1e-5, atol=1e-5) for key in wanted)


def fused(store: Store, base: Path, output: Path, *adapters: tuple[Path, float]) -> dict[str, torch.Tensor]:
    return read(run_fuse(plan_fuse(str(base), [Weighted(str(path), weight) for path, weight in adapters], store, output), store).output)


@pytest.mark.parametrize("order", tuple(permutations(("diff_b", "lora_up.weight", "lora_down.weight"))))
def test_the_order_of_its_keys_does_not_matter(order: tuple[str, ...], tmp_path: Path) -> None:
    values = {"diff_b": random(1, 8), "lora_up.weight": random(2, 8, 2), "lora_down.weight": random(3, 2, 6)}
    (module,) = read_adapter(written(tmp_path / "a.safetensors", {f"{NAMES[QUERY][0]}.{name}": values[name] for name in order})).modules
    assert (module.algorithm, module.rank, module.is_product, module.is_plain) == ("lora", 2, True, False)
    assert delta(module).equal(values["lora_up.weight"] @ values["lora_down.weight"])
    bias = bias_delta(module)
    assert bias is not None and bias.equal(values["diff_b"])


def test_fuse_adds_the_bias_and_fits_agrees(store: Store, tmp_path: Path) -> None:
    base, path = checkpoint(tmp_path / "base.safetensors"), extraction(tmp_path / "a.safetensors")
    assert fits(path, base).ok
    assert same(fused(store, base, tmp_path / "out.safetensors", (path, 0.5)), by_hand(base, (path, 0.5)))


def test_sums_and_other_ranks_keep_biases_and_norms(store: Store, tmp_path: Path) -> None:
    base = checkpoint(tmp_path / "base.safetensors")
    one, two = extraction(tmp_path / "a.safetensors"), extraction(tmp_path / "b.safetensors", 60)
    both = [Weighted(str(one), 0.5), Weighted(str(two), -1.0)]
    summed = run_combine(plan_combine(both, store, tmp_path / "sum.safetensors"), store).output
    assert same(fused(store, base, tmp_path / "1.safetensors", (summed, 1.0)), by_hand(base, (one, 0.5), (two, -1.0)))
    resized = run_combine(
        plan_combine([Weighted(str(one))], store, tmp_path / "r.safetensors", keep=Keep(rank=2), tool="resize"), store
    ).output
    assert same(fused(store, base, tmp_path / "2.safetensors", (resized, 1.0)), by_hand(base, (one, 1.0)))
    assert diff_adapters(read_adapter(one), read_adapter(resized)).same


def test_norms_in_both_spellings_are_summed_in_one(store: Store, tmp_path: Path) -> None:
    """w_norm of LyCORIS and diff of ComfyUI's extraction: a module with both would be read by nothing."""
    base, one = checkpoint(tmp_path / "base.safetensors"), extraction(tmp_path / "a.safetensors")
    norm = {f"{NORM_NAME}.w_norm": random(1, 4), f"{NORM_NAME}.b_norm": random(2, 4)}
    two = written(tmp_path / "b.safetensors", norm)
    both = [Weighted(str(two), 0.5), Weighted(str(one), 1.0)]
    summed = run_combine(plan_combine(both, store, tmp_path / "sum.safetensors"), store).output
    wanted = by_hand(base, (one, 1.0))
    wanted[f"{NORM}.weight"] += 0.5 * norm[f"{NORM_NAME}.w_norm"]
    wanted[f"{NORM}.bias"] += 0.5 * norm[f"{NORM_NAME}.b_norm"]
    assert same(fused(store, base, tmp_path / "out.safetensors", (summed, 1.0)), wanted)


def test_biases_of_two_lengths_have_no_sum(store: Store, tmp_path: Path) -> None:
    query = {f"{NAMES[QUERY][0]}.diff": random(1, 8, 6)}
    paths = [written(tmp_path / f"of{rows}.safetensors", {**query, f"{NAMES[CONV][0]}.diff_b": random(1, rows)}) for rows in (8, 5)]
    with pytest.raises(Faults, match=r"conv1 has different biases: of8 \[8\] and of5 \[5\]"):
        plan_combine([Weighted(str(path)) for path in paths], store, tmp_path / "sum.safetensors")


def test_keys_of_no_module_are_not_in_an_unchanged_adapter_either(store: Store, tmp_path: Path) -> None:
    tensors = {f"{NAMES[QUERY][0]}.lora_down.weight": random(3, 2, 6), f"{NAMES[QUERY][0]}.lora_up.weight": random(4, 8, 2)}
    path = written(tmp_path / "a.safetensors", {**tensors, "other": random(1, 2)})
    done = run_combine(plan_combine([Weighted(str(path))], store, tmp_path / "sum.safetensors"), store)
    assert done.result["left"] == ["a: other"] and load_file(done.output).keys() == tensors.keys()


def test_a_bias_alone_is_a_difference(tmp_path: Path) -> None:
    one = extraction(tmp_path / "a.safetensors")
    other = load_file(one)
    other[f"{NAMES[CONV][0]}.diff_b"] += 1.0
    found = diff_adapters(read_adapter(one), read_adapter(written(tmp_path / "b.safetensors", other)))
    assert not found.same and [module.difference > 2.8 for module in found.modules].count(True) == 1  # sqrt(8)


def test_inspect_counts_it_as_a_lora_of_its_rank(tmp_path: Path) -> None:
    facts = {module.name: module for module in inspect_adapter(read_adapter(extraction(tmp_path / "a.safetensors"))).modules}
    assert facts[NAMES[CONV][0]].rank == 2 and {module.state for module in facts.values()} == {"ok"}


def test_a_bias_that_the_layer_has_not_is_refused_with_the_count(store: Store, tmp_path: Path) -> None:
    base, name = checkpoint(tmp_path / "base.safetensors"), NAMES[QUERY][1]
    values = {f"{name}.lora_A.weight": random(1, 2, 6), f"{name}.lora_B.weight": random(2, 8, 2), f"{name}.lora_B.bias": random(3, 8)}
    path = written(tmp_path / "a.safetensors", values)
    with pytest.raises(Faults, match="1 of the adapters' modules change a bias that their layer in the base has not"):
        plan_fuse(str(base), [Weighted(str(path))], store, tmp_path / "out.safetensors")


def test_pefts_ia3_fits_a_layer_without_a_bias(store: Store, tmp_path: Path) -> None:
    base, scale = checkpoint(tmp_path / "base.safetensors"), torch.arange(1.0, 9.0)[:, None]
    path = written(tmp_path / "a.safetensors", {f"{NAMES[QUERY][1].replace('unet.', 'base_model.model.')}.ia3_l": scale})
    found = fused(store, base, tmp_path / "out.safetensors", (path, 1.0))
    assert f"{QUERY}.bias" not in found and torch.allclose(found[f"{QUERY}.weight"], read(base)[f"{QUERY}.weight"] * scale)
