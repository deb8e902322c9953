"""The embedded base's ControlNet: there without being asked, beside the base, and never written to."""

import json
from pathlib import Path

import pytest

from registry.errors import Refused
from registry.store import Store
from tests.registry.made import model


@pytest.fixture
def lines(pocket: Path) -> Path:
    """A ControlNet's folder beside the embedded base."""
    folder = pocket.with_name("pocket_lines")
    model(folder / "diffusion_pytorch_model.safetensors", {"controlnet_cond_embedding.conv_in.weight": (4, 3, 3, 3)})
    (folder / "config.json").write_text(json.dumps({"_class_name": "ControlNetModel", "cross_attention_dim": 128}))
    return folder


def test_the_controlnet_is_always_there_and_stays(store: Store, lines: Path) -> None:
    assert [(one.id, one.kind, one.family) for one in store.records()] == [
        ("pocket", "checkpoint", "sd1"),
        ("pocket-lines", "controlnet", "sd1"),
    ]
    record = store.find("pocket-lines", kind="controlnet")
    assert record.path == str(lines)
    digest = store.sha256(record)
    assert store.find(str(lines)).id == store.find(f"sha256:{digest[:9]}").id == store.add(lines).id == "pocket-lines"
    assert store.tag("pocket-lines", ["small"]).tags == ("small",) and store.find("pocket").tags == ()
    with pytest.raises(Refused, match="'pocket-lines' is part of LoRA Loom"):
        store.remove("pocket-lines")


def test_its_name_is_taken(store: Store, lines: Path, tmp_path: Path) -> None:
    other = tmp_path / "ink.safetensors"
    model(other, {"controlnet_cond_embedding.conv_in.weight": (4, 3, 3, 3)})
    with pytest.raises(Refused, match="'pocket-lines' is the name of the embedded base's ControlNet"):
        store.add(other, name="pocket-lines")
    with pytest.raises(Refused, match="is registered as 'pocket-lines' and keeps that name"):
        store.add(lines, name="mine")


def test_a_scan_passes_both_by(store: Store, lines: Path) -> None:
    assert store.scan(lines.parent).records() == []
    assert [one.id for one in store.records()] == ["pocket", "pocket-lines"]


def test_notes_of_it_go_to_another_home(store: Store, lines: Path, tmp_path: Path) -> None:
    store.tag("pocket-lines", ["small"])
    notes = tmp_path / "notes.json"
    notes.write_text(json.dumps(store.export_notes()))
    store.tag("pocket-lines", remove=["small"])
    assert store.find("pocket-lines").tags == ()
    store.import_notes(notes)
    assert store.find("pocket-lines").tags == ("small",)


def test_without_its_folder_there_is_the_base_alone(store: Store) -> None:
    assert [one.id for one in store.records()] == ["pocket"]
