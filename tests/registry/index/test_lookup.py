"""References resolved to records: names before stems, aliases, hashes, ids, paths, and what a wrong one is answered with."""

from pathlib import Path

import pytest

from registry.errors import Ambiguous, NotFound, Refused
from registry.store import Store
from tests.registry.made import lora, sd1_attention


def add(store: Store, path: Path, seed: str, **given: str) -> str:
    """The id of a new adapter."""
    lora(path, sd1_attention(blocks=(0,)), seed=seed)
    return store.add(path, **given).id  # type: ignore[arg-type]  # names and notes alone


def one(store: Store, reference: str, kind: str | None = None) -> str:
    return store._finder.one(reference, kind).id


def test_a_given_name_comes_before_a_file_of_that_name(store: Store, tmp_path: Path) -> None:
    add(store, tmp_path / "ink.safetensors", "a")
    named = add(store, tmp_path / "other.safetensors", "b", name="ink")
    assert one(store, "ink") == named


def test_two_files_of_one_name_are_ambiguous_and_listed_by_hash(store: Store, tmp_path: Path) -> None:
    add(store, tmp_path / "x" / "ink.safetensors", "a")
    add(store, tmp_path / "y" / "ink.safetensors", "b")
    with pytest.raises(Ambiguous, match=r"(?s)names 2 records.*sha256:.*sha256:"):
        one(store, "ink")


def test_an_alias_an_id_a_hash_and_a_path_name_the_same_record(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "ink.safetensors"
    record_id = add(store, path, "a")
    store.alias("ink", "best")
    digest = str(store.find("ink").hashes.sha256)
    assert {one(store, reference) for reference in ("ink", "ink@best", record_id, f"sha256:{digest[:8]}", str(path))} == {record_id}


def test_the_same_content_under_two_records_is_one_match_of_its_hash(store: Store, tmp_path: Path) -> None:
    lora(tmp_path / "a.safetensors", sd1_attention(blocks=(0,)))
    (tmp_path / "b.safetensors").write_bytes((tmp_path / "a.safetensors").read_bytes())
    store.scan(tmp_path, hash=True)
    digest = str(store.find("a").hashes.sha256)
    assert len(store.records(kind="adapter")) == 2 and store._finder.one(f"sha256:{digest}", None).hashes.sha256 == digest


def test_a_path_that_is_not_registered_is_inspected_and_not_added(store: Store, tmp_path: Path) -> None:
    lora(tmp_path / "new.safetensors", sd1_attention(blocks=(0,)))
    assert one(store, str(tmp_path / "new.safetensors")) == "" and store.records(kind="adapter") == []


def test_a_reference_for_any_folder_is_a_path_where_a_path_is_meant(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add(store, tmp_path / "x" / "ink.safetensors", "a")
    lora(tmp_path / "here" / "hat.safetensors", sd1_attention(blocks=(0,)))
    for name in ("ink", "sd15", "pocket"):
        (tmp_path / "here" / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    names = ["ink", "pocket", "ink@best", "none there", "./none.safetensors", "sha256:abcd", "hf:owner/repo"]
    assert [store.lasting(name) for name in names] == names
    paths = ["sd15", "./ink", "hat.safetensors", "../x/ink.safetensors"]
    assert [store.lasting(path) for path in paths] == [str((tmp_path / "here" / path).resolve()) for path in paths]


def test_what_is_suggested_is_of_the_kind_that_is_asked_for(store: Store, tmp_path: Path) -> None:
    add(store, tmp_path / "ink.safetensors", "a", name="inks")
    (tmp_path / "set").mkdir()
    store.add_dataset(tmp_path / "set", name="inky", sha256="0" * 64)
    store.alias("inks", "best")
    with pytest.raises(NotFound, match=r"No adapter is registered as 'unknown'.* Known: inks, inks@best\.$"):
        one(store, "unknown", "adapter")
    with pytest.raises(NotFound, match=r"Did you mean 'inks' or 'inks@best'\?$"):
        one(store, "inkss", "adapter")
    with pytest.raises(NotFound, match=r"Known: pocket\.$"):
        store.find("unknown", expected="checkpoint")
    with pytest.raises(NotFound, match=r"Known: inks, inks@best, inky, pocket\.$"):
        one(store, "unknown")
    assert store.find("inks", expected="checkpoint").kind == "adapter"


def test_a_kind_decides_between_records_of_one_name(store: Store, tmp_path: Path) -> None:
    adapter = add(store, tmp_path / "ink.safetensors", "a", name="ink")
    (tmp_path / "set").mkdir()
    dataset = store.add_dataset(tmp_path / "set", name="ink", sha256="0" * 64).id
    assert (one(store, "ink"), one(store, "ink", "dataset")) == (adapter, dataset)


def test_a_name_of_several_kinds_none_of_which_is_expected_says_so(store: Store, tmp_path: Path) -> None:
    adapter = add(store, tmp_path / "ink.safetensors", "a", name="ink")
    store.add_run(tmp_path, name="ink", parents=[], recipe=None)
    assert store.find("ink", expected="checkpoint").id == adapter  # a run is no model: the command says what it makes of an adapter
    with pytest.raises(Refused, match=r"ink is an adapter.*; a checkpoint was expected"):
        one(store, "ink", "checkpoint")
    lora(tmp_path / "y" / "twin.safetensors", sd1_attention(blocks=(0,)), seed="b")
    add(store, tmp_path / "z" / "twin.safetensors", "c")
    store.add(tmp_path / "y" / "twin.safetensors", kind="vae")
    with pytest.raises(Ambiguous, match="'twin' names 2 records, an adapter and a vae; a checkpoint was expected"):
        one(store, "twin", "checkpoint")


def test_another_kind_is_refused_with_what_it_is(store: Store, tmp_path: Path) -> None:
    add(store, tmp_path / "ink.safetensors", "a")
    with pytest.raises(Refused, match=r"ink is an adapter .*; a checkpoint was expected"):
        one(store, "ink", "checkpoint")


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("inc", r"No model is registered as 'inc'.*Did you mean 'ink'"),
        ("./inc.safetensors", r"There is no file or folder '\./inc\.safetensors'"),
        ("ink:heavy", r"'ink' is; the part after the colon must be a weight"),
        (f"{Path(__file__)}:heavy", r"is; the part after the colon must be a weight"),
        ("ink@step-*", r"No model is registered as 'ink@step-\*'"),
        ("hf:owner/repo", r"hf:owner/repo is not registered. Download it first"),
        ("sha256:xyz", r"is not a hash reference"),
    ],
)
def test_a_reference_without_a_record_is_answered_with_what_to_do(store: Store, tmp_path: Path, reference: str, expected: str) -> None:
    add(store, tmp_path / "ink.safetensors", "a")
    with pytest.raises((NotFound, Refused), match=expected):
        one(store, reference)


def test_a_link_whose_end_is_gone_is_called_so(store: Store, tmp_path: Path) -> None:
    link = tmp_path / "unmounted.safetensors"
    link.symlink_to(tmp_path / "disk" / "ink.safetensors")
    with pytest.raises(NotFound, match=r"unmounted\.safetensors is a link to .*disk/ink\.safetensors, and there is no file at its end"):
        one(store, str(link), "adapter")
