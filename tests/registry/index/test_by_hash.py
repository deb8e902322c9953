"""Records by a few digits of any of their hashes, as other programs write them."""

from pathlib import Path

from registry.store import Store
from tests.registry.made import lora


def test_every_kind_of_hash_finds_its_record(store: Store, tmp_path: Path) -> None:
    lora(tmp_path / "ink.safetensors", {"a": (4, 4)})
    lora(tmp_path / "hat.safetensors", {"a": (4, 4)}, seed="hat")
    ink, _ = store.add(tmp_path / "ink.safetensors"), store.add(tmp_path / "hat.safetensors")
    values = {name: value for name, value in vars(ink.hashes).items() if value}
    assert {"sha256", "tensors_sha256", "blake3", "autov2"} <= values.keys()
    for name, value in values.items():
        found = store.with_hash(value[:12].upper())
        if name == "autov1":  # of a file under 1 MiB: the hash of nothing, which every such file has
            assert found == []
        else:
            assert [record.id for record, _ in found] == [ink.id]
    assert store.with_hash(values["sha256"][:10])[0][1] == "sha256"
    for digits in ("", values["sha256"][:7], "0" * 10, "%" * 10, 'a": "b' + "c" * 8, values["sha256"] + "0"):
        assert store.with_hash(digits) == []


def test_the_embedded_base_is_found_before_anything_hashed_it(store: Store, tmp_path: Path) -> None:
    digits = Store(tmp_path / "other").sha256(store.find("pocket"))
    assert [(record.name, name) for record, name in store.with_hash(digits[:10])] == [("pocket", "sha256")]
