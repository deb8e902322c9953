"""Scanning: headers only, everything odd a row, files known again after they moved."""

import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from registry.errors import BadFile, Refused
from registry.index import rows
from registry.index.scanning import inspecting
from registry.index.scanning.scan import ScanReport
from registry.progress import Tick
from registry.store import Store
from tests.registry.made import diffusers_folder, lora, raw_file, sd1_attention


def make(path: Path, seed: str = "") -> Path:
    lora(path, sd1_attention(), seed=seed)
    return path


def counts(report: ScanReport) -> dict[str, int]:
    reported = {name: getattr(report, name) for name in ("added", "updated", "relinked", "unchanged", "missing")}
    return {name: count for name, count in reported.items() if count}


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    make(folder / "a.safetensors", "a")
    make(folder / "sub" / "b.safetensors", "b")
    diffusers_folder(folder / "base", width=256)
    return folder


def test_a_scan_registers_and_a_second_finds_nothing_new(store: Store, models: Path) -> None:
    first = store.scan(models)
    assert counts(first) == {"added": 3} and first.problems == []
    assert {record.name for record in first.records()} == {"a", "b", "base"}
    assert all(record.hashes.sha256 is None for record in first.records())
    again = store.scan(models)
    assert counts(again) == {"unchanged": 3} and {record.name for record in again.records()} == {"a", "b", "base"}
    assert set(again.to_json()) == {"added", "updated", "relinked", "unchanged", "missing", "problems", "checkpoints", "records"}
    hashed = store.scan(models, hash=True)
    assert all(record.hashes.sha256 for record in hashed.records())


def test_a_folder_whose_name_ends_with_a_backslash_is_another_one(store: Store, tmp_path: Path) -> None:
    make(tmp_path / "x" / "a.safetensors", "a")
    make(tmp_path / "x\\" / "b.safetensors", "b")
    assert counts(store.scan(tmp_path / "x\\")) == {"added": 1}
    assert counts(store.scan(tmp_path / "x\\")) == {"unchanged": 1}
    (tmp_path / "x\\" / "b.safetensors").unlink()
    assert counts(store.scan(tmp_path / "x\\")) == {"missing": 1}


def test_what_is_odd_is_a_row_with_its_reason(store: Store, models: Path) -> None:
    odd = {
        "page.safetensors": b"<!DOCTYPE html><html>",
        "two.safetensors": b"ab",
        "empty.safetensors": b"",
        "pointer.safetensors": b"version https://git-lfs.github.com/spec/v1\n",
        "huge.safetensors": raw_file(b"{}", length=1 << 50),
        "cut.safetensors": (models / "a.safetensors").read_bytes()[:-5],
        "old.ckpt": b"PK\x03\x04" + bytes(20) + b"archive/data.pkl" + bytes(10),
        "raw.pt": b"\x80\x02}.",
        "x.gguf": b"GGUF" + bytes(20),
    }
    for name, data in odd.items():
        (models / name).write_bytes(data)
    os.mkfifo(models / "pipe.safetensors")
    (models / "loop.safetensors").symlink_to("loop.safetensors")
    (models / "gone.safetensors").symlink_to("nowhere")
    (models / "base2").mkdir()
    (models / "base2" / "model_index.json").write_text("{broken")
    report = store.scan(models)
    assert counts(report) == {"added": 3}
    codes = {Path(problem.path).name: problem.code for problem in report.problems}
    assert codes == {
        "page.safetensors": "not-a-model", "two.safetensors": "truncated", "empty.safetensors": "truncated",
        "pointer.safetensors": "lfs-pointer", "huge.safetensors": "header-too-large", "cut.safetensors": "truncated",
        "old.ckpt": "pickle", "raw.pt": "pickle", "x.gguf": "unknown-format", "pipe.safetensors": "unreadable",
        "loop.safetensors": "unreadable", "gone.safetensors": "unreadable", "model_index.json": "not-a-model",
    }  # fmt: skip
    assert all(problem.message for problem in report.problems)


def test_a_vae_or_a_controlnet_in_its_folder_is_one_model_of_the_folder_s_name(store: Store, tmp_path: Path) -> None:
    for folder, config in (("canny", "ControlNetModel"), ("vae-fine", "AutoencoderKL"), ("flux", "FluxTransformer2DModel")):
        make(tmp_path / folder / "diffusion_pytorch_model.safetensors", folder)
        (tmp_path / folder / "config.json").write_text(f'{{"_class_name": "{config}", "architectures": 3}}')
    make(tmp_path / "canny" / "diffusion_pytorch_model.fp16.safetensors", "canny")
    make(tmp_path / "canny" / "diffusion_pytorch_model_promax.safetensors", "promax")
    found = store.scan(tmp_path)
    kinds = {record.name: record.kind for record in found.records()}
    assert kinds["canny"] == "controlnet" and kinds["vae-fine"] == "vae" and found.problems == []
    assert set(kinds) == {"canny", "vae-fine", "flux", "diffusion_pytorch_model_promax"}
    assert counts(store.scan(tmp_path)) == {"unchanged": 4}


def test_a_component_s_file_that_was_added_as_a_file_stays_one(store: Store, tmp_path: Path) -> None:
    file = make(tmp_path / "canny" / "diffusion_pytorch_model.safetensors")
    (tmp_path / "canny" / "config.json").write_text('{"_class_name": "ControlNetModel"}')
    store.add(file, name="edges")
    assert counts(store.scan(tmp_path)) == {"unchanged": 1} and store.find("edges").path == str(file)


def test_links_are_followed_and_loops_are_not(store: Store, models: Path) -> None:
    (models / "sub" / "up").symlink_to("..")
    (models / "again").symlink_to("sub")
    (models / "link.safetensors").symlink_to("a.safetensors")
    report = store.scan(models)
    assert counts(report) == {"added": 3, "unchanged": 1}  # the link is another place of `a`
    assert store.find("a").metadata["copies"]


def test_hidden_and_unfinished_things_are_passed_over(store: Store, tmp_path: Path) -> None:
    make(tmp_path / "m" / ".cache" / "a.safetensors")
    make(tmp_path / "m" / ".tmp-1234")
    (tmp_path / "m" / "notes.txt").write_text("x")
    report = store.scan(tmp_path / "m")
    assert counts(report) == {} and report.problems == []


def test_renamed_and_moved_files_keep_what_was_said_of_them(store: Store, models: Path) -> None:
    store.scan(models)
    store.tag("a", ["best"])
    store.alias("a", "one")
    record = store.find("a")
    (models / "a.safetensors").rename(models / "sub" / "c.safetensors")
    (models / "base").rename(models / "renamed")
    report = store.scan(models)
    assert counts(report) == {"relinked": 2, "unchanged": 1}
    found = store.find(str(models / "sub" / "c.safetensors"))
    assert (found.id, found.tags, found.name) == (record.id, ("best",), "c") and store.find("a@one").id == record.id
    folder = store.find("renamed")
    assert folder.path == str(models / "renamed") and all(entry.path.startswith(str(models / "renamed")) for entry in folder.files)


def test_a_copy_whose_original_is_gone_is_known_by_its_hash(store: Store, models: Path, tmp_path: Path) -> None:
    store.scan(models, hash=True)
    store.tag("a", ["best"])
    shutil.copyfile(models / "a.safetensors", tmp_path / "moved.safetensors")  # another inode, another time
    (models / "a.safetensors").unlink()
    assert counts(store.scan(models))["missing"] == 1
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "moved.safetensors").rename(elsewhere / "new.safetensors")
    assert counts(store.scan(elsewhere)) == {"relinked": 1}
    assert store.find(str(elsewhere / "new.safetensors")).tags == ("best",)
    assert store.scan(models).missing == 0


def test_a_file_with_the_same_header_and_other_weights_is_not_taken_for_the_moved_one(store: Store, models: Path) -> None:
    store.scan(models, hash=True)
    (models / "a.safetensors").unlink()
    make(models / "other.safetensors", "other weights, same keys")
    assert counts(store.scan(models)) == {"added": 1, "unchanged": 2, "missing": 1}


def test_a_changed_file_is_updated_and_its_hashes_dropped(store: Store, models: Path) -> None:
    store.scan(models, hash=True)
    record = store.find("a")
    lora(models / "a.safetensors", sd1_attention(), rank=16)
    report = store.scan(models)
    assert counts(report) == {"updated": 1, "unchanged": 2}
    found = store.find("a")
    assert found.id == record.id and found.rank == 16 and found.hashes.sha256 is None


def test_a_metadata_edit_is_the_same_record_with_the_same_data_hash(store: Store, models: Path) -> None:
    store.scan(models, hash=True)
    record = store.find("a")
    lora(models / "a.safetensors", sd1_attention(), seed="a", metadata={"modelspec.title": "edited"})
    report = store.scan(models, hash=True)
    found = store.find("a")
    assert counts(report) == {"updated": 1, "unchanged": 2} and found.id == record.id
    assert found.hashes.tensors_sha256 == record.hashes.tensors_sha256 and found.hashes.sha256 != record.hashes.sha256


def test_what_was_added_by_name_is_not_added_again(store: Store, models: Path, pocket: Path) -> None:
    record = store.add(models / "a.safetensors", name="ink")
    report = store.scan(models)
    assert counts(report) == {"added": 2, "unchanged": 1} and store.find("ink").id == record.id
    shutil.copytree(pocket, models / "copy of pocket")
    assert counts(store.scan(models))["added"] == 1
    assert store.scan(pocket.parent).records() == []  # pocket itself has its record already


def test_a_scan_changes_nothing_on_the_disk(store: Store, models: Path) -> None:
    def state() -> dict[str, tuple[int, int, int]]:
        return {str(path): (path.stat().st_size, path.stat().st_mtime_ns, path.stat().st_ino) for path in models.rglob("*")}

    before = state()
    store.scan(models, hash=True)
    assert state() == before


def test_the_folder_itself_must_be_one(store: Store, models: Path) -> None:
    for path in (models / "absent", models / "a.safetensors"):
        with pytest.raises(BadFile, match="folder"):
            store.scan(path)


def test_names_that_are_no_unicode_are_a_row(store: Store, tmp_path: Path) -> None:
    make(tmp_path / "m" / "a.safetensors")
    os.rename(tmp_path / "m" / "a.safetensors", os.fsencode(tmp_path / "m") + b"/\xff.safetensors")
    report = store.scan(tmp_path / "m")
    assert [problem.code for problem in report.problems] == ["unreadable"] and counts(report) == {}


def test_a_hundred_damaged_files_are_rows_and_never_a_crash(store: Store, tmp_path: Path) -> None:
    sound = make(tmp_path / "sound.safetensors").read_bytes()
    random_ = random.Random(7)
    folder = tmp_path / "m"
    folder.mkdir()
    for number in range(100):
        data = bytearray(sound)
        for _ in range(random_.randrange(1, 6)):
            data[random_.randrange(900)] = random_.randrange(256)
        (folder / f"{number}.safetensors").write_bytes(data)
    report = store.scan(folder)
    assert report.added + len(report.problems) == 100 and len(report.problems) > 50
    assert len(store.scan(folder).problems) == len(report.problems)


def test_hashing_goes_on_past_a_file_that_is_taken_away(store: Store, models: Path) -> None:
    def take_away(tick: Tick) -> None:
        if tick.stage == "hash all":
            (models / "a.safetensors").unlink(missing_ok=True)

    found = store.scan(models, hash=True, report=take_away)
    assert [(problem.code, Path(problem.path).name) for problem in found.problems] == [("unreadable", "a.safetensors")]
    hashed = {record.name: record.hashes.sha256 for record in found.records()}
    assert hashed["a"] is None and hashed["b"] and hashed["base"]
    again = store.scan(models, hash=True)
    assert {record.name: record.hashes.sha256 for record in again.records()}["b"] == hashed["b"]


def test_files_that_every_tool_calls_alike_have_their_folders_names(store: Store, tmp_path: Path) -> None:
    for name in ("ink", "hat"):
        lora(tmp_path / "m" / name / "pytorch_lora_weights.safetensors", sd1_attention(), seed=name)
    assert sorted(record.name for record in store.scan(tmp_path / "m").records()) == ["hat", "ink"]
    assert store.find("ink").path == str(tmp_path / "m" / "ink" / "pytorch_lora_weights.safetensors")


def test_texts_of_other_programs_are_stored_whatever_they_hold(store: Store, tmp_path: Path) -> None:
    """Half of a surrogate pair is valid JSON, and no database can store it."""
    folder = tmp_path / "models"
    half = r'{"description": "cut \ud83d", "trainedWords": ["ink\ud800"], "activation text": "\udfff", "notes": "\ud800"}'
    make(folder / "sound.safetensors", "sound")
    for number, name in enumerate(("a.civitai.info", "b.json")):
        make(folder / f"{name[0]}.safetensors", str(number))
        (folder / name).write_text(half)
    peft = {"r": 4, "lora_alpha": 8, "base_model_name_or_path": "\ud800"}
    lora(folder / "peft" / "adapter_model.safetensors", sd1_attention(), dialect="peft", seed="peft")
    (folder / "peft" / "adapter_config.json").write_text(json.dumps(peft))
    lora(folder / "tags.safetensors", sd1_attention(), seed="t", metadata={"ss_tag_frequency": r'{"10_x": {"cat\ud83d": 10}}'})
    diffusers_folder(folder / "base", width=256)
    (folder / "base" / "README.md").write_text('---\nlicense: "mit\\ud800"\n---\n')
    found = store.scan(folder)
    assert counts(found) == {"added": 6} and found.problems == []
    known = {record.name: record for record in found.records()}
    assert known["a"].metadata["sidecar.description"] == "cut \ufffd" and known["a"].triggers == ("ink\ufffd",)
    assert known["b"].triggers == ("\ufffd",) and known["tags"].triggers == ("cat\ufffd",)
    assert known["peft"].parents[0]["ref"] == "\ufffd" and known["base"].licence == "mit\ufffd"
    assert store.add(folder / "a.safetensors", name="mine").triggers == ("ink\ufffd",)


@pytest.mark.parametrize(
    "raised", [MemoryError(), RecursionError("deep"), UnicodeEncodeError("utf-8", "\ud800", 0, 1, "no"), RuntimeError("x")]
)
@pytest.mark.parametrize("place", ["reading", "writing"])
def test_whatever_one_file_raises_is_its_own_row(
    raised: Exception, place: str, store: Store, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = {"reading": (inspecting, "record_of"), "writing": (rows, "_record_row")}[place]
    real = getattr(*where)

    def raising(*arguments: Any, **options: Any) -> Any:
        wanted = arguments[0]
        if "a.safetensors" in str(getattr(wanted, "path", wanted)):
            raise raised
        return real(*arguments, **options)

    monkeypatch.setattr(*where, raising)
    found = store.scan(models)
    assert counts(found) == {"added": 2} and {record.name for record in found.records()} == {"b", "base"}
    ((path, code),) = [(problem.path, problem.code) for problem in found.problems]
    assert path == str(models / "a.safetensors") and code == ("too-large" if isinstance(raised, MemoryError) else "unknown-format")
    monkeypatch.undo()
    assert counts(store.scan(models)) == {"added": 1, "unchanged": 2}


def test_of_files_inspected_together_each_has_its_own_result_in_the_order_of_the_walk(store: Store, tmp_path: Path) -> None:
    """More files than are inspected together; some are damaged, one cannot be read, and a folder is among them."""
    folder, together = tmp_path / "many", inspecting.TOGETHER
    count = together + 9
    for number in range(count):
        make(folder / f"{number:03d}.safetensors", str(number))
    broken = [7, together - 1, together, together + 3]
    for number in broken:
        (folder / f"{number:03d}.safetensors").write_bytes(b"no model")
    (folder / "040.safetensors").unlink()
    os.mkfifo(folder / "040.safetensors")
    diffusers_folder(folder / "base")
    wrong, found = sorted([*broken, 40]), store.scan(folder)
    assert [Path(problem.path).stem for problem in found.problems] == [f"{number:03d}" for number in wrong]
    assert counts(found) == {"added": count - len(wrong) + 1}
    assert {record.name for record in found.records()} == {"base", *(f"{n:03d}" for n in range(count) if n not in wrong)}
    assert counts(store.scan(folder)) == {"unchanged": count - len(wrong) + 1}


def test_a_folder_with_a_file_name_that_is_no_unicode_is_a_row(store: Store, models: Path) -> None:
    with open(os.fsencode(models / "base") + b"/\xff.txt", "wb"):
        pass
    found = store.scan(models)
    assert counts(found) == {"added": 2} and [problem.path for problem in found.problems] == [str(models / "base")]
    with pytest.raises(Refused, match="not valid Unicode"):
        store.add(models / "base")


def test_a_header_of_more_tensors_than_any_model_has_is_refused_by_their_number(store: Store, tmp_path: Path) -> None:
    entries = ",".join(f'"{n}":{{"dtype":"F16","shape":[0],"data_offsets":[0,0]}}' for n in range(300_001))
    (tmp_path / "many.safetensors").write_bytes(raw_file(b"{" + entries.encode() + b"}"))
    (problem,) = store.scan(tmp_path).problems
    assert problem.code == "header-too-large" and "300,001 tensors; at most 300,000" in problem.message


def checkpoint(run: Path, step: int, /, **state: Any) -> Path:
    """A checkpoint as training writes it; gives its training.pt."""
    folder = run / "checkpoints" / f"step-{step:06d}"
    make(folder / "adapter.safetensors", str(step))
    (folder / "training.pt").write_bytes(b"PK\x03\x04" + bytes(20) + b"archive/data.pkl" + bytes(10))
    files = {"adapter.safetensors": "0" * 64, "training.pt": "0" * 64}
    (folder / "state.json").write_text(json.dumps({"version": 1, "step": step, "files": files, "history": {}, **state}))
    return folder / "training.pt"


def test_the_training_state_of_a_runs_checkpoint_is_known_for_what_it_is(store: Store, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "hat" / "20261129-101500"
    for step in (20, 40):
        checkpoint(run, step)
    for found in (store.scan(tmp_path / "runs"), store.scan(tmp_path / "runs")):
        assert found.problems == [] and sorted((one.run, one.step) for one in found.checkpoints) == [(str(run), 20), (str(run), 40)]
        assert len(found.records()) == 2 == len(found.to_json()["checkpoints"])


def test_a_training_pt_of_any_other_place_is_a_pickle(store: Store, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    known = checkpoint(root / "run", 20)
    shutil.copy(known, root / "training.pt")
    shutil.copy(known, root / "run" / "checkpoints" / "training.pt")
    shutil.copytree(known.parent, root / "step-000020")  # not in a run's checkpoints
    shutil.copytree(known.parent, root / "run" / "checkpoints" / "step-000021")  # of another step
    shutil.copy(known, known.with_name("other.pt"))
    odd: tuple[dict[str, Any], ...] = ({"files": {"adapter.safetensors": "0" * 64}}, {"files": None}, {"step": "20"})
    for number, state in enumerate(odd):
        checkpoint(root / f"odd-{number}", 20, **state)
    checkpoint(root / "bare", 20).with_name("state.json").unlink()
    found = store.scan(root)
    assert [one.folder for one in found.checkpoints] == [str(known.parent)]
    assert len(found.problems) == 9 and {problem.code for problem in found.problems} == {"pickle"}
