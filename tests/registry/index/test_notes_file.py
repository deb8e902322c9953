"""What people said goes out as JSON and comes back, by content, on this machine or another."""

import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from registry.errors import BadFile, Faults
from registry.index.backups import back_up
from registry.store import Store
from tests.registry.made import lora, sd1_attention


def make(path: Path, seed: str = "", **options: object) -> Path:
    lora(path, sd1_attention(blocks=(0,)), seed=seed, **options)  # type: ignore[arg-type]
    return path


@pytest.fixture
def notes(store: Store, tmp_path: Path) -> Path:
    """A notes file of two models, the base and a data set."""
    store.add(make(tmp_path / "m" / "a.safetensors", "a"), name="ink", tags=["x", "y"], notes="schön", triggers=["inkstyle"], licence="MIT")
    store.alias("ink", "best")
    store.override("ink", family="sdxl", prediction="v_prediction")
    store.add(make(tmp_path / "m" / "b.safetensors", "b"))
    store.tag("b", ["z"])
    store.add(make(tmp_path / "m" / "silent.safetensors", "c"))
    store.tag("pocket", ["small"])
    (tmp_path / "set").mkdir()
    store.add_dataset(tmp_path / "set", name="hats", sha256="1" * 64, metadata={"pictures": 3})
    path = tmp_path / "notes.json"
    path.write_text(json.dumps(store.export_notes()), encoding="utf-8")
    return path


def test_only_what_was_said_is_in_it(store: Store, notes: Path) -> None:
    document = json.loads(notes.read_text("utf-8"))
    assert (document["format"], document["version"]) == ("loraloom-notes", 1)
    found = {entry["name"]: entry for entry in document["records"]}
    assert set(found) >= {"ink", "b", "pocket", "hats"} and found["ink"]["said"]["family"] == "sdxl"
    assert found["ink"]["aliases"] == [{"name": "ink", "alias": "best"}] and len(found["ink"]["hashes"]["sha256"]) == 64


def test_it_comes_back_after_everything_was_forgotten_and_the_files_were_renamed(store: Store, notes: Path, tmp_path: Path) -> None:
    before = {name: store.find(name) for name in ("ink", "b", "pocket")}
    for name in ("ink", "b", "silent"):
        store.remove(name)
    (tmp_path / "m" / "a.safetensors").rename(tmp_path / "m" / "renamed.safetensors")
    store.tag("pocket", remove=["small"])
    store.scan(tmp_path / "m")
    done = store.import_notes(notes)
    assert (done.applied, done.unmatched, done.conflicts) == (3, [], [])
    for name, record in before.items():
        found = store.find(name)
        same = ("name", "tags", "notes", "triggers", "licence", "family", "prediction", "aliases")
        assert [getattr(found, one) for one in same] == [getattr(record, one) for one in same]
    assert store.find("ink@best").path == str(tmp_path / "m" / "renamed.safetensors")
    again = store.import_notes(notes)
    assert again.applied == 0 and again.unmatched == []


def test_what_is_said_here_stays_unless_the_file_is_to_be_right(store: Store, notes: Path) -> None:
    store.note("ink", "newer")
    store.alias("b", "best")
    done = store.import_notes(notes)
    assert store.find("ink").notes == "newer" and any("notes" in text for text in done.conflicts)
    store.import_notes(notes, replace=True)
    assert store.find("ink").notes == "schön"


def test_metadata_edits_do_not_hide_a_model_and_other_content_is_not_taken_for_it(store: Store, notes: Path, tmp_path: Path) -> None:
    store.remove("ink")
    store.remove("b")
    make(tmp_path / "m" / "a.safetensors", "a", metadata={"modelspec.title": "edited"})
    make(tmp_path / "m" / "b.safetensors", "other weights")
    store.scan(tmp_path / "m", hash=True)
    done = store.import_notes(notes)
    assert store.find("ink").notes == "schön" and store.find("b").tags == ()
    assert [text.startswith("b (") for text in done.unmatched] == [True]


def test_what_is_no_notes_file_is_refused_before_anything_is_changed(store: Store, notes: Path, tmp_path: Path) -> None:
    document = json.loads(notes.read_text("utf-8"))
    store.remove("ink")
    changes: list[tuple[dict[str, Any], type[Exception]]] = [
        ({"format": "other"}, BadFile),
        ({"version": 9}, BadFile),
        ({"records": [*document["records"], {"id": 1}, "x"]}, Faults),
        ({"records": [{**document["records"][0], "tags": [1]}]}, Faults),
        ({"records": [{**document["records"][0], "said": {"colour": "red"}}]}, Faults),
        *(
            ({"records": [{**document["records"][0], "names": [{"name": name, "shelf": "model", "current": True}]}]}, Faults)
            for name in ("../../../escaped", "a@b", "none", "", "two\nlines", "\x1b[2J", "pocket")
        ),
        *(
            ({"records": [{**document["records"][0], "aliases": [{"name": "ink", "alias": alias}]}]}, Faults)
            for alias in ("a@b", "../up", "", "none", "two\nlines", "step-3")
        ),
        ({"records": [{**document["records"][0], "aliases": [{"name": "../up", "alias": "best"}]}]}, Faults),
    ]
    for change, error in changes:
        (tmp_path / "wrong.json").write_text(json.dumps({**document, **change}))
        with pytest.raises(error):
            store.import_notes(tmp_path / "wrong.json")
    assert all("x" not in record.tags for record in store.records())


OF_OTHER_TYPES: list[tuple[dict[str, Any], str]] = [
    ({"said": {"parents": 5}}, r"'parents' must be a list of objects, got 5"),
    ({"said": {"parents": [5]}}, r"'parents' must be a list of objects, got \[5\]"),
    ({"said": {"parents": [{"sha256": []}]}}, r"'sha256' must be a text or null, got \[\]"),
    ({"said": {"recipe": "x"}}, "'recipe' must be an object, got 'x'"),
    ({"said": {"metadata": [1]}}, r"'metadata' must be an object, got \[1\]"),
    ({"said": {"metadata": {"root": "/elsewhere"}}}, "'root' in 'metadata' comes from the files"),
    ({"said": {"metadata": {"source": 5}}}, "'source' must be a text, got 5"),
    ({"said": {"kind": "painting"}}, "Unknown kind 'painting'"),
    ({"said": {"family": "sd0"}}, "Unknown family 'sd0'"),
    ({"hashes": {"sha256": ["x"]}}, "'hashes' must be an object of texts or null"),
    ({"hashes": {"sha256": 10**30}}, "'hashes' must be an object"),
    ({"bytes": []}, r"'bytes' must be a whole number, got \[\]"),
    ({"names": [{"name": "ink", "shelf": "x", "current": True}]}, "'shelf' must be model, dataset or run, got 'x'"),
    ({"names": [{"shelf": "model"}]}, "'name' missing"),
    ({"aliases": [{"name": "ink", "alias": 5}]}, "'alias' must be a text, got 5"),
]


def test_values_of_other_types_are_refused_and_the_index_is_read_as_before(store: Store, notes: Path) -> None:
    document = json.loads(notes.read_text("utf-8"))
    before = [record.to_json() for record in store.records()]
    (ink,) = (entry for entry in document["records"] if entry["name"] == "ink")
    for change, message in OF_OTHER_TYPES:
        notes.write_text(json.dumps({**document, "records": [{**ink, **change}, {"id": 1}]}))
        with pytest.raises(Faults, match=rf"record 1 \('ink'\): {message}") as caught:
            store.import_notes(notes, replace=True)
        assert any(fault.startswith("record 2 (None): 'name', 'kind'") for fault in caught.value.faults)
        assert [record.to_json() for record in store.records()] == before


def test_a_rebuild_makes_the_derived_half_again(store: Store, notes: Path, tmp_path: Path, database: str) -> None:
    gone = make(tmp_path / "m" / "gone.safetensors", "gone")
    store.add(gone, tags=["kept"])
    gone.unlink()
    sha256 = store.find("ink").hashes.sha256
    with store._index.writing() as connection:
        connection.exec_driver_sql('UPDATE record SET data = \'{"name": "a", "kind": "unknown"}\', kind = \'unknown\' WHERE stem = \'a\'')
    shutil.rmtree(tmp_path / "set")
    done = store.rebuild()
    assert (done.rebuilt, done.missing, done.problems, done.recovered) == (3, 1, [], None)
    found = store.find("ink")
    assert (found.kind, found.rank, found.tags, found.hashes.sha256) == ("adapter", 4, ("x", "y"), sha256)
    assert store.find("gone").tags == ("kept",)
    with store._index.writing() as connection:
        connection.exec_driver_sql('UPDATE file_hash SET hashes = \'{"sha256": "0"}\'')
    assert store.rebuild(hash=True).rebuilt == 3 and store.sha256(store.find("ink")) == sha256


def test_a_rebuild_finds_damage_that_no_query_has_met(tmp_path: Path, pocket: Path) -> None:
    store = Store(tmp_path / "home")
    store.add(make(tmp_path / "a.safetensors"), tags=["x"])
    store.close()
    file = tmp_path / "home" / "index.sqlite"
    connection = sqlite3.connect(file)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'location_fingerprint'").fetchone()
    connection.close()
    back_up(file)
    with file.open("r+b") as raw:
        raw.seek((page - 1) * 4096)
        raw.write(b"\xff" * 4096)
    done = store.rebuild()
    assert done.recovered and "damaged" in done.recovered and done.rebuilt == 1 and store.find("a").tags == ("x",)
