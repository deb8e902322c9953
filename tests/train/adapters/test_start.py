"""Training that continues from an adapter: the same function at its rank and above, the nearest below; what does not fit is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from registry.adapters.writer import Pair
from registry.errors import Faults, Refused
from registry.store import Store
from tests import tiny
from train import run
from train.adapters.start import _fitted
from train.config import AdapterConfig, LoraConfig, TrainConfig
from train.lora import adapter_disabled, lora_tensors, scales

Settings = Callable[..., TrainConfig]
Prepared = Callable[[TrainConfig], Any]


def continued(reference: object, **given: Any) -> LoraConfig:
    return LoraConfig(start=str(reference), **given)


@pytest.fixture(scope="module")
def learned(base: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter of rank 2 on the attention layers, alpha 2."""
    return tiny.tiny_adapter(base, tmp_path_factory.mktemp("start") / "first.safetensors", rank=2, strength=0.1)


def products(state: Any) -> dict[str, torch.Tensor]:
    tensors, scale = lora_tensors(state.modules), scales(state.modules)
    names = [name.removesuffix(".lora_A.weight") for name in tensors if name.endswith(".lora_A.weight")]
    return {name: tensors[f"{name}.lora_B.weight"].flatten(1) @ tensors[f"{name}.lora_A.weight"].flatten(1) * scale[name] for name in names}


@pytest.mark.slow
def test_the_start_is_the_adapter_at_its_rank_and_above(learned: Path, prepared: Prepared, settings: Settings) -> None:
    two = products(prepared(settings(lora=continued(learned, rank=2, alpha=1.0))).state)
    four = products(prepared(settings(lora=continued(learned, rank=4))).state)
    assert any(bool(product.any()) for product in two.values())
    for name, product in two.items():
        torch.testing.assert_close(four[name], product, rtol=1e-6, atol=1e-8)
    stored = load_file(learned)  # alpha is the rank: the product is B A
    for name, product in two.items():
        down, up = (stored[f"{name}.lora_{factor}.weight"].flatten(1) for factor in "AB")
        torch.testing.assert_close(product, up @ down, rtol=1e-6, atol=1e-8)


def test_a_smaller_rank_is_the_nearest_and_the_plan_says_what_is_lost(learned: Path, settings: Settings, store: Store) -> None:
    plan = run.plan(settings(lora=continued(learned, rank=1)), store)
    assert plan.start is not None and 0 < plan.start.lost < 1
    assert f"{plan.start.lost:.1%} of it is lost by the smaller rank" in plan.to_text() and plan.to_json()["start_adapter"]


def test_a_start_and_a_training_adapter_with_numbers_that_are_none_are_refused(
    learned: Path, settings: Settings, store: Store, tmp_path: Path
) -> None:
    values = load_file(learned)
    name = next(iter(values))
    save_file(values | {name: torch.full_like(values[name], float("nan"))}, tmp_path / "broken.safetensors")
    for given, word in (
        (settings(lora=continued(tmp_path / "broken.safetensors")), "lora.start"),
        (settings(adapter=AdapterConfig(training=str(tmp_path / "broken.safetensors"))), "adapter.training"),
    ):
        with pytest.raises((Faults, Refused), match=rf"{word}=.*broken.safetensors cannot be .*1 of its \d+ tensors has numbers"):
            run.plan(given, store)


def test_the_nearest_of_a_lower_rank_is_that_of_the_singular_values() -> None:
    """diag(3, 2) as a product: of rank 1 the nearest is diag(3, 0); times 2, by a scale of alpha 4 at rank 2."""
    pair = Pair(torch.eye(2), torch.diag(torch.tensor([3.0, 2.0])), alpha=4.0)
    down, up = _fitted(pair, torch.ones(1, 2), torch.zeros(2, 1), pair.scale / 0.5)
    torch.testing.assert_close(up @ down * 0.5, torch.tensor([[6.0, 0.0], [0.0, 0.0]]))


@pytest.mark.slow
def test_a_run_that_continues_is_judged_against_the_bare_base_and_resumes(
    learned: Path, settings: Settings, store: Store, prepared: Prepared
) -> None:
    work = prepared(settings(lora=continued(learned, rank=2)))
    bare = prepared(settings(lora=LoraConfig(rank=2)))
    measured = work.probe.measure(work.state, model=work.state.model)["losses"]
    with adapter_disabled(work.state.modules):
        assert (
            work.probe.measure(work.state, model=work.state.model)["losses"]
            == bare.probe.measure(bare.state, model=bare.state.model)["losses"]
        )
    assert measured != bare.probe.measure(bare.state, model=bare.state.model)["losses"]
    outcome = run.run(settings(steps=2, lora=continued(learned, rank=2)), store)
    record = store.find(outcome.result["adapter"])
    assert any(parent["role"] == "adapter" for parent in record.parents)


@pytest.mark.slow
def test_another_adapter_of_the_name_is_not_resumed(learned: Path, base: Path, settings: Settings, store: Store, tmp_path: Path) -> None:
    mine = tmp_path / "mine.safetensors"
    mine.write_bytes(learned.read_bytes())
    outcome = run.run(settings(steps=2, lora=continued(mine, rank=2)), store)
    (outcome.folder / "result.json").unlink()
    moved = mine.rename(tmp_path / "moved.safetensors")
    assert run.resume(outcome.folder, {"lora.start": str(moved)}, store).result["steps"] == 2
    assert json.loads((outcome.folder / "inputs.json").read_text())["start_adapter"]["path"] == str(moved)
    (outcome.folder / "result.json").unlink()
    tiny.tiny_adapter(base, mine, rank=2, strength=0.2)
    with pytest.raises(Faults, match=r"the adapter that is continued .*mine\.safetensors is another one"):
        run.resume(outcome.folder, {"lora.start": str(mine)}, store)


def test_layers_that_are_not_trained_and_other_kinds_are_refused(learned: Path, settings: Settings, store: Store) -> None:
    with pytest.raises(Refused, match=r"changes \d+ layers that are not trained here: unet\..*give lora\.targets"):
        run.plan(settings(lora=continued(learned, rank=2, targets=["to_q"])), store)
    with pytest.raises(Faults, match=r"lora\.start needs lora\.kind=lora that begins at zero"):
        settings(lora=continued(learned, kind="lokr"))
