"""Weights in shards: the whole of one save, or refused by the name of what is missing, wrong or of another save."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from registry.detect.inspect import inspect
from registry.detect.loading import load_base
from registry.errors import BadFile, LoomError
from registry.formats.model_folder import shard_faults, weight_files, weights_of
from registry.store import Store
from registry.tensors.layout import read_layout
from tests import tiny

STEM = "diffusion_pytorch_model"


def shard(number: int, count: int = 2, stem: str = STEM) -> str:
    return f"{stem}-{number:05d}-of-{count:05d}.safetensors"


def split(folder: Path, *, index: bool = True, stem: str = STEM) -> Path:
    """A folder's one weight file as two shards."""
    from safetensors.torch import load_file

    (whole,) = folder.glob("*.safetensors")
    tensors = load_file(whole)
    whole.unlink()
    names = sorted(tensors)
    places = {name: shard(1 + position % 2, stem=stem) for position, name in enumerate(names)}
    for file in set(places.values()):
        save_file({name: tensors[name] for name in names if places[name] == file}, folder / file)
    if index:
        (folder / f"{stem}.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A tiny base whose UNet is in two shards with an index."""
    folder = tiny.tiny_model("sd1", tmp_path / "base")
    split(folder / "unet")
    return folder


def rewritten(unet: Path, **places: str) -> None:
    path = unet / f"{STEM}.safetensors.index.json"
    written = json.loads(path.read_text())
    path.write_text(json.dumps({"weight_map": {**written["weight_map"], **places}}))


def missing(unet: Path) -> str:
    (unet / shard(2)).unlink()
    return r"lacks 1 of the 2 files that .*index\.json lists: diffusion_pytorch_model-00002-of-00002\.safetensors"


def wrong(unet: Path) -> str:
    rewritten(unet, **{"conv_in.bias": shard(2)})
    return r"places conv_in\.bias in diffusion_pytorch_model-00002-of-00002\.safetensors, which is not there"


def unlisted(unet: Path) -> str:
    save_file({"stranger": torch.zeros(1)}, unet / shard(3, 3))
    return r"has diffusion_pytorch_model-00003-of-00003\.safetensors, which .*index\.json does not list"


def without_index(unet: Path) -> str:
    (unet / f"{STEM}.safetensors.index.json").unlink()
    (unet / shard(1)).unlink()
    return r"lacks 1 of 2 shards: diffusion_pytorch_model-00001-of-00002\.safetensors"


def two_saves(unet: Path) -> str:
    (unet / f"{STEM}.safetensors.index.json").unlink()
    save_file({"stranger": torch.zeros(1)}, unet / shard(1, 1))
    return r"has weights of several saves \(.*-\*-of-00001 and .*-\*-of-00002\)"


@pytest.mark.parametrize("damage", [missing, wrong, unlisted, without_index, two_saves])
def test_a_part_is_not_taken_for_the_whole(damage: object, model: Path, tmp_path: Path) -> None:
    assert not shard_faults(model)
    message = damage(model / "unet")  # type: ignore[operator]  # one of the functions above
    for refuses in (lambda: read_layout(model), lambda: Store(tmp_path / "home").add(model), lambda: weights_of(model / "unet")):
        with pytest.raises(BadFile, match=message):
            refuses()
    with pytest.raises(LoomError, match=message):
        load_base(model, dtype=torch.float32, device="meta", store=Store(tmp_path / "home"))
    record = inspect(model)
    assert (record.kind, record.family) == ("checkpoint", "sd1")  # by its configs
    assert [warning.code for warning in record.warnings] == ["shards"] and record.warnings[0].message.startswith("Unet ")
    scanned = Store(tmp_path / "home").scan(model.parent)
    assert [problem.code for problem in scanned.problems] == ["shards"] and not scanned.added


def test_shards_that_are_whole_are_read_with_an_index_and_without(model: Path, tmp_path: Path) -> None:
    with_index = weights_of(model / "unet")
    (model / "unet" / f"{STEM}.safetensors.index.json").unlink()
    assert weights_of(model / "unet") == with_index and len(weight_files(model / "unet")) == 2


def test_an_index_of_a_variant_that_was_not_downloaded_is_passed_over(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(1)}, tmp_path / f"{STEM}.fp16.safetensors")
    (tmp_path / f"{STEM}.safetensors.index.json").write_text(json.dumps({"weight_map": {"weight": shard(1)}}))
    assert [file.name for file in weight_files(tmp_path)] == [f"{STEM}.fp16.safetensors"]


@pytest.mark.parametrize("name", ["../outside.safetensors", "/etc/hostname"])
def test_an_index_names_files_of_its_own_folder(name: str, tmp_path: Path) -> None:
    (tmp_path / f"{STEM}.safetensors.index.json").write_text(json.dumps({"weight_map": {"weight": name}}))
    with pytest.raises(BadFile, match="no weight_map of tensors and the names of their files"):
        weight_files(tmp_path)
