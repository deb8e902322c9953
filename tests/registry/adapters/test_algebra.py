"""The laws of the algebra: one adapter is itself, sums are linear, what is fused can be extracted, order does not matter."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from registry.adapters.combine import plan_combine, run_combine
from registry.adapters.delta import delta
from registry.adapters.extract import plan_extract, run_extract
from registry.adapters.factors import Factors, Keep, concatenated, dense_spectrum, inner, leading_spectrum, spectrum
from registry.adapters.fuse import plan_fuse, run_fuse
from registry.adapters.inspect import diff_adapters, draw, inspect_adapter
from registry.adapters.reader import read_adapter
from registry.errors import Faults
from registry.merging.reproduce import reproduce
from registry.references import Weighted
from registry.store import Store
from tests.registry.adapters.made_adapters import CONV, NAMES, NORM, QUERY, SHAPES, TEXT, checkpoint, delta_by_hand, lora, random
from tests.registry.merging.models import read, written


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "home")


def close(found: Tensor, wanted: Tensor, tolerance: float = 1e-5) -> bool:
    """fp32 sums and products of numbers near 1; SVDs are fp64 inside."""
    return torch.allclose(found, wanted, rtol=tolerance, atol=tolerance)


def combine(store: Store, output: Path, *adapters: tuple[Path, float], keep: Keep | None = None, **options: object) -> Path:
    references = [Weighted(str(path), weight) for path, weight in adapters]
    return run_combine(plan_combine(references, store, output, keep=keep, **options), store).output  # type: ignore[arg-type]


def fuse(store: Store, output: Path, base: Path, *adapters: tuple[Path, float], **options: object) -> dict[str, Tensor]:
    plan = plan_fuse(str(base), [Weighted(str(path), weight) for path, weight in adapters], store, output, **options)  # type: ignore[arg-type]
    return read(run_fuse(plan, store).output)


def deltas(path: Path) -> dict[tuple[str, str], Tensor]:
    return {module.place: delta(module).flatten(1) for module in read_adapter(path).modules}


# --- factors


def test_the_core_has_the_singular_values_of_the_delta() -> None:
    factors = Factors(random(1, 30, 5), random(2, 5, 40), (30, 40))
    exact, actual = dense_spectrum(factors.product()), spectrum(factors)
    assert close(actual.values.float(), exact.values[:5].float()) and close(actual.cut(5).product(), factors.product(), 1e-4)
    assert actual.norm == pytest.approx(float(factors.product().norm()), rel=1e-5)


def test_a_cut_loses_what_its_energy_says() -> None:
    found = spectrum(Factors(random(1, 20, 6), random(2, 6, 20), (20, 20)))
    whole, part = found.cut(6).product().double(), found.cut(2).product().double()
    lost = float((whole - part).square().sum() / whole.square().sum())
    assert lost == pytest.approx(1 - found.energy(2), rel=1e-4)


def test_factors_of_more_directions_than_the_layer_has_are_exact_too() -> None:
    factors = concatenated([(Factors(random(n, 6, 4), random(n + 9, 4, 5), (6, 5)), 0.5) for n in range(3)])
    assert factors.rank == 12 and close(spectrum(factors).cut(5).product(), factors.product(), 1e-4)


def test_a_randomised_svd_finds_the_leading_values_and_repeats_itself() -> None:
    change = random(1, 120, 8) @ random(2, 8, 150) + 0.01 * random(3, 120, 150)
    found, again = leading_spectrum(change, 8, seed=4), leading_spectrum(change, 8, seed=4)
    assert close(found.values.float(), dense_spectrum(change).values[:8].float(), 1e-4) and found.u.equal(again.u)


def test_inner_products_need_no_delta() -> None:
    one, other = Factors(random(1, 9, 2), random(2, 2, 7), (9, 7)), Factors(random(3, 9, 3), random(4, 3, 7), (9, 7))
    assert inner(one, other) == pytest.approx(float((one.product() * other.product()).sum()), rel=1e-4)


@pytest.mark.parametrize(
    ("keep", "rank"),
    [
        (Keep(rank=2), 2),
        (Keep(sv_ratio=4.0), 2),  # 8, 4 are above 8 / 4; 2 is not
        (Keep(sv_ratio=3.9), 2),
        (Keep(energy=0.9), 2),  # 64, 16, 4, 1 of 85: 80 is 94 %
        (Keep(sv_fro=0.9), 2),  # 0.81 of the squares
        (Keep(energy=0.95), 3),
        (Keep(energy=1.0), 4),
        (Keep(rank=3, energy=1.0), 3),
    ],
)
def test_how_many_values_are_kept(keep: Keep, rank: int) -> None:
    assert keep.of(torch.tensor([8.0, 4.0, 2.0, 1.0], dtype=torch.float64)) == rank


# --- combine and resize


@pytest.mark.parametrize("spelling", ["kohya", "diffusers"])
def test_one_adapter_at_weight_1_is_unchanged_to_the_bit(spelling: str, store: Store, tmp_path: Path) -> None:
    reported = '{"unet.r": 2, "unet.lora_alpha": 6}'
    path = lora(tmp_path / "a.safetensors", spelling=spelling, dtype=torch.float16, lora_adapter_metadata=reported)
    again = combine(store, tmp_path / "again.safetensors", (path, 1.0))
    before, after = read(path), read(again)
    assert before.keys() == after.keys() and all(value.equal(after[name]) for name, value in before.items())
    assert {m.place: m.alpha for m in read_adapter(again).modules} == {m.place: m.alpha for m in read_adapter(path).modules}


def test_combining_is_linear(store: Store, tmp_path: Path) -> None:
    a = lora(tmp_path / "a.safetensors", 100, rank=2, alpha=1.0)
    b = lora(tmp_path / "b.safetensors", 200, rank=3, alpha=None, spelling="diffusers", modules=(QUERY, CONV))
    found = deltas(combine(store, tmp_path / "sum.safetensors", (a, 0.5), (b, -2.0)))
    actual, expected = deltas(a), deltas(b)
    assert found.keys() == actual.keys()
    for place, change in found.items():
        wanted = 0.5 * actual[place] + (-2.0 * expected[place] if place in expected else 0.0)
        assert close(change, wanted)


def test_combining_to_a_rank_keeps_the_best_part_of_the_sum_and_says_how_much(store: Store, tmp_path: Path) -> None:
    a, b = lora(tmp_path / "a.safetensors", 100), lora(tmp_path / "b.safetensors", 200)
    plan = plan_combine([Weighted(str(a), 0.7), Weighted(str(b), 0.4)], store, tmp_path / "two.safetensors", keep=Keep(rank=2))
    done = run_combine(plan, store)
    found = deltas(done.output)
    for place, change in found.items():
        whole = 0.7 * deltas(a)[place] + 0.4 * deltas(b)[place]
        values = torch.linalg.svdvals(whole.double())
        best = float(values[2:].square().sum())  # nothing of rank 2 is nearer (Eckart-Young)
        assert float((whole - change).square().sum()) == pytest.approx(best, rel=1e-3)
        name = next(module.name for module in read_adapter(done.output).modules if module.place == place)
        assert done.result["retained"][name] == pytest.approx(1 - best / float(values.square().sum()), rel=1e-4)
    assert set(done.result["ranks"].values()) == {2}


def test_a_resize_to_the_rank_it_has_changes_nothing_and_alpha_is_the_rank(store: Store, tmp_path: Path) -> None:
    path = lora(tmp_path / "a.safetensors", rank=3, alpha=1.5)
    same = combine(store, tmp_path / "same.safetensors", (path, 1.0), keep=Keep(rank=3), tool="resize")
    assert diff_adapters(read_adapter(path), read_adapter(same)).same
    assert all(module.alpha == 3.0 and module.rank == 3 for module in read_adapter(same).modules)


def test_lycoris_becomes_lora(store: Store, tmp_path: Path) -> None:
    name = NAMES[QUERY][0]
    factors = {"hada_w1_a": random(1, 8, 2), "hada_w1_b": random(2, 2, 6), "hada_w2_a": random(3, 8, 2), "hada_w2_b": random(4, 2, 6)}
    path = written(tmp_path / "loha.safetensors", {f"{name}.{role}": value for role, value in factors.items()})
    exact = combine(store, tmp_path / "lora.safetensors", (path, 1.0))
    (module,) = read_adapter(exact).modules
    assert module.is_plain and module.rank == 4 and close(delta(module), delta(read_adapter(path).modules[0]), 1e-4)


def test_a_sum_at_weight_0_is_noted(store: Store, tmp_path: Path) -> None:
    a = str(lora(tmp_path / "a.safetensors", 100))
    zero, half = (plan_combine([Weighted(a, weight)], store, tmp_path / "out.safetensors") for weight in (0.0, 0.5))
    assert any("all zeros" in note for note in zero.notes) and not any("all zeros" in note for note in half.notes)


def test_averaging_the_checkpoints_of_a_run(store: Store, tmp_path: Path) -> None:
    paths = [lora(tmp_path / f"{n}.safetensors", n * 100) for n in (1, 2, 3)]
    found = deltas(combine(store, tmp_path / "mean.safetensors", *[(path, 1.0) for path in paths], average=True))
    for place, change in found.items():
        assert close(change, sum((deltas(path)[place] for path in paths), torch.zeros_like(change)) / 3)


def test_what_has_no_sum_without_its_base_is_refused_with_everything_else(store: Store, tmp_path: Path) -> None:
    oft = written(tmp_path / "oft.safetensors", {f"{NAMES[QUERY][0]}.oft_blocks": random(1, 2, 4, 4)})
    base = checkpoint(tmp_path / "base.safetensors")
    store.add(base, kind="checkpoint")
    with pytest.raises(Faults) as refused:
        combine(store, base, (oft, 1.0), (base, 1.0), (tmp_path / "none.safetensors", 1.0), keep=Keep(rank=0))
    reported = str(refused.value)
    for words in ("holds oft", "is of kind checkpoint", "There is no file", "exists already", "rank must be at least 1"):
        assert words in reported


# --- fuse


@pytest.mark.parametrize("spelling", ["kohya", "diffusers"])
def test_fusing_adds_the_change_and_nothing_else(spelling: str, store: Store, tmp_path: Path) -> None:
    base, path = checkpoint(tmp_path / "base.safetensors"), lora(tmp_path / "a.safetensors", spelling=spelling)
    before, after = read(base), fuse(store, tmp_path / "out.safetensors", base, (path, 0.75))
    for name, value in before.items():
        module = name.removesuffix(".weight")
        changed = name.endswith(".weight") and module in (QUERY, CONV, TEXT)
        assert close(after[name], value + 0.75 * delta_by_hand(path, module)) if changed else after[name].equal(value)


def test_fusing_at_weight_0_gives_the_base_to_the_bit(store: Store, tmp_path: Path) -> None:
    base, path = checkpoint(tmp_path / "base.safetensors", dtype=torch.float16), lora(tmp_path / "a.safetensors")
    with pytest.raises(Faults):
        fuse(store, tmp_path / "none.safetensors", base)
    before, after = read(base), fuse(store, tmp_path / "out.safetensors", base, (path, 0.0), (path, 1.0), (path, -1.0))
    assert all(close(after[name].float(), value.float(), 2e-3) for name, value in before.items())


def test_fusing_a_then_b_is_fusing_their_combination_in_any_order(store: Store, tmp_path: Path) -> None:
    base = checkpoint(tmp_path / "base.safetensors")
    a, b = lora(tmp_path / "a.safetensors", 100), lora(tmp_path / "b.safetensors", 200, rank=3)
    fuse(store, tmp_path / "one.safetensors", base, (a, 0.5))
    turns = fuse(store, tmp_path / "two.safetensors", tmp_path / "one.safetensors", (b, 0.8))
    together = fuse(store, tmp_path / "both.safetensors", base, (b, 0.8), (a, 0.5))
    both = combine(store, tmp_path / "sum.safetensors", (a, 0.5), (b, 0.8))
    combined = fuse(store, tmp_path / "combined.safetensors", base, (both, 1.0))
    for name, value in turns.items():
        assert close(together[name], value) and close(combined[name], value)


def test_biases_norms_and_what_needs_the_base_are_fused(store: Store, tmp_path: Path) -> None:
    base = checkpoint(tmp_path / "base.safetensors")
    norm, conv, query = "lora_unet_down_blocks_0_resnets_0_norm1", NAMES[CONV][0], NAMES[QUERY][0]
    values = {
        f"{norm}.w_norm": random(1, 4),
        f"{norm}.b_norm": random(2, 4),
        f"{conv}.diff": random(3, 8, 4, 3, 3),
        f"{conv}.diff_b": random(4, 8),
    }
    values |= {f"{query}.oft_blocks": random(5, 2, 4, 4)}
    path = written(tmp_path / "full.safetensors", values)
    before, after = read(base), fuse(store, tmp_path / "out.safetensors", base, (path, 0.5))
    assert close(after[f"{NORM}.weight"], before[f"{NORM}.weight"] + 0.5 * values[f"{norm}.w_norm"])
    assert close(after[f"{NORM}.bias"], before[f"{NORM}.bias"] + 0.5 * values[f"{norm}.b_norm"])
    assert close(after[f"{CONV}.weight"], before[f"{CONV}.weight"] + 0.5 * values[f"{conv}.diff"])
    assert close(after[f"{CONV}.bias"], before[f"{CONV}.bias"] + 0.5 * values[f"{conv}.diff_b"])
    modules = {module.place: module for module in read_adapter(path).modules}
    turned = next(module for module in modules.values() if module.algorithm == "oft")
    weight = before[f"{QUERY}.weight"]
    assert close(after[f"{QUERY}.weight"], weight + delta(turned, weight, weight=0.5))


def test_an_adapter_that_finds_no_place_is_refused_with_its_coverage(store: Store, tmp_path: Path) -> None:
    base, path = checkpoint(tmp_path / "base.safetensors"), tmp_path / "other.safetensors"
    values = read(lora(tmp_path / "a.safetensors"))
    values |= {"lora_unet_up_blocks_3_attentions_0_proj_in.lora_down.weight": random(1, 2, 4)}
    values |= {"lora_unet_up_blocks_3_attentions_0_proj_in.lora_up.weight": random(1, 4, 2)}
    values[f"{NAMES[TEXT][0]}.lora_down.weight"] = random(1, 2, 7)
    written(path, values)
    with pytest.raises(
        Faults, match=r"50\.0% of the adapters' modules are in the base, 100% are required: text_encoder 0 of 1, denoiser 2 of 3"
    ) as refused:
        fuse(store, tmp_path / "out.safetensors", base, (path, 1.0))
    assert "not in the base: lora_unet_up_blocks_3" in str(refused.value) and "[6, 7] where the base has [6, 5]" in str(refused.value)
    with pytest.raises(Faults, match="every adapter has the weight 0, which changes nothing"):
        fuse(store, tmp_path / "out.safetensors", base, (path, 0.0), coverage=0.5)
    after = fuse(store, tmp_path / "out.safetensors", base, (path, 1.0), coverage=0.5)
    assert close(after[f"{QUERY}.weight"], read(base)[f"{QUERY}.weight"] + delta_by_hand(path, QUERY))


def test_numbers_that_are_none_are_reported_with_their_module(store: Store, tmp_path: Path) -> None:
    base, path = checkpoint(tmp_path / "base.safetensors"), lora(tmp_path / "a.safetensors")
    values = read(path)
    name = f"{NAMES[QUERY][0]}.lora_up.weight"
    values[name][1, 0] = float("nan")
    broken = written(tmp_path / "broken.safetensors", values)
    for keep in (None, Keep(rank=1)):
        with pytest.raises(Faults, match=r"broken: 1 of its 9 tensors has numbers that are NaN or infinite: .*attn1_to_q"):
            combine(store, tmp_path / "sum.safetensors", (path, 1.0), (broken, 0.5), keep=keep)
    with pytest.raises(Faults, match=r"broken: 1 of its 9 tensors has numbers that are NaN or infinite: .*attn1_to_q"):
        fuse(store, tmp_path / "out.safetensors", base, (broken, 1.0))
    assert not list(tmp_path.glob("out*")) and not list(tmp_path.glob("sum*"))


@pytest.mark.slow
def test_a_large_layer_is_fused_row_by_row_in_little_memory(store: Store, tmp_path: Path) -> None:
    """The change of a plain LoRA is never made whole: a layer of 64 MiB needs no 5 x 64."""
    shape, name = (4096, 4096), "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    weight = torch.zeros(shape, dtype=torch.float16)
    base = written(
        tmp_path / "base.safetensors", {f"{QUERY}.weight": weight, "model.diffusion_model.input_blocks.3.0.op.weight": weight[:1]}
    )
    down, up = random(1, 2, 4096), random(2, 4096, 2)
    path = written(tmp_path / "a.safetensors", {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up})
    plan = plan_fuse(str(base), [Weighted(str(path), 0.5)], store, tmp_path / "out.safetensors", memory_mib=96)
    done = run_fuse(plan, store)
    assert torch.allclose(read(done.output)[f"{QUERY}.weight"].float(), up @ down * 0.5, rtol=1e-3, atol=1e-4)  # half precision
    assert done.result["retained"] == pytest.approx(1.0, abs=1e-3) and done.result["noise"] < 1e-3


def test_a_change_that_is_rounded_away_is_reported(store: Store, tmp_path: Path) -> None:
    base, path = checkpoint(tmp_path / "base.safetensors"), lora(tmp_path / "a.safetensors")
    shares = []
    for weight, dtype in ((1.0, "fp32"), (1e-3, "fp8_e4m3")):
        plan = plan_fuse(str(base), [Weighted(str(path), weight)], store, tmp_path / f"{dtype}.safetensors", dtype=dtype)
        shares.append(run_fuse(plan, store).result["retained"])
    assert shares[0] == pytest.approx(1.0, abs=1e-5) and not 0.9 < shares[1] < 1.1


def test_what_was_fused_has_its_lineage_and_can_be_made_again(store: Store, tmp_path: Path) -> None:
    base, path = checkpoint(tmp_path / "base.safetensors"), lora(tmp_path / "a.safetensors")
    store.add(base, name="base", licence="openrail")
    store.add(path, name="style", licence="MIT")
    plan = plan_fuse("base", [Weighted("style", 0.5)], store, tmp_path / "fused.safetensors")
    record = run_fuse(plan, store).record
    assert record is not None and record.licence == "openrail"
    assert [(parent["role"], parent["ref"]) for parent in record.parents] == [("base", "base"), ("adapter", "style")]
    assert reproduce("fused", store, tmp_path / "scratch").same


def test_flux_layers_are_found_under_both_codes_names(store: Store, tmp_path: Path) -> None:
    width = 4
    fused = {
        "double_blocks.0.img_attn.qkv.weight": random(1, 3 * width, width),
        "single_blocks.0.linear1.weight": random(2, 7 * width, width),
        "double_blocks.0.img_attn.proj.weight": random(3, width, width),
    }
    base = written(tmp_path / "flux.safetensors", fused)
    names = ["transformer.transformer_blocks.0.attn.to_k", "transformer.single_transformer_blocks.0.proj_mlp"]
    sizes = [width, 4 * width]
    values = {f"{name}.lora_A.weight": random(n, 2, width) for n, name in enumerate(names)}
    values |= {f"{name}.lora_B.weight": random(n + 5, size, 2) for n, (name, size) in enumerate(zip(names, sizes, strict=True))}
    path = written(tmp_path / "a.safetensors", values)
    after = fuse(store, tmp_path / "out.safetensors", base, (path, 1.0))
    key = values[f"{names[0]}.lora_B.weight"] @ values[f"{names[0]}.lora_A.weight"]
    change = after["double_blocks.0.img_attn.qkv.weight"] - fused["double_blocks.0.img_attn.qkv.weight"]
    assert close(change[width : 2 * width], key) and change[:width].eq(0).all() and change[2 * width :].eq(0).all()
    mlp = after["single_blocks.0.linear1.weight"] - fused["single_blocks.0.linear1.weight"]
    assert mlp[: 3 * width].eq(0).all() and close(
        mlp[3 * width :], values[f"{names[1]}.lora_B.weight"] @ values[f"{names[1]}.lora_A.weight"]
    )


def test_halves_that_another_code_swaps_land_where_they_belong(store: Store, tmp_path: Path) -> None:
    """FLUX's last modulation: shift and scale in the original implementation, scale and shift in diffusers."""
    width = 4
    weights = {
        "double_blocks.0.img_attn.qkv.weight": random(1, 3 * width, width),
        "final_layer.adaLN_modulation.1.weight": random(2, 2 * width, width),
        "double_blocks.0.img_attn.norm.key_norm.scale": random(3, width),  # what tells the family
    }
    base = written(tmp_path / "flux.safetensors", weights)
    down, up = random(3, 2, width), random(4, 2 * width, 2)
    names = ("transformer.norm_out.linear", "transformer.transformer_blocks.0.attn.to_q")
    values = {f"{names[0]}.lora_A.weight": down, f"{names[0]}.lora_B.weight": up}
    values |= {f"{names[1]}.lora_A.weight": random(5, 2, width), f"{names[1]}.lora_B.weight": random(6, width, 2)}
    after = fuse(store, tmp_path / "out.safetensors", base, (written(tmp_path / "a.safetensors", values), 1.0))
    name = "final_layer.adaLN_modulation.1.weight"
    assert close(after[name] - weights[name], torch.cat([(up @ down)[width:], (up @ down)[:width]]))


# --- extract


def test_fuse_then_extract_at_full_rank_returns_the_change(store: Store, tmp_path: Path) -> None:
    base, path = checkpoint(tmp_path / "base.safetensors"), lora(tmp_path / "a.safetensors")
    fuse(store, tmp_path / "tuned.safetensors", base, (path, 1.0))
    plan = plan_extract(
        str(tmp_path / "tuned.safetensors"), str(base), store, tmp_path / "out.safetensors", keep=Keep(energy=1.0), dtype="fp32"
    )
    done = run_extract(plan, store)
    found, wanted = deltas(done.output), deltas(path)
    assert found.keys() == wanted.keys() and all(close(found[place], change) for place, change in wanted.items())
    assert done.result["unchanged"] == 1 and done.result["left_out"] == 0.0
    low = plan_extract(str(tmp_path / "tuned.safetensors"), str(base), store, tmp_path / "low.safetensors", keep=Keep(rank=2), dtype="fp32")
    ranks = run_extract(low, store).result
    assert set(ranks["ranks"].values()) == {2} and ranks["retained_all"] == pytest.approx(1.0, abs=1e-6)


def test_changes_of_biases_and_norms_are_counted_and_written_where_asked(store: Store, tmp_path: Path) -> None:
    """The layers change by 4 in squares, the bias by 9, the norm by 2 x 4, a parameter of no module by 1: 22 in all."""
    layer, norm = (f"model.diffusion_model.input_blocks.1.1.{part}" for part in ("transformer_blocks.0.attn1.to_out.0", "norm"))
    extra = "cond_stage_model.transformer.text_projection"
    base = {
        f"{layer}.weight": torch.zeros(3, 2),
        f"{layer}.bias": torch.zeros(3),
        f"{norm}.weight": torch.ones(2),
        f"{norm}.bias": torch.zeros(2),
    }
    base |= {extra: torch.zeros(2, 2), f"{norm}.position_ids": torch.arange(2)}
    tuned = {name: tensor.clone() for name, tensor in base.items()}
    tuned[f"{layer}.weight"][0, 0], tuned[f"{layer}.bias"][1], tuned[extra][0, 1] = 2.0, 3.0, 1.0
    tuned[f"{norm}.weight"][0], tuned[f"{norm}.bias"][1] = 3.0, 2.0
    tuned_path, base_path = (str(written(tmp_path / f"{name}.safetensors", values)) for name, values in (("tuned", tuned), ("base", base)))
    done = {
        biases: run_extract(
            plan_extract(tuned_path, base_path, store, tmp_path / f"{biases}.safetensors", keep=Keep(rank=1), dtype="fp32", biases=biases),
            store,
        )
        for biases in (False, True)
    }
    plain, whole = done[False].result, done[True].result
    assert plain["retained_all"] == pytest.approx(4 / 22) and plain["left_out"] == pytest.approx(18 / 22)
    assert plain["left_out_by"] == pytest.approx({"norms": 4 / 22, "biases": 13 / 22, "other tensors": 1 / 22})
    assert whole["retained_all"] == pytest.approx(21 / 22) and whole["left_out_by"] == pytest.approx({"other tensors": 1 / 22})
    keys = {name for name in read(done[True].output) if name not in read(done[False].output)}
    assert sorted(name.rpartition(".")[2] for name in keys) == ["diff", "diff_b", "diff_b"]
    fused = fuse(store, tmp_path / "fused.safetensors", Path(base_path), (done[True].output, 1.0))
    tuned[extra] = base[extra]
    assert all(torch.allclose(fused[name].float(), tensor.float(), atol=1e-6) for name, tensor in tuned.items())
    assert reproduce("True", store, tmp_path / "scratch").same


def test_an_extracted_adapter_fits_the_base_again(store: Store, tmp_path: Path) -> None:
    from registry.detect.inspect import fits

    base, other = checkpoint(tmp_path / "base.safetensors"), checkpoint(tmp_path / "other.safetensors", seed=40)
    run_extract(plan_extract(str(other), str(base), store, tmp_path / "out.safetensors", keep=Keep(rank=3)), store)
    assert fits(tmp_path / "out.safetensors", base).ok
    kept = inspect_adapter(read_adapter(tmp_path / "out.safetensors"))
    assert all(module.rank == 3 and module.state == "ok" for module in kept.modules)


def test_nothing_to_extract_and_nothing_in_common_are_reported(store: Store, tmp_path: Path) -> None:
    base, other = checkpoint(tmp_path / "base.safetensors"), written(tmp_path / "x.safetensors", {"something.weight": random(1, 3, 3)})
    with pytest.raises(Exception, match="there is nothing to extract"):
        run_extract(plan_extract(str(base), str(base), store, tmp_path / "out.safetensors", keep=Keep(rank=2)), store)
    with pytest.raises(Faults, match="no layer in common"):
        plan_extract(str(other), str(base), store, tmp_path / "out.safetensors", keep=Keep(rank=2))
    with pytest.raises(Faults, match="say how much to keep"):
        plan_extract(str(base), str(base), store, tmp_path / "out.safetensors", keep=Keep())


def test_adapters_are_made_again_from_their_recipes(store: Store, tmp_path: Path) -> None:
    base, other = checkpoint(tmp_path / "base.safetensors"), checkpoint(tmp_path / "other.safetensors", seed=40)
    a, b = lora(tmp_path / "a.safetensors", 100), lora(tmp_path / "b.safetensors", 200, dtype=torch.float16)
    for path in (base, other, a, b):
        store.add(path)
    combine(store, tmp_path / "sum.safetensors", (a, 0.5), (b, 0.25))
    combine(store, tmp_path / "small.safetensors", (a, 1.0), keep=Keep(energy=0.8), tool="resize")
    run_extract(plan_extract("other", "base", store, tmp_path / "taken.safetensors", keep=Keep(rank=2), components=("denoiser",)), store)
    a.rename(tmp_path / "renamed.safetensors")
    store.scan(tmp_path, hash=True)
    for name in ("sum", "small", "taken"):
        assert reproduce(name, store, tmp_path / "scratch").same


# --- inspect and diff


def test_inspect_tells_norms_ranks_and_what_is_dead_or_broken(tmp_path: Path) -> None:
    values = read(lora(tmp_path / "a.safetensors", rank=2))
    values[f"{NAMES[CONV][0]}.lora_up.weight"].zero_()
    values[f"{NAMES[TEXT][0]}.lora_up.weight"][0, 0] = float("nan")
    report = inspect_adapter(read_adapter(written(tmp_path / "b.safetensors", values)))
    query, conv, text = (next(module for module in report.modules if module.name == NAMES[place][0]) for place in (QUERY, CONV, TEXT))
    assert query.norm == pytest.approx(float(delta_by_hand(tmp_path / "a.safetensors", QUERY).norm()), rel=1e-5)
    assert query.state == "ok" and 1.0 < (query.effective_rank or 0) <= 2.0 and query.scale == 0.5 and query.block == "down_blocks_0"
    assert conv.state == "zero" and text.state == "broken"
    plain = json.loads(json.dumps(report.to_json()))
    assert plain["zero"] == 1 and plain["broken"] == 1
    assert report.blocks()["text_encoder encoder_layers_0"] == {"modules": 1, "norm": None, "effective_rank": None}  # not computed
    draw(report, tmp_path / "blocks.png")
    assert (tmp_path / "blocks.png").read_bytes().startswith(b"\x89PNG")


def test_diff_sees_the_same_change_in_other_spellings_and_another_one(tmp_path: Path) -> None:
    one = read_adapter(lora(tmp_path / "a.safetensors", 100, alpha=2.0))
    same = read_adapter(lora(tmp_path / "b.safetensors", 100, alpha=None, spelling="diffusers"))
    twice = read_adapter(lora(tmp_path / "c.safetensors", 100, alpha=4.0, modules=(QUERY,)))
    assert diff_adapters(one, same).same
    found = diff_adapters(one, twice)
    assert not found.same and len(found.only_first) == 2 and found.cosine == pytest.approx(1.0)
    assert found.modules[0].second == pytest.approx(2 * found.modules[0].first) and SHAPES[QUERY] == (8, 6)
