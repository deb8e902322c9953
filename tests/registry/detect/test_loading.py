"""Prediction overrides: in a run's or a grid's settings, or in the record; each has precedence over what the files show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from registry.detect.loading import load_base, prediction_override
from registry.errors import BadFile, Faults, Refused
from registry.families import FAMILIES
from registry.record import PREDICTIONS
from registry.store import Store
from tests.tiny import shared_folder, tiny_dataset, tiny_model, tiny_single_file


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SD 2 file that does not say what it predicts."""
    return tiny_single_file(shared_folder("sd2", variant="v-standard"), tmp_path_factory.mktemp("sd2") / "two.safetensors", family="sd2")


def meta(base: Any, **said: Any) -> Any:
    import torch

    return load_base(base, dtype=torch.float32, device="meta", **said)[1]


@pytest.mark.slow
def test_an_override_of_a_record_applies_when_it_is_loaded(file: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "home")
    store.add(file)
    with pytest.raises(Refused, match="prediction=v_prediction"):
        meta(store.find("two"))
    assert prediction_override(store.find("two")) is None
    store.override("two", prediction="v_prediction")
    assert prediction_override(store.find("two")) == "v_prediction"
    assert meta(store.find("two")).prediction == "v_prediction"
    assert meta(store.find("two"), prediction="epsilon").prediction == "epsilon"  # a setting has precedence over the record


def test_a_word_that_the_family_does_not_know_is_refused(tmp_path: Path) -> None:
    for family, words in (("sd1", "predicts epsilon or v_prediction"), ("flux1", "predicts flow")):
        with pytest.raises(Refused, match=words):
            meta(shared_folder(family), prediction={"sd1": "flow", "flux1": "epsilon"}[family])
    assert meta(shared_folder("flux1"), prediction="flow").prediction == "flow"


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_every_family_predicts_what_training_has_a_target_for(name: str) -> None:
    predictions = FAMILIES[name].predictions
    assert predictions and set(predictions) <= set(PREDICTIONS) and len(set(predictions)) == len(predictions)


@pytest.mark.slow
def test_it_is_a_setting_of_training_that_stays_with_the_run(file: Path, tmp_path: Path) -> None:
    from train import run
    from train.config import DataConfig, TrainConfig

    store = Store(tmp_path / "home")
    data = DataConfig(path=str(tiny_dataset(tmp_path / "set", 4)))
    settings: dict[str, Any] = {"base": str(file), "data": data, "resolution": 32, "device": "cpu"}
    with pytest.raises(Refused, match="prediction=v_prediction"):
        run.plan(TrainConfig(**settings), store)
    assert run.plan(TrainConfig(**settings, prediction="epsilon"), store).config.prediction == "epsilon"
    store.add(file)
    store.override("two", prediction="v_prediction")
    assert run.plan(TrainConfig(**settings | {"base": "two"}), store).config.prediction == "v_prediction"


def test_it_is_part_of_an_image_and_of_its_key(tmp_path: Path) -> None:
    from infer.draw.render import Render
    from infer.draw.resolve import Resolver

    store = Store(tmp_path / "home")
    folder = tiny_model("sd1", tmp_path / "one")
    store.add(folder, name="one")
    plain = Resolver(store).resolve(Render(base="one", steps=2))
    said = Resolver(store).resolve(Render(base="one", steps=2, prediction="v_prediction"))
    assert plain.prediction is None and said.prediction == "v_prediction" and plain.key() != said.key()
    store.override("one", prediction="v_prediction")
    reported = Resolver(store).resolve(Render(base="one", steps=2))
    assert reported.prediction == "v_prediction" and reported.key() == said.key()
    with pytest.raises(Faults, match="predicts epsilon or v_prediction"):
        Resolver(store).resolve(Render(base="one", steps=2, prediction="flow"))


def test_a_base_is_found_by_its_registered_name(tmp_path: Path) -> None:
    assert meta("pocket", store=Store(tmp_path)).denoiser.config["sample_size"] == 16


def test_a_config_that_asks_for_billions_of_layers_is_refused_before_they_are_made(tmp_path: Path) -> None:
    base = tiny_model("sd1", tmp_path / "base")
    config = base / "text_encoder" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "num_hidden_layers": 2**31}))
    with pytest.raises(BadFile, match=r"has num_hidden_layers: 2,147,483,648; no model has more than 1,000 layers"):
        meta(base)


@pytest.mark.parametrize("entry", ["modelspec.prediction_type", "prediction_type"])
def test_a_single_file_is_drawn_by_the_prediction_that_its_header_declares(entry: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = shared_folder("sd1")
    file = tiny_single_file(folder, tmp_path / "x.safetensors")
    assert meta(file, base_config=folder).prediction == "epsilon"
    save_file(load_file(file), file, metadata={entry: "v_prediction"})
    assert meta(file, base_config=folder).prediction == "v_prediction"
