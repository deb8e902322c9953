"""The embedded base's ControlNet: there without being asked, beside the base, and never written to."""

import json
import shutil
from pathlib import Path

import pytest

from registry.errors import Refused
from registry.index.embedded import SHIPPED, Embedded, _as_shipped, shipped_json
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


def test_what_was_written_of_the_shipped_folders_is_what_their_files_show(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where this fails, write SHIPPED again: {name: shipped_json(Embedded().inspected(name, path))} of Embedded().paths."""
    monkeypatch.delenv("LORALOOM_POCKET", raising=False)
    embedded = Embedded()
    there = {name: shipped_json(embedded.inspected(name, path)) for name, path in embedded.paths.items()}
    assert json.loads(SHIPPED.read_text(encoding="utf-8")) == json.loads(json.dumps(there))


def test_a_shipped_folder_with_other_files_is_inspected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LORALOOM_POCKET", raising=False)
    path = Embedded().paths["pocket"]
    found = _as_shipped("pocket", path)
    assert found == Embedded().inspected("pocket", path)
    monkeypatch.setattr("registry.index.embedded.PACKAGE", tmp_path)
    shutil.copytree(path, tmp_path / "pocket")
    assert _as_shipped("pocket", tmp_path / "pocket") is not None and _as_shipped("pocket", path) is None
    (tmp_path / "pocket" / "more.json").write_text("{}")
    assert _as_shipped("pocket", tmp_path / "pocket") is None


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
