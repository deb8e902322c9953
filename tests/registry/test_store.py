"""The Store: adding, naming, finding, telling; identity is content."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from registry.errors import Ambiguous, BadFile, NotFound, Refused
from registry.record import Record
from registry.store import Store
from tests.registry.made import diffusers_folder, lora, sd1_attention

POCKET_MODULES = sd1_attention(128, channels=48, blocks=(0,))


def make(path: Path, seed: str = "", **options: object) -> Path:
    lora(path, sd1_attention(), seed=seed, **options)  # type: ignore[arg-type]
    return path


def test_an_added_file_is_hashed_and_known_again_in_another_process(store: Store, tmp_path: Path) -> None:
    path = make(tmp_path / "ink.safetensors")
    record = store.add(path, tags=["line"], triggers=["inkstyle"], notes="first", licence="MIT", recipe={"steps": 3})
    assert (record.name, record.kind, record.family, record.rank) == ("ink", "adapter", "sd1", 4)
    assert record.hashes.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (record.tags, record.triggers, record.notes, record.licence, record.recipe) == (
        ("line",),
        ("inkstyle",),
        "first",
        "MIT",
        {"steps": 3},
    )
    assert record.path == str(path) and record.files[0].bytes == path.stat().st_size and record.created
    again = Store(store.home).find("ink")
    assert again == record
    assert Record.from_json(json.loads(json.dumps(record.to_json()))) == record


def test_adding_again_updates_and_makes_no_second_row(store: Store, tmp_path: Path) -> None:
    path = make(tmp_path / "ink.safetensors")
    first = store.add(path, name="ink", tags=["a"], notes="kept")
    second = store.add(path, name="ink", tags=["b"], licence="MIT")
    assert first.id == second.id and second.tags == ("a", "b") and second.notes == "kept" and second.licence == "MIT"
    copy = Path(shutil.copy(path, tmp_path / "copy.safetensors"))
    third = store.add(copy)
    assert third.id == first.id and third.name == "ink" and third.path == str(copy) and third.metadata["copies"] == [str(path)]
    assert len(store.records(kind="adapter")) == 1
    copy.unlink()
    assert store.find("ink").path == str(copy) or store.find("ink").id == first.id


def test_a_name_goes_to_the_newer_record_and_the_older_keeps_a_dated_one(store: Store, tmp_path: Path) -> None:
    first = store.add(make(tmp_path / "a" / "adapter.safetensors", "1"), name="ink")
    second = store.add(make(tmp_path / "b" / "adapter.safetensors", "2"), name="ink")
    third = store.add(make(tmp_path / "c" / "adapter.safetensors", "3"), name="ink")
    assert store.find("ink").id == third.id
    older = [record for record in store.records(kind="adapter") if record.id in (first.id, second.id)]
    assert {store.find(record.name).id for record in older} == {first.id, second.id}
    assert all(record.name.startswith("ink@20") for record in older)


def test_one_content_under_two_names_is_one_record_with_both(store: Store, tmp_path: Path) -> None:
    path = make(tmp_path / "x.safetensors")
    store.add(path, name="ink")
    record = store.add(path, name="pen")
    assert record.name == "pen" and record.aliases == ("ink",)
    assert store.find("ink").id == store.find("pen").id == record.id


@pytest.mark.parametrize("name", ["", " ink", "a@b", "a+b", "a:1", "a/b", "none", "pocket", "x\n"])
def test_names_a_reference_could_not_hold_are_refused_before_anything_is_read(store: Store, tmp_path: Path, name: str) -> None:
    with pytest.raises(Refused, match="name"):
        store.add(tmp_path / "absent.safetensors", name=name)


def test_what_is_no_model_is_refused_by_name(store: Store, tmp_path: Path) -> None:
    page = tmp_path / "x.safetensors"
    page.write_text("<!DOCTYPE html><html></html>")
    with pytest.raises(BadFile, match="web page"):
        store.add(page)
    with pytest.raises(BadFile):
        store.add(tmp_path)
    assert store.records(kind="unknown") == []


def test_a_file_of_another_hash_than_was_reported_is_refused(store: Store, tmp_path: Path) -> None:
    path = make(tmp_path / "ink.safetensors")
    with pytest.raises(Refused, match="was expected"):
        store.add(path, sha256="0" * 64)
    assert store.records(kind="adapter") == []
    assert store.add(path, sha256=hashlib.sha256(path.read_bytes()).hexdigest()).name == "ink"


def test_a_name_that_is_no_unicode_is_refused(store: Store, tmp_path: Path) -> None:
    path = make(tmp_path / "ink.safetensors")
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.safetensors")
    path.rename(odd)
    with pytest.raises(Refused, match="not valid Unicode"):
        store.add(odd)


def test_reported_kind_and_family_stand_above_what_was_seen(store: Store, tmp_path: Path) -> None:
    record = store.add(make(tmp_path / "ink.safetensors"), family="sdxl")
    assert record.family == "sdxl" and any("override" in reason for reason in record.evidence)
    with pytest.raises(Refused, match="adapter"):
        store.add(tmp_path / "ink.safetensors", kind="adaptr")


def test_what_is_reported_later_stands_above_what_was_seen_and_can_be_taken_back(store: Store, tmp_path: Path) -> None:
    path = make(tmp_path / "ink.safetensors")
    store.add(path)
    reported = store.override(
        "ink", kind="embedding", family="sdxl", variant="turbo", prediction="v_prediction", licence="MIT", triggers=["ink"]
    )
    assert (reported.kind, reported.family, reported.variant, reported.licence, reported.triggers) == (
        "embedding",
        "sdxl",
        "turbo",
        "MIT",
        ("ink",),
    )
    assert (reported.prediction.value, reported.prediction.source) == ("v_prediction", "told")
    assert "family sdxl: override; the files show sd1" in reported.evidence and "trigger ink: override" in reported.evidence
    lora(path, sd1_attention(), rank=8)
    store.scan(tmp_path)
    assert store.find("ink").rank == 8 and store.find("ink").family == "sdxl"
    back = store.override("ink", forget=["family", "kind", "prediction", "variant", "triggers"])
    assert (back.kind, back.family, back.variant, back.prediction.source, back.triggers, back.licence) == (
        "adapter",
        "sd1",
        None,
        None,
        (),
        "MIT",
    )
    for wrong in ({"family": "sdlx"}, {"prediction": "eps"}, {"kind": "adaptr"}):
        with pytest.raises(Refused, match="Unknown"):
            store.override("ink", **wrong)  # type: ignore[arg-type]


def test_references(store: Store, tmp_path: Path) -> None:
    record = store.add(make(tmp_path / "ink.safetensors"))
    sha256 = str(record.hashes.sha256)
    for reference in ("ink", record.id, f"sha256:{sha256[:8]}", f"sha256:{sha256.upper()}", str(tmp_path / "ink.safetensors")):
        assert store.find(reference).id == record.id
    assert store.find(f"sha256:{str(record.hashes.tensors_sha256)[:10]}").id == record.id
    loose = make(tmp_path / "loose.safetensors", "other")
    assert store.find(str(loose)).id == "" and store.find(str(loose)).family == "sd1"
    assert len(store.records()) == 2  # pocket and ink: looking at a file does not add it
    with pytest.raises(NotFound, match="'ink'"):
        store.find("inc")
    with pytest.raises(NotFound, match="no file or folder"):
        store.find("./absent.safetensors")
    with pytest.raises(Refused, match=r"is an adapter.*a checkpoint was expected"):
        store.find("ink", kind="checkpoint")


def test_of_many_names_a_mistyped_one_is_reported_the_nearest_or_their_number(store: Store, tmp_path: Path) -> None:
    for number in range(25):
        lora(tmp_path / f"style-{number}.safetensors", sd1_attention(), seed=str(number))
    store.scan(tmp_path)
    with pytest.raises(NotFound, match=r"Did you mean 'style-7'"):
        store.find("stile-7")
    with pytest.raises(NotFound, match="None of the 26 known names is like it"):
        store.find("zzz")
    with pytest.raises(NotFound, match=r"a number such as style-7:0.6, not 'strong'"):
        store.find("style-7:strong")


def test_a_relative_path_is_found_from_where_one_stands(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = store.add(make(tmp_path / "runs" / "ink.safetensors"))
    monkeypatch.chdir(tmp_path)
    assert store.find("runs/ink.safetensors").id == store.find("./runs/../runs/ink.safetensors").id == record.id


def test_two_files_of_one_name_are_ambiguous_until_one_is_named(store: Store, tmp_path: Path) -> None:
    first = store.add(make(tmp_path / "a" / "ink.safetensors", "1"))
    second = store.add(make(tmp_path / "b" / "ink.safetensors", "2"))
    with pytest.raises(Ambiguous) as caught:
        store.find("ink")
    assert all(f"sha256:{str(one.hashes.sha256)[:12]}" in str(caught.value) for one in (first, second))
    store.add(first.path or "", name="ink")
    assert store.find("ink").id == first.id


def test_an_alias_moves_to_the_record_it_is_given_to(store: Store, tmp_path: Path) -> None:
    store.add(make(tmp_path / "a.safetensors", "1"), name="ink")
    store.alias("ink", "best")
    first = store.find("ink@best")
    second = store.add(make(tmp_path / "b.safetensors", "2"), name="ink")
    assert store.find("ink@best").id == first.id
    store.alias("ink", "best")
    assert store.find("ink@best").id == second.id and "best" in store.find("ink").aliases
    with pytest.raises(Refused, match="step"):
        store.alias("ink", "step-3")


def test_tags_and_notes(store: Store, tmp_path: Path) -> None:
    store.add(make(tmp_path / "ink.safetensors"))
    assert store.tag("ink", ["b", "a"]).tags == ("a", "b")
    assert store.tag("ink", ["c"], remove=["a"]).tags == ("b", "c")
    assert store.note("ink", "schön").notes == "schön"
    assert [record.name for record in store.records(tag="c")] == ["ink"]
    assert [record.name for record in store.search(["SCHÖN", "sd1"])] == ["ink"]
    with pytest.raises(Refused, match="registry add"):
        store.tag(str(make(tmp_path / "loose.safetensors", "x")), ["a"])


def test_words_are_looked_for_everywhere_and_names_come_first(store: Store, tmp_path: Path) -> None:
    reported = {"ss_training_comment": "the crow's nest", "modelspec.title": "Élan"}
    store.add(make(tmp_path / "other.safetensors", "1", metadata=reported))
    store.add(make(tmp_path / "nest.safetensors", "2"), tags=["50%_done"], notes="schön, ist's\nzweite Zeile")
    store.add(make(tmp_path / "third.safetensors", "3"), name="crow", triggers=["nest"])
    store.override("crow", family="sdxl")

    def found(*words: str) -> list[str]:
        return [record.name for record in store.search(words)]

    assert found("nest") == ["nest", "crow", "other"]  # a name, a trigger, metadata
    assert found("CROW", "Nest") == ["crow", "other"] and found("élan") == found("E\u0301LAN") == ["other"]
    assert found("50%_") == ["nest"] and found("5%_") == [] and found("ist's", "ZWEITE") == ["nest"] and found("schön,") == ["nest"]
    assert found("sdxl") == ["crow"] and found("pocket") == ["pocket"] and found("nowhere") == []
    assert found(str(store.find("crow").hashes.blake3)[:12]) == ["crow"] and found("ö") == ["nest"]


def test_removing_forgets_and_deletes_nothing(store: Store, tmp_path: Path) -> None:
    path = make(tmp_path / "ink.safetensors")
    store.add(path, name="ink", tags=["a"])
    store.remove("ink")
    assert path.is_file()
    with pytest.raises(NotFound):
        store.find("ink")
    assert store.add(path).tags == ()


def test_pocket_is_always_there_and_stays(store: Store, pocket: Path) -> None:
    record = store.records()[0]
    assert (record.id, record.name, record.family, record.path) == ("pocket", "pocket", "sd1", str(pocket))
    files = {str(path.relative_to(pocket)): hashlib.sha256(path.read_bytes()).hexdigest() for path in pocket.rglob("*") if path.is_file()}
    lines = "".join(f"{name}, {digest}\n" for name, digest in sorted(files.items()))
    assert store.sha256(record) == hashlib.sha256(lines.encode()).hexdigest()
    found = store.find("pocket")
    assert found.hashes.sha256 == store.sha256(record) and found.metadata["files_sha256"] == files
    assert store.find(str(pocket)).id == "pocket" and store.find(f"sha256:{store.sha256(record)[:9]}").id == "pocket"
    assert store.tag("pocket", ["small"]).tags == ("small",)
    assert store.add(pocket).id == "pocket" and len(store.records()) == 1
    with pytest.raises(Refused):
        store.remove("pocket")


def test_a_file_written_to_is_looked_at_and_hashed_again(store: Store, tmp_path: Path) -> None:
    path = make(tmp_path / "ink.safetensors")
    first = store.add(path, tags=["kept"])
    lora(path, sd1_attention(), rank=8, seed="new")
    found = store.find("ink")
    assert found.id == first.id and found.rank == 8 and found.tags == ("kept",) and found.hashes.sha256 is None
    assert store.sha256(found) == hashlib.sha256(path.read_bytes()).hexdigest()
    os.utime(path)
    assert store.sha256(first) == hashlib.sha256(path.read_bytes()).hexdigest()  # an old Record in hand does not lie


def test_a_folder_that_changes_has_another_hash(store: Store, tmp_path: Path) -> None:
    folder = diffusers_folder(tmp_path / "base", width=256)
    record = store.add(folder, name="base")
    (folder / "README.md").write_text("new")
    assert store.sha256(store.find("base")) != record.hashes.sha256


def test_the_same_weights_in_another_dialect_are_reported(store: Store, tmp_path: Path) -> None:
    store.add(make(tmp_path / "d.safetensors", alpha=2.0), name="mine")
    other = store.add(make(tmp_path / "k.safetensors", alpha=2.0, dialect="kohya"))
    assert other.alpha == 2.0
    assert [(warning.code, "mine" in warning.message) for warning in other.warnings] == [("duplicate", True)]


def test_duplicates_are_listed_under_whatever_name_and_dialect(store: Store, tmp_path: Path) -> None:
    first = make(tmp_path / "m" / "d.safetensors", alpha=2.0)
    make(tmp_path / "m" / "k.safetensors", alpha=2.0, dialect="kohya")
    make(tmp_path / "m" / "else.safetensors", "other")
    shutil.copyfile(first, tmp_path / "m" / "copy.safetensors")
    store.scan(tmp_path / "m")
    assert store.duplicates() == []  # nothing is hashed yet
    store.scan(tmp_path / "m", hash=True)
    found = store.duplicates()
    assert [(one.same, [record.name for record in one.records]) for one in found] == [
        ("file", ["copy", "d"]),
        ("weights", ["copy", "d", "k"]),
    ]
    assert found[0].hash == found[0].records[0].hashes.sha256 and found[1].hash == found[1].records[2].hashes.content_sha256
    store.add(tmp_path / "m" / "else.safetensors")
    again = shutil.copyfile(tmp_path / "m" / "else.safetensors", tmp_path / "again.safetensors")
    store.add(again)
    (one,) = [one for one in store.duplicates() if one.records[0].name in ("else", "again")]
    assert one.same == "file" and set(one.paths) == {str(again), str(tmp_path / "m" / "else.safetensors")}


def test_datasets_and_runs(store: Store, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    first = store.add_dataset(tmp_path / "set", name="hats", sha256="1" * 64, metadata={"pictures": 3})
    assert (first.kind, first.hashes.sha256, first.path, first.metadata["pictures"]) == ("dataset", "1" * 64, str(tmp_path / "set"), 3)
    assert store.add_dataset(tmp_path / "set", name="hats", sha256="1" * 64).id == first.id
    changed = store.add_dataset(tmp_path / "set", name="hats", sha256="2" * 64)
    assert changed.id != first.id and store.find("hats", kind="dataset").id == changed.id
    assert store.find("sha256:" + "1" * 64).name.startswith("hats@")
    run = store.add_run(
        tmp_path / "set", name="hats", parents=[{"role": "dataset", "ref": "hats", "sha256": "2" * 64}], recipe={"steps": 1}
    )
    assert run.id != changed.id and store.add_run(tmp_path / "set", name="hats", parents=[], recipe=None).id == run.id
    adapter = store.add(make(tmp_path / "x.safetensors"), name="hats")
    assert store.find("hats").id == adapter.id and store.find("hats", kind="run").id == run.id


def test_an_image_caption_set_can_be_added_by_hand(store: Store, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.txt").write_text("a hat")
    record = store.add(tmp_path / "set", kind="dataset", name="hats")
    line = f"a.txt, {hashlib.sha256(b'a hat').hexdigest()}\n"
    assert record.kind == "dataset" and record.hashes.sha256 == hashlib.sha256(line.encode()).hexdigest()


def run_with_checkpoints(folder: Path, steps: list[int]) -> None:
    for step in steps:
        make(folder / "checkpoints" / f"step-{step:06d}" / "adapter.safetensors", f"step {step}")
    (folder / "checkpoints" / ".tmp-1").mkdir()
    (folder / "checkpoints" / "step-000999").mkdir()  # unfinished: it holds no adapter


def test_a_runs_checkpoints_are_named_by_their_steps(store: Store, tmp_path: Path) -> None:
    run_with_checkpoints(tmp_path / "run", [100, 20, 300])
    run = store.add_run(tmp_path / "run", name="ink-1", parents=[], recipe=None)
    store.add(
        make(tmp_path / "run" / "adapter.safetensors", "last"), name="ink", parents=[{"role": "run", "ref": run.name, "sha256": None}]
    )
    assert [record.name for record in store.expand("ink@step-*")] == ["ink@step-20", "ink@step-100", "ink@step-300"]
    assert store.find("ink@step-300").path == str(tmp_path / "run" / "checkpoints" / "step-000300" / "adapter.safetensors")
    assert store.find("ink@step-000020", kind="adapter").name == "ink@step-20"
    assert len({store.sha256(record) for record in store.expand("ink-1@step-*")}) == 3
    assert [record.name for record in store.expand("ink")] == ["ink"]
    for reference in ("ink@step-7", "hat@step-*", "hat@step-1", "ink@step-" + "9" * 5000):
        with pytest.raises(NotFound):
            store.expand(reference)


def test_the_last_and_the_best_checkpoint_have_names(store: Store, tmp_path: Path) -> None:
    run_with_checkpoints(tmp_path / "run", [100, 20, 300])
    run = store.add_run(tmp_path / "run", name="ink", parents=[], recipe=None)
    assert store.find("ink@last", kind="adapter").name == "ink@step-300"
    with pytest.raises(NotFound, match="measured no held-out images"):
        store.find("ink@best")
    state = tmp_path / "run" / "checkpoints" / "step-000300" / "state.json"
    state.write_text('{"history": {"heldout": [{"step": 200, "losses": [0.1]}]}}')
    with pytest.raises(NotFound, match=r"Step 200 has the lowest held-out loss.*its checkpoint is not kept"):
        store.find("ink@best")
    rows = [{"step": 20, "losses": [0.9, 0.9]}, {"step": 100, "losses": [0.5, 0.7]}, {"step": 300, "losses": [0.8, 0.6]}]
    state.write_text(json.dumps({"version": 1, "step": 300, "history": {"base": [1.0, 1.0], "heldout": rows}}))
    assert store.find("ink@best").name == "ink@step-100" and store.find("ink@best").parents[0]["ref"] == run.name
    assert str(store.find("ink@best").path).endswith("step-000100/adapter.safetensors")
    store.add(make(tmp_path / "other.safetensors", "other"), name="ink")
    store.alias("ink", "best")
    assert str(store.find("ink@best").path).endswith("other.safetensors")  # a person's own alias comes first


def test_a_file_cannot_set_what_the_registry_itself_keeps(store: Store, tmp_path: Path) -> None:
    """A header that names another folder as the model's own would have it read, and deleted with the record."""
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "letter.safetensors").write_text("mine")
    path = tmp_path / "ink.safetensors"
    own = {
        "root": str(tmp_path / "private"),
        "made_at": str(tmp_path / "private"),
        "copies": "/x",
        "source": "hf:a/b",
        "files_sha256": "{}",
    }
    parents = json.dumps([{"role": 5, "ref": {"a": []}, "sha256": ["x"]}, {"role": "base", "ref": "sd", "sha256": None}])
    make(path, metadata={**own, "modelspec.title": "Ink", "loraloom.parents": parents})
    record = store.add(path)
    assert record.parents == ({"role": None, "ref": None, "sha256": None}, {"role": "base", "ref": "sd", "sha256": None})
    assert [node.name for node in store.lineage("ink").root.parents] == ["unnamed", "sd"]
    assert record.path == str(path) and not record.metadata.keys() & own.keys() and record.metadata["modelspec.title"] == "Ink"
    (warning,) = [one for one in record.warnings if one.code == "reserved-metadata"]
    assert "copies, files_sha256, made_at, root, source" in warning.message
    with pytest.raises(Refused, match="was not written or downloaded by LoRA Loom"):
        store.remove("ink", delete_files=True)
    assert store.scan(tmp_path).records()[0].path == str(path)


def test_what_is_not_utf8_is_refused_before_it_is_in_the_index(store: Store, tmp_path: Path) -> None:
    """A terminal of another encoding gives bytes that Python holds as lone surrogates."""
    path = make(tmp_path / "ink.safetensors")
    store.add(path)
    latin = os.fsdecode("sch\xf6n".encode("latin-1"))
    changes: tuple[Callable[[], Record], ...] = (
        lambda: store.add(path, name=latin),
        lambda: store.add(path, licence=latin),
        lambda: store.add(path, tags=[latin]),
        lambda: store.add(path, notes=latin),
        lambda: store.add(path, recipe={"a": [latin]}),
        lambda: store.tag("ink", [latin]),
        lambda: store.note("ink", latin),
        lambda: store.alias("ink", latin),
        lambda: store.override("ink", variant=latin),
        lambda: store.override("ink", triggers=[latin]),
    )
    for change in changes:
        with pytest.raises(Refused, match=r"Not UTF-8|cannot be a|plain values"):
            change()
    assert store.find("ink").tags == () and store.find("ink").notes is None
    (tmp_path / "set").mkdir()
    assert store.add_dataset(tmp_path / "set", name=latin, sha256="2" * 64).name == "sch-n"


def test_a_name_that_no_reference_has_is_not_suggested(store: Store, tmp_path: Path) -> None:
    store.add(make(tmp_path / "inkling.safetensors"), name="hat")
    with pytest.raises(NotFound, match="registered as 'inkling'") as caught:
        store.find("inkling")
    assert "Did you mean" not in str(caught.value)


def test_counts_of_tags_beyond_any_data_set_are_left_out(store: Store, tmp_path: Path) -> None:
    frequency = '{"10_x": {"cat": 1%s, "dog": 5}, "y": {"owl": 5, "fox": 1}}' % ("0" * 400)
    dirs = '{"y": {"img_count": 1%s}}' % ("0" * 400)
    record = store.add(make(tmp_path / "ink.safetensors", metadata={"ss_tag_frequency": frequency, "ss_dataset_dirs": dirs}))
    assert record.triggers == ("dog", "owl")


def test_verify_tells_rot_from_writing(store: Store, tmp_path: Path) -> None:
    path = make(tmp_path / "ink.safetensors")
    record = store.add(path)
    assert store.verify(record).status == "ok"
    seen = path.stat()
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))
    assert store.verify(record).status == "changed"  # its ctime tells that somebody wrote
    path.unlink()
    assert store.verify(record).status == "missing"
    assert store.verify(store.find("pocket")).status in ("new", "ok")


def test_a_missing_file_is_a_warning_and_its_record_stays(store: Store, tmp_path: Path) -> None:
    path = make(tmp_path / "models" / "ink.safetensors")
    store.add(path, tags=["a"])
    path.unlink()
    assert store.scan(tmp_path / "models").missing == 1
    record = store.find("ink")
    assert record.tags == ("a",) and [warning.code for warning in record.warnings] == ["missing"]


def test_a_pattern_expands_to_the_runs_of_a_sweep(store: Store, tmp_path: Path) -> None:
    for rank in (16, 4):
        store.add(make(tmp_path / str(rank) / "adapter.safetensors", str(rank)), name=f"ink@lora.rank={rank}")
    assert [record.name for record in store.expand("ink@lora.rank=*", kind="adapter")] == ["ink@lora.rank=4", "ink@lora.rank=16"]
    assert store.find("ink@lora.rank=4").name == "ink@lora.rank=4"
    with pytest.raises(NotFound, match="fits no name that is registered"):
        store.expand("ink@lora.alpha=*")


def test_a_sweeps_run_keeps_its_name_under_an_alias(store: Store, tmp_path: Path) -> None:
    first = store.add(make(tmp_path / "a" / "adapter.safetensors", "1"), name="ink@lora.rank=4")
    store.alias("ink@lora.rank=4", "best")
    assert store.find("ink@lora.rank=4@best").id == first.id
    second = store.add(make(tmp_path / "b" / "adapter.safetensors", "2"), name="ink@lora.rank=4")
    assert [record.id for record in store.expand("ink@lora.rank=*")] == [second.id]


def test_an_alias_holds_no_equals_sign(store: Store, tmp_path: Path) -> None:
    store.add(make(tmp_path / "ink.safetensors"))
    with pytest.raises(Refused, match="cannot be an alias"):
        store.alias("ink", "rank=4")


def test_what_nobody_could_see_or_name_is_no_tag_no_trigger_word_and_no_alias(store: Store, tmp_path: Path) -> None:
    path = make(tmp_path / "ink.safetensors")
    store.add(path)
    for given in ("", " \t"):
        with pytest.raises(Refused, match="cannot be a tag"):
            store.tag("ink", [given])
        with pytest.raises(Refused, match="cannot be a trigger word"):
            store.override("ink", triggers=[given])
        with pytest.raises(Refused, match="cannot be a tag"):
            store.add(path, tags=[given])
    with pytest.raises(Refused, match="cannot be an alias"):
        store.alias("ink", "step-*")
    assert store.find("ink").tags == store.find("ink").triggers == store.find("ink").aliases == ()
    assert store.tag("ink", remove=[""]).tags == ()  # one of an older index can be taken away
