"""Weights in shards: the whole of one save, or refused by the name of what is missing, wrong or of another save."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from registry.detect.inspect import inspect
from registry.detect.loading import load_base
from registry.errors import BadFile, LoomError
from registry.formats.model_folder import shard_faults, weight_files, weights_of
from registry.formats.safetensors_header import read_header
from registry.formats.single_file import CONFIGS_ENTRY
from registry.store import Store
from registry.tensors.layout import read_layout
from tests import tiny

STEM = "diffusion_pytorch_model"


def shard(number: int, count: int = 2, stem: str = STEM) -> str:
    return f"{stem}-{number:05d}-of-{count:05d}.safetensors"


def split(folder: Path, *, index: bool = True, stem: str = STEM) -> Path:
    """A folder's one weight file as two shards."""
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


def whole_beside(unet: Path) -> str:
    save_file({"stranger": torch.zeros(1)}, unet / f"{STEM}.safetensors")
    return r"has diffusion_pytorch_model\.safetensors, which .*index\.json does not list"


def unplaced(unet: Path) -> str:
    save_file({**load_file(unet / shard(1)), "stranger": torch.zeros(1)}, unet / shard(1))
    return r"has stranger of diffusion_pytorch_model-00001-of-00002\.safetensors, which its index .* does not place there"


@pytest.mark.parametrize("damage", [missing, wrong, unlisted, unplaced, without_index, two_saves, whole_beside])
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
    assert [warning.code for warning in record.warnings] == ["shards"] and record.warnings[0].message.startswith("Not whole: unet ")
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


def test_an_index_of_a_text_encoder_that_places_nothing_is_a_fault(model: Path, tmp_path: Path) -> None:
    (model / "text_encoder" / "model.safetensors.index.json").write_text('{"weight_map": {"weight": 5}}')
    message = r"text_encoder/model\.safetensors\.index\.json has no weight_map"
    assert any(re.search(message, warning.message) for warning in inspect(model).warnings)
    with pytest.raises(BadFile, match=message):
        Store(tmp_path / "home").add(model)


def test_shards_of_the_fp16_variant_alone_are_loaded(tmp_path: Path) -> None:
    """As Stable Diffusion 3's T5 is published."""
    model = tiny.tiny_model("sd1", tmp_path / "base")
    for component, stem in (("unet", STEM), ("text_encoder", "model")):
        folder = split(model / component, stem=f"{stem}.fp16")
        (folder / f"{stem}.fp16.safetensors.index.json").rename(folder / f"{stem}.safetensors.index.fp16.json")
    _, parts = load_base(model, dtype=torch.float32, device="cpu", store=Store(tmp_path / "home"))
    (_, plain) = load_base(tiny.tiny_model("sd1", tmp_path / "plain"), dtype=torch.float32, device="cpu", store=Store(tmp_path / "home"))
    for one, other in ((parts.denoiser, plain.denoiser), (parts.text_encoders["text_encoder"], plain.text_encoders["text_encoder"])):
        assert all(torch.equal(one.state_dict()[name], tensor) for name, tensor in other.state_dict().items())


def test_a_base_config_is_checked_as_a_base_is(tmp_path: Path) -> None:
    """What a single file does not hold is loaded from there."""
    folder = tiny.tiny_model("sd1", tmp_path / "base")
    file = tiny.tiny_single_file(folder, tmp_path / "x.safetensors")
    config = folder / "unet" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "layers_per_block": 2**31}))
    with pytest.raises(BadFile, match=r"has layers_per_block: 2,147,483,648"):
        load_base(file, dtype=torch.float32, device="meta", base_config=folder, store=Store(tmp_path / "home"))


def test_the_configs_in_a_header_are_checked_as_files_are(tmp_path: Path) -> None:
    folder = tiny.tiny_model("sd1", tmp_path / "base")
    file = tiny.tiny_single_file(folder, tmp_path / "x.safetensors", configs=True)
    tensors, written = load_file(file), json.loads(read_header(file).metadata[CONFIGS_ENTRY])
    for configs, words in (
        ({**written, "unet": {**written["unet"], "layers_per_block": 2**31}}, "has layers_per_block: 2,147,483,648"),
        ({**written, "unet": [1]}, "lacks a config; unet, vae, text_encoder, scheduler were expected"),
        ([written], "lacks a config"),
    ):
        save_file(tensors, file, metadata={CONFIGS_ENTRY: json.dumps(configs)})
        with pytest.raises(BadFile, match=words):
            load_base(file, dtype=torch.float32, device="meta", store=Store(tmp_path / "home"))


def test_a_component_whose_name_no_file_can_have_is_none_of_the_folder(model: Path) -> None:
    index = json.loads((model / "model_index.json").read_text())
    (model / "model_index.json").write_text(json.dumps({**index, "x" * 300: index["unet"], "../x": index["unet"]}))
    assert inspect(model).family == "sd1"
