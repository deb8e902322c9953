"""Training with products of 8-bit numbers: resumed to the same bytes, beside swapped blocks, in the plan, and what is refused."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from registry.errors import Faults
from registry.quantised.linear import QuantisedLinear
from registry.store import Store
from tests.train.conftest import stopped
from train import run
from train.config import CheckpointConfig, PreviewConfig, TrainConfig
from train.plan import compute
from train.plan.compute import compute_notes

Settings = Callable[..., TrainConfig]
Prepared = Callable[[TrainConfig], Any]
INT8: dict[str, Any] = {"base_dtype": "int8", "compute": "int8"}


@pytest.mark.slow
def test_a_run_is_proven_and_resumed_to_the_same_bytes(settings: Settings, store: Store, tmp_path: Path) -> None:
    def config(name: str) -> TrainConfig:
        shared = {"checkpoint": CheckpointConfig(every=2), "preview": PreviewConfig(prompts=["a disc"], steps=2, every=4)}
        return settings(steps=4, out=str(tmp_path / name), **shared, **INT8)

    straight = run.run(config("straight"), store)
    place = stopped(config("resumed"), store, at=3)
    with pytest.raises(Faults, match="compute"):
        run.resume(place, {"compute": None}, store)
    resumed = run.resume(place, {}, store)
    assert straight.result["quantised"]["compute"] == "int8" and straight.result["previews"]
    one, other = (Path(each.result["files"]["diffusers"]).read_bytes() for each in (straight, resumed))
    assert one == other


@pytest.mark.slow
def test_gradients_are_near_those_of_the_dequantised_weights(settings: Settings, prepared: Prepared) -> None:
    """Every linear layer of the blocks takes part; their rounding is a few percent of a gradient after forty of them."""
    found = []
    for chosen in ({"base_dtype": "int8"}, INT8):
        state = prepared(settings(**chosen)).state
        layers = [layer for layer in state.parts.denoiser.modules() if isinstance(layer, QuantisedLinear)]
        assert len(layers) == 40 and sum(layer.product is not None for layer in layers) == (40 if "compute" in chosen else 0)
        state.step(0)
        found.append(torch.cat([weight.grad.flatten() for _, weight in state.weights]))
    plain, actual = found
    assert 0 < (plain - actual).norm() / plain.norm() < 0.1


@pytest.mark.slow
def test_swapped_blocks_and_activations_in_main_memory_leave_every_byte(settings: Settings, prepared: Prepared) -> None:
    beside = {"gradient_checkpointing": True, **INT8}
    plain = prepared(settings(**beside)).state
    away = prepared(settings(swap_blocks=11, offload_activations=True, **beside)).state
    for step in range(2):
        assert plain.step(step).losses.equal(away.step(step).losses)
        assert all(one.equal(other) for (_, one), (_, other) in zip(plain.weights, away.weights, strict=True))


@pytest.mark.slow
def test_the_plan_names_it_counts_its_products_and_says_where_it_is_slower(
    settings: Settings, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(**INT8)
    with monkeypatch.context() as patched:
        patched.setattr(compute, "products_in_8_bits", lambda *_: 1e15)
        assert not list(compute_notes(config, torch.device("cpu")))
        patched.setattr(compute, "products_in_8_bits", lambda *_: 1.0)
        (note,) = compute_notes(config, torch.device("cpu"))
        assert "compute=int8 is slower on this cpu" in note
    plain, actual = run.plan(replace(config, compute=None), store), run.plan(config, store)
    assert "\ncompute    int8: products" in actual.to_text() and "\ncompute " not in plain.to_text()
    assert actual.estimate.seconds and plain.estimate.activations and actual.estimate.activations
    assert actual.to_json()["config"]["compute"] == "int8" and not list(compute_notes(plain.config, torch.device("cpu")))


def test_a_trace_counts_8_bit_products_apart() -> None:
    from torch import nn

    from registry.budget.peak import backward, trace
    from registry.quantised.products import set_compute

    def traced(kind: str | None) -> Any:
        layer = QuantisedLinear(nn.Linear(16, 8, device="meta"), "int8")
        layer.set_weight(torch.empty(8, 16, device="meta"))
        set_compute(layer, kind)
        inputs = torch.empty(32, 16, device="meta", requires_grad=True)
        return trace(lambda: backward(layer(inputs).sum()), [layer])

    plain, actual = traced(None), traced("int8")
    assert (plain.operations, plain.in_8_bits) == (2 * 2 * 32 * 16 * 8, 0) and (actual.operations, actual.in_8_bits) == (
        0,
        2 * 2 * 32 * 16 * 8,
    )


def test_what_cannot_be_is_refused_by_name() -> None:
    with pytest.raises(Faults, match=r"compute needs base_dtype=int8: .*got 'int8'"):
        TrainConfig(compute="int8")
    with pytest.raises(Faults, match=r"compute needs base_dtype=fp8"):
        TrainConfig(compute="fp8", base_dtype="int8")
    with pytest.raises(Faults, match=r"compute must be int8 or fp8, or null.*got 'int4'"):
        TrainConfig(compute="int4", base_dtype="int8")
