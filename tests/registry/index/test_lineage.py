"""Lineage: parents by hash and by name, holes where one is missing, no endless loops."""

import json
from pathlib import Path

from registry.store import Store
from tests.registry.made import lora, sd1_attention


def test_a_trained_adapter_leads_back_to_base_dataset_and_run(store: Store, tmp_path: Path) -> None:
    base, sha256 = store.find("pocket"), store.sha256(store.find("pocket"))
    (tmp_path / "set").mkdir()
    data = store.add_dataset(tmp_path / "set", name="hats", sha256="1" * 64)
    parents = [{"role": "base", "ref": base.name, "sha256": sha256}, {"role": "dataset", "ref": data.name, "sha256": "1" * 64}]
    run = store.add_run(tmp_path, name="ink-1", parents=parents, recipe={"steps": 3})
    lora(tmp_path / "x.safetensors", sd1_attention())
    store.add(tmp_path / "x.safetensors", name="ink", parents=[*parents, {"role": "run", "ref": run.name, "sha256": None}])
    found = store.lineage("ink")
    assert [(node.role, node.name, node.missing) for node in found.root.parents] == [
        ("base", "pocket", False), ("dataset", "hats", False), ("run", "ink-1", False),
    ]  # fmt: skip
    assert [node.name for node in found.root.parents[2].parents] == ["pocket", "hats"]
    assert found.to_json()["parents"][0]["sha256"] == sha256
    text = found.to_text()
    assert "├── base: pocket (checkpoint sd1)" in text and "└── run: ink-1 (run)\n    ├── base: pocket" in text
    dot = found.to_dot()
    assert dot.startswith("digraph") and '"pocket" ->' in dot and dot.count("[label=") >= 6
    assert set(store.lineage("pocket").derived) == {"ink", "ink-1"}
    assert store.lineage("hats").to_json()["derived"] == ["ink", "ink-1"]


def test_a_parent_that_is_not_registered_is_a_named_hole(store: Store, tmp_path: Path) -> None:
    lora(tmp_path / "x.safetensors", sd1_attention(), metadata={"ss_sd_model_name": "v1-5.safetensors", "ss_new_sd_model_hash": "ab" * 32})
    store.add(tmp_path / "x.safetensors")
    hole = store.lineage("x").root.parents[0]
    assert (hole.role, hole.name, hole.sha256, hole.missing, hole.id) == ("base", "v1-5.safetensors", "ab" * 32, True, None)
    assert "not registered" in store.lineage("x").to_text() and "dashed" in store.lineage("x").to_dot()


def test_a_name_with_another_hash_is_a_hole_and_not_the_wrong_record(store: Store, tmp_path: Path) -> None:
    lora(tmp_path / "base.safetensors", sd1_attention(), seed="now")
    store.add(tmp_path / "base.safetensors", name="base")
    lora(tmp_path / "x.safetensors", sd1_attention())
    store.add(tmp_path / "x.safetensors", parents=[{"role": "base", "ref": "base", "sha256": "cd" * 32}])
    assert store.lineage("x").root.parents[0].missing


def test_the_base_of_a_scanned_lora_is_found_by_its_hash(store: Store, tmp_path: Path) -> None:
    lora(tmp_path / "base.safetensors", sd1_attention(), seed="base")
    base = store.add(tmp_path / "base.safetensors", name="any name")
    lora(tmp_path / "m" / "x.safetensors", sd1_attention(), metadata={"ss_new_sd_model_hash": str(base.hashes.sha256)})
    store.scan(tmp_path / "m")
    assert [(node.name, node.missing) for node in store.lineage("x").root.parents] == [("any name", False)]


def test_a_circle_ends(store: Store, tmp_path: Path) -> None:
    lora(tmp_path / "a.safetensors", sd1_attention(), seed="a")
    lora(tmp_path / "b.safetensors", sd1_attention(), seed="b")
    first = store.add(tmp_path / "a.safetensors")
    second = store.add(tmp_path / "b.safetensors", parents=[{"role": "source", "ref": "a", "sha256": first.hashes.sha256}])
    store.add(tmp_path / "a.safetensors", parents=[{"role": "source", "ref": "b", "sha256": second.hashes.sha256}])
    tree = store.lineage("a").root
    assert tree.parents[0].name == "b" and tree.parents[0].parents[0].missing


def test_merges_of_other_tools_are_traced_by_title_and_file_name(store: Store, tmp_path: Path) -> None:
    lora(tmp_path / "m" / "one.safetensors", sd1_attention(), seed="1", metadata={"modelspec.title": "First Model"})
    lora(tmp_path / "m" / "two.safetensors", sd1_attention(), seed="2")
    reported = {"modelspec.merged_from": "First Model, two.safetensors, gone"}
    lora(tmp_path / "m" / "mix.safetensors", sd1_attention(), seed="3", metadata=reported)
    store.scan(tmp_path / "m")
    found = store.lineage("mix")
    assert [(node.role, node.name, node.missing) for node in found.root.parents] == [
        ("source", "one", False), ("source", "two", False), ("source", "gone", True),
    ]  # fmt: skip
    assert store.lineage("one").derived == ("mix",) == store.lineage("two").derived


def test_a_title_that_two_models_have_is_no_parent(store: Store, tmp_path: Path) -> None:
    for name in "ab":
        lora(tmp_path / f"{name}.safetensors", sd1_attention(), seed=name, metadata={"modelspec.title": "Twin"})
    lora(tmp_path / "mix.safetensors", sd1_attention(), metadata={"modelspec.merged_from": "Twin"})
    store.scan(tmp_path)
    assert store.lineage("mix").root.parents[0].missing and store.lineage("a").derived == ()


def test_what_we_made_names_its_parents_on_any_machine(store: Store, tmp_path: Path) -> None:
    sha256 = store.sha256(store.find("pocket"))
    manifest = {
        "run": "ink/20261126",
        "base": {"name": "pocket", "sha256": sha256},
        "dataset": {"path": "/there/hats", "sha256": "1" * 64},
    }
    lora(tmp_path / "style.safetensors", sd1_attention(), metadata={"loraloom.manifest": json.dumps(manifest)})
    sources = [
        {"ref": "pocket", "sha256": sha256},
        {"ref": "style", "sha256": "2" * 64},
        {"ref": "other", "sha256": None},
    ]
    recipe = {"method": "fuse", "sources": sources}
    lora(tmp_path / "fused.safetensors", sd1_attention(), seed="f", metadata={"loraloom_recipe": json.dumps(recipe)})
    store.scan(tmp_path)
    style = store.lineage("style").root.parents
    assert [(node.role, node.name, node.missing) for node in style] == [
        ("base", "pocket", False), ("dataset", "hats", True), ("run", "ink/20261126", True),
    ]  # fmt: skip
    assert [(node.role, node.name) for node in store.lineage("fused").root.parents] == [
        ("base", "pocket"),
        ("adapter", "style"),
        ("adapter", "other"),
    ]
    assert set(store.lineage("pocket").derived) >= {"style", "fused"}


def test_damaged_manifests_are_no_parents(store: Store, tmp_path: Path) -> None:
    for number, reported in enumerate(
        ({"loraloom.manifest": "[1]"}, {"loraloom.manifest": '{"base": 3}'}, {"loraloom_recipe": '{"sources": {"a": 1}}'})
    ):
        lora(tmp_path / f"{number}.safetensors", sd1_attention(), seed=str(number), metadata=reported)
    store.scan(tmp_path)
    assert all(record.parents == () for record in store.records() if record.name in "012")
