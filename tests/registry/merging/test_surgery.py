"""Checkpoints changed without being averaged: another VAE, no leftovers, another dtype."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from loraloom.data_files import conf_dir
from registry.errors import Faults
from registry.merging.job import merge
from registry.merging.plan import plan_merge
from registry.merging.recipe import Recipe, recipe_of
from registry.store import Store
from tests.registry.merging.models import NAMES, POSITIONS, read, tensors, written

VAE = "first_stage_model.decoder.conv_in.weight"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "home")


def preset(name: str, *sources: Path) -> Recipe:
    """The recipe of a preset in conf/, with these sources."""
    settings = yaml.safe_load((conf_dir() / "preset" / f"{name}.yaml").read_text(encoding="utf-8"))
    return recipe_of({**settings, "sources": [str(source) for source in sources]})


@pytest.mark.parametrize("alone", [True, False])
def test_a_vae_is_baked_in_from_a_checkpoint_or_from_a_file_of_its_own(alone: bool, store: Store, tmp_path: Path) -> None:
    model, values = written(tmp_path / "a.safetensors", tensors(1)), tensors(2)
    new = values[VAE]
    names = {VAE.removeprefix("first_stage_model."): new} if alone else values
    if alone:
        names |= {"decoder.up.0.block.0.conv1.weight": torch.ones(2)}  # what tells a VAE in the original implementation's names
        written(model, tensors(1) | {"first_stage_model.decoder.up.0.block.0.conv1.weight": torch.zeros(2)})
    other = written(tmp_path / "vae.safetensors", names)
    if alone:
        store.add(other, kind="vae")
    found = read(merge(preset("bake_vae", model, other), store, tmp_path / "out.safetensors").output)
    assert found[VAE].equal(new) and all(found[name].equal(value) for name, value in tensors(1).items() if name != VAE)
    if alone:
        assert found["first_stage_model.decoder.up.0.block.0.conv1.weight"].equal(torch.ones(2))


def test_a_vae_in_other_names_is_not_left_out_in_silence(store: Store, tmp_path: Path) -> None:
    model, other = (
        written(tmp_path / "a.safetensors", tensors(1)),
        written(tmp_path / "vae.safetensors", {"decoder.conv_out.bias": torch.ones(2)}),
    )
    store.add(other, kind="vae")
    with pytest.raises(Faults, match=r"a rule takes first_stage_model\.decoder\.conv_in\.weight from source 2, which has no such key"):
        merge(preset("bake_vae", model, other), store, tmp_path / "out.safetensors")


def test_pruning_drops_what_drawing_does_not_need_and_keeps_integers(store: Store, tmp_path: Path) -> None:
    leftovers = {"model_ema.decay": torch.ones(1), "alphas_cumprod": torch.ones(5), "optimizer.state": torch.ones(3)}
    model = written(tmp_path / "a.safetensors", tensors(1) | leftovers)
    found = read(merge(preset("prune", model), store, tmp_path / "out.safetensors").output)
    assert found.keys() == set(NAMES) | {POSITIONS}
    assert all(found[name].equal(tensors(1)[name].half()) for name in NAMES) and found[POSITIONS].dtype == torch.int64


def test_pruning_a_file_without_leftovers_only_makes_it_smaller(store: Store, tmp_path: Path) -> None:
    """An optional rule may match nothing; any other that does is a mistake."""
    model = written(tmp_path / "a.safetensors", tensors(1))
    found = read(merge(preset("prune", model), store, tmp_path / "out.safetensors").output)
    assert found.keys() == tensors(1).keys() and found[VAE].dtype == torch.float16
    with pytest.raises(Faults, match=r"matches no key.*optional: true allows it"):
        merge(
            recipe_of({"method": "copy", "sources": [str(model)], "rules": [{"match": "nothing", "drop": True}]}),
            store,
            tmp_path / "b.safetensors",
        )


def test_shipped_presets_are_recipes_that_plan(store: Store, tmp_path: Path) -> None:
    models = [written(tmp_path / f"{n}.safetensors", tensors(n) | {"model_ema.decay": torch.ones(1)}) for n in (1, 2, 3)]
    counts = {"style_mix": 2, "inpaint": 3, "vpred_guard": 2, "bake_vae": 2, "prune": 1}
    assert counts.keys() == {path.stem for path in (conf_dir() / "preset").glob("*.yaml")}
    for name, count in counts.items():
        plan = plan_merge(preset(name, *models[:count]), store, tmp_path / f"{name}.safetensors")
        assert plan.keys.keys and plan.to_text()
