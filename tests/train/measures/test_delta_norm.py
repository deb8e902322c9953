from collections.abc import Callable
from typing import Any

import pytest

from train.adapters.attach import deltas_of
from train.config import TrainConfig
from train.measures.delta_norm import percent, sentence


@pytest.mark.slow
def test_the_change_is_relative_to_the_weights_of_all_layers(
    prepared: Callable[[TrainConfig], Any], settings: Callable[..., TrainConfig]
) -> None:
    work = prepared(settings())
    probe, state = work.probe, work.state
    assert probe.measure(state, model=state.model)["delta"] == 0.0
    state.step(0)
    found = probe.measure(state, model=state.model)
    unet = state.modules["unet"]
    weights = {name: unet.get_submodule(name).get_base_layer().weight.double().norm().item() for name, _ in deltas_of(unet)}
    changes = {name: found.change.double().norm().item() for name, found in deltas_of(unet)}
    whole = (sum(change**2 for change in changes.values()) / sum(weight**2 for weight in weights.values())) ** 0.5
    assert found["delta"] == pytest.approx(whole, rel=1e-5) and whole > 0
    shares = {f"unet.{name}": changes[name] / weights[name] for name in changes}
    largest = sorted(shares, key=lambda name: -shares[name])[:3]
    assert list(found["delta_layers"]) == largest
    assert found["delta_layers"] == pytest.approx({name: shares[name] for name in largest}, rel=1e-5)


def test_the_sentence_names_the_layer_that_changes_most() -> None:
    row = {"delta": 0.0213, "delta_layers": {"unet.a": 0.31, "unet.b": 0.2}}
    assert sentence(row) == "the adapter changes the weights by 2.1% of their norm, most unet.a (31%)"
    assert sentence({}) is None and percent(1.5) == "150%" and percent(0.00123) == "0.12%"
