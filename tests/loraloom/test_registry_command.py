"""`loraloom registry`: documents for machines, tables for people, exit codes."""

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from loraloom.cli import main
from tests.infer.metadata.images import png
from tests.registry.made import diffusers_folder, lora, sd1_attention

RECORD_KEYS = (
    *("id", "name", "kind", "family", "variant", "prediction", "dialect", "algorithms", "dora", "rank", "alpha", "dtype", "components"),
    *("files", "hashes", "triggers", "tags", "notes", "aliases", "licence", "parents", "recipe", "metadata", "evidence", "candidates"),
    *("warnings", "created", "image"),
)


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORALOOM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LORALOOM_POCKET", str(diffusers_folder(tmp_path / "pocket")))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def ink(tmp_path: Path) -> Path:
    path = tmp_path / "m" / "ink.safetensors"
    modules = sd1_attention(128, channels=48, blocks=(0,))
    lora(path, modules, rank=8, metadata={"modelspec.architecture": "stable-diffusion-v1/lora"})
    return path


def said(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    assert main(["registry", *words]) == code
    return capsys.readouterr().out


def reported(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> object:
    """The one JSON document on stdout."""
    return json.loads(said(capsys, *words, "--json", code=code))


def test_show_gives_family_rank_sha256_and_parents(capsys: pytest.CaptureFixture[str], ink: Path) -> None:
    added = reported(
        capsys, "add", str(ink), "--name", "ink", "--parent", "base=pocket", "--tag", "line", "--trigger", "inkstyle", "--note", "n"
    )
    shown = reported(capsys, "show", "ink")
    assert shown == added and isinstance(shown, dict) and tuple(shown) == RECORD_KEYS
    assert (shown["family"], shown["rank"], shown["tags"], shown["triggers"], shown["notes"]) == ("sd1", 8, ["line"], ["inkstyle"], "n")
    pocket = reported(capsys, "show", "pocket")
    assert isinstance(pocket, dict) and len(pocket["hashes"]["sha256"]) == 64
    assert shown["parents"] == [{"role": "base", "ref": "pocket", "sha256": pocket["hashes"]["sha256"]}]
    assert "rank" in said(capsys, "show", "ink")


def test_list_find_and_scan(capsys: pytest.CaptureFixture[str], ink: Path) -> None:
    report = reported(capsys, "scan", str(ink.parent))
    assert isinstance(report, dict) and report["added"] == 1 and [one["name"] for one in report["records"]] == ["ink"]
    listed = reported(capsys, "list")
    assert isinstance(listed, list) and [one["name"] for one in listed] == ["pocket", "ink"]
    assert reported(capsys, "list", "--kind", "vae") == []
    narrowed = reported(capsys, "list", "--kind", "adapter", "--family", "sd1")
    assert isinstance(narrowed, list) and len(narrowed) == 1
    found = reported(capsys, "find", "INK", "sd1")
    assert isinstance(found, list) and [one["name"] for one in found] == ["ink"]
    assert reported(capsys, "find", "nothing-of-that-name") == []
    assert main(["registry", "list", "--family", "sdxll"]) == 2 and "Did you mean 'sdxl'" in capsys.readouterr().err
    (ink.parent / "bad.safetensors").write_text("<html>")
    assert "not-a-model" in said(capsys, "scan", str(ink.parent))
    hashed = reported(capsys, "scan", str(ink.parent), "--hash")
    assert isinstance(hashed, dict) and hashed["records"][0]["hashes"]["sha256"]


@pytest.mark.parametrize("words", [["scan", "m"], ["find", "ink"], ["list"]])
def test_a_record_that_cannot_be_read_leaves_no_json_that_is_cut(words: list[str], capsys: pytest.CaptureFixture[str], ink: Path) -> None:
    said(capsys, "scan", str(ink.parent))
    with closing(sqlite3.connect(ink.parents[1] / "home" / "index.sqlite")) as index, index:
        index.execute("UPDATE record SET data = '[]' WHERE stem = 'ink'")
    assert said(capsys, *words, "--json", code=2) == ""


def test_checkpoints_of_a_run_are_steps_and_no_strangers(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for step in range(10, 80, 10):
        folder = tmp_path / "runs" / "hat" / "checkpoints" / f"step-{step:06d}"
        lora(folder / "adapter.safetensors", sd1_attention(128, channels=48, blocks=(0,)), seed=str(step))
        (folder / "training.pt").write_bytes(b"PK\x03\x04" + bytes(20) + b"archive/data.pkl")
        (folder / "state.json").write_text(json.dumps({"step": step, "files": {"adapter.safetensors": "", "training.pt": ""}}))
    lora(tmp_path / "runs" / "hat" / "hat.safetensors", sd1_attention(128, channels=48, blocks=(0,)), seed="70")
    lines = said(capsys, "scan", str(tmp_path / "runs")).splitlines()
    assert lines[0].startswith("8 added") and [line.split()[0] for line in lines[2:3]] == ["hat"] and "not registered" not in lines
    assert lines[4].startswith("checkpoints of runs (7): ")
    assert lines[6].split(maxsplit=1) == [str(tmp_path / "runs" / "hat"), "10, 20, 30, 40, ..., 70 (7)"]


def test_a_long_listing_comes_in_parts(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loraloom.commands.registry.listing.MOST", 3)
    for number in range(5):
        lora(tmp_path / "m" / f"lora-{number}.safetensors", sd1_attention(128, channels=48, blocks=(0,)), seed=str(number))
    said(capsys, "scan", str(tmp_path / "m"))
    names = ["pocket", *(f"lora-{number}" for number in range(5))]

    def listed(*words: str) -> tuple[list[str], str]:
        assert main(["registry", "list", *words]) == 0
        captured = capsys.readouterr()
        return [line.split()[0] for line in captured.out.splitlines()[1:]], captured.err

    assert listed() == (names[:3], "note: 1 to 3 of 6, the oldest first. --offset 3 goes on, --all lists everything.\n")
    assert listed("--offset", "3") == (names[3:], "note: 4 to 6 of 6, the oldest first.\n")
    assert listed("--limit", "1", "--kind", "adapter")[0] == names[1:2] and listed("--all") == (names, "")
    assert listed("--offset", "9") == ([], "note: there are 6 of them, and --offset 9 leaves all of them out.\n")
    written = said(capsys, "list", "--json")
    assert [one["name"] for one in json.loads(written)] == names and len(written.splitlines()) == 8  # a record a line
    assert reported(capsys, "list", "--tag", "none-has-it") == []
    part = reported(capsys, "list", "--offset", "4", "--limit", "1")
    assert isinstance(part, list) and [one["name"] for one in part] == names[4:5]


def test_fits_has_an_exit_code(capsys: pytest.CaptureFixture[str], ink: Path, tmp_path: Path) -> None:
    assert "100%" in said(capsys, "fits", str(ink), "pocket")
    lora(tmp_path / "sd1.safetensors", sd1_attention())
    fit = reported(capsys, "fits", "sd1.safetensors", "pocket", code=2)
    assert isinstance(fit, dict) and fit["ok"] is False and fit["share"] == 0.0 and fit["mismatched"]


@pytest.mark.slow
def test_tag_note_alias_lineage_verify_and_rm(capsys: pytest.CaptureFixture[str], ink: Path) -> None:
    said(capsys, "add", str(ink), "--parent", "base=pocket", "--parent", "dataset=hats")
    assert isinstance(tagged := reported(capsys, "tag", "ink", "a", "b", "--remove", "a"), dict) and tagged["tags"] == ["b"]
    assert isinstance(noted := reported(capsys, "note", "ink", "hello"), dict) and noted["notes"] == "hello"
    assert isinstance(named := reported(capsys, "alias", "ink", "best"), dict) and named["aliases"] == ["best"]
    tree = reported(capsys, "lineage", "ink@best")
    assert isinstance(tree, dict) and [(node["name"], node["missing"]) for node in tree["parents"]] == [("pocket", False), ("hats", True)]
    assert "└── dataset: hats (not registered)" in said(capsys, "lineage", "ink")
    assert said(capsys, "lineage", "ink", "--dot").startswith("digraph")
    below = reported(capsys, "lineage", "pocket")
    assert isinstance(below, dict) and [(one["role"], one["name"]) for one in below["children"]] == [("base", "ink")]
    checks = reported(capsys, "verify")
    assert isinstance(checks, list) and {check["status"] for check in checks} <= {"ok", "new"}
    ink.write_bytes(ink.read_bytes()[:-1] + b"\0")
    assert "changed" in said(capsys, "verify", "ink", code=1) and "changed" in said(capsys, "verify", code=1)
    assert ink.name in said(capsys, "rm", "ink") and ink.is_file()


def test_several_are_tagged_at_once_or_none(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for number in range(3):
        lora(tmp_path / "m" / f"lora-{number}.safetensors", sd1_attention(128, channels=48, blocks=(0,)), seed=str(number))
    said(capsys, "scan", str(tmp_path / "m"))
    changed = reported(capsys, "tag", "lora-0", "a", "b", "--also", "lora-1", "pocket", "lora-0")
    assert isinstance(changed, list) and [(one["name"], one["tags"]) for one in changed] == [
        *(("lora-0", ["a", "b"]), ("lora-1", ["a", "b"]), ("pocket", ["a", "b"]))
    ]
    identity = changed[1]["id"]
    changed = reported(capsys, "tag", identity, "--remove", "a", "--also", "pocket")
    assert isinstance(changed, list) and [one["tags"] for one in changed] == [["b"], ["b"]]
    assert main(["registry", "tag", "lora-0", "c", "--also", "lara-2", "nobody"]) == 2
    refused = capsys.readouterr().err
    assert "No tag was changed" in refused and "lara-2" in refused and "nobody" in refused
    assert reported(capsys, "list", "--tag", "c") == []


@pytest.mark.slow
def test_a_listing_is_filtered_and_sorted(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for number, rank in enumerate((4, 8, 4)):
        lora(tmp_path / "m" / f"lora-{number}.safetensors", sd1_attention(128, channels=48, blocks=(0,)), rank=rank, seed=str(number))
    said(capsys, "scan", str(tmp_path / "m"))
    said(capsys, "tag", "lora-0", "x", "y", "--also", "lora-1")
    said(capsys, "tag", "lora-2", "x")

    def listed(*words: str) -> list[str]:
        found = reported(capsys, "list", *words)
        assert isinstance(found, list)
        return [one["name"] for one in found]

    assert listed("--rank", "4", "--sort", "name") == ["lora-0", "lora-2"] and listed("--rank", "none") == ["pocket"]
    assert listed("--tag", "x", "--tag", "y", "--sort", "size") == ["lora-1", "lora-0"]
    assert listed("--find", "lora", "--find", "y", "--rank", "8") == listed("--find", "lora-1") == ["lora-1"]
    assert listed("--family", "none") == ["lora-0", "lora-1", "lora-2"] and listed("--missing") == listed("--warning", "pickle") == []
    assert main(["registry", "list", "--rank", "4", "--limit", "1"]) == 0
    assert "note: 1 to 1 of 2, the oldest first" in capsys.readouterr().err
    assert main(["registry", "list", "--rank", "many"]) == 2 and "'many'" in capsys.readouterr().err


def test_an_image_is_set_and_forgotten(capsys: pytest.CaptureFixture[str], ink: Path, tmp_path: Path) -> None:
    said(capsys, "scan", str(ink.parent))
    image = png(tmp_path / "shown.png", parameters="x")
    shown = reported(capsys, "set", "ink", "--image", str(image))
    assert isinstance(shown, dict) and shown["image"] == str(image)
    said(capsys, "export-notes", str(tmp_path / "notes.json"))
    forgotten = reported(capsys, "set", "ink", "--forget", "image")
    assert isinstance(forgotten, dict) and forgotten["image"] is None
    said(capsys, "import-notes", str(tmp_path / "notes.json"))
    assert isinstance(again := reported(capsys, "show", "ink"), dict) and again["image"] == str(image)
    assert main(["registry", "set", "ink", "--image", str(ink)]) == 2 and main(["registry", "set", "ink", "--image", "none.png"]) == 2
    assert "is no image" in (refused := capsys.readouterr().err) and "no such file" in refused


@pytest.mark.parametrize("verb", ["set", "tell"])
def test_set_overrides_what_was_detected_and_tell_is_its_older_name(capsys: pytest.CaptureFixture[str], ink: Path, verb: str) -> None:
    said(capsys, "scan", str(ink.parent))
    changed = json.loads(said(capsys, verb, "ink", "--family", "sdxl", "--trigger", "a", "--prediction", "flow", "--json"))
    assert (changed["family"], changed["triggers"], changed["prediction"]["value"]) == ("sdxl", ["a"], "flow")
    back = json.loads(said(capsys, verb, "ink", "--forget", "family", "--json"))
    assert back["family"] == "sd1"
    assert main(["registry", verb, "ink"]) == 2 and main(["registry", verb, "ink", "--family", "sdlx"]) == 2
    assert "'sdxl'" in capsys.readouterr().err


def test_help_lists_set_and_not_its_older_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["registry", "--help"]) == 0
    verbs = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.startswith("    ") and line.strip()]
    assert verbs.count("set") == 1 and "tell" not in verbs


def test_the_same_weights_in_another_dialect_are_reported(capsys: pytest.CaptureFixture[str], ink: Path) -> None:
    lora(ink.parent / "kohya.safetensors", sd1_attention(128, channels=48, blocks=(0,)), rank=8, dialect="kohya")
    assert "kohya: ink holds the same weights." in said(capsys, "scan", str(ink.parent), "--hash")
    listed = reported(capsys, "duplicates")
    assert isinstance(listed, list) and [(one["same"], [r["dialect"] for r in one["records"]]) for one in listed] == [
        ("weights", ["diffusers", "kohya"])
    ]
    assert "same weights" in said(capsys, "duplicates")
    shown = reported(capsys, "show", "ink")
    assert isinstance(shown, dict) and "duplicate" in [warning["code"] for warning in shown["warnings"]]


def test_gc_is_dry_until_it_is_reported(capsys: pytest.CaptureFixture[str], ink: Path, tmp_path: Path) -> None:
    said(capsys, "add", str(ink), "--name", "ink")
    assert isinstance(kept := reported(capsys, "keep", "ink"), dict) and Path(kept["blobs"][0]).is_file()
    assert "nothing to free" in said(capsys, "gc")
    removed = reported(capsys, "rm", "ink")
    assert isinstance(removed, dict) and removed["deleted"] == [] and removed["derived"] == [] and removed["name"] == "ink"
    assert "would be freed" in said(capsys, "gc") and Path(kept["blobs"][0]).is_file()
    done = reported(capsys, "gc", "--apply")
    assert isinstance(done, dict) and done["applied"] and [item["why"] for item in done["items"]] == ["orphan-blob"]
    assert not Path(kept["blobs"][0]).exists() and ink.is_file()
    said(capsys, "add", str(ink))
    assert main(["registry", "rm", "ink", "--delete-files"]) == 2 and "was not written" in capsys.readouterr().err and ink.is_file()


@pytest.mark.slow
def test_a_damaged_index_is_refused_until_a_rebuild_restores_its_backup(
    capsys: pytest.CaptureFixture[str], ink: Path, tmp_path: Path
) -> None:
    # In processes of their own, as for a user: a connection that is still open here would answer from the pages it holds.
    for words in (["add", str(ink), "--name", "ink", "--tag", "line"], ["note", "ink", "the day's first write keeps a backup"]):
        subprocess.run([sys.executable, "-m", "loraloom", "registry", *words], check=True, capture_output=True)
    file = tmp_path / "home" / "index.sqlite"
    with file.open("r+b") as raw:
        raw.write(bytes(4096))
    (file.parent / "index.sqlite-wal").unlink(missing_ok=True)
    assert main(["registry", "list", "--json"]) == 2
    assert "loraloom registry rebuild" in capsys.readouterr().err
    done = reported(capsys, "rebuild")
    assert isinstance(done, dict) and "was damaged" in done["recovered"] and len(list(file.parent.glob("index.damaged-*.sqlite"))) == 1
    listed = json.loads(said(capsys, "list", "--json"))
    assert [one["tags"] for one in listed if one["name"] == "ink"] == [["line"]]


def test_notes_go_out_and_come_back(capsys: pytest.CaptureFixture[str], ink: Path) -> None:
    said(capsys, "add", str(ink), "--name", "ink", "--tag", "line")
    document = json.loads(said(capsys, "export-notes"))
    assert [entry["tags"] for entry in document["records"]] == [["line"]]
    assert "1 model" in said(capsys, "export-notes", "notes.json") and json.loads(Path("notes.json").read_text())["records"]
    said(capsys, "rm", "ink")
    assert "not registered: ink" in said(capsys, "import-notes", "notes.json", code=1)
    said(capsys, "scan", str(ink.parent))
    done = reported(capsys, "import-notes", "notes.json")
    assert done == {"applied": 1, "unchanged": 0, "unmatched": [], "conflicts": []}
    assert reported(capsys, "rebuild") == {"recovered": None, "rebuilt": 1, "missing": 0, "problems": []}
    assert "line" in said(capsys, "list")
    assert main(["registry", "import-notes", str(ink)]) == 2 and "Traceback" not in capsys.readouterr().err


def test_a_taken_name_is_refused_unless_it_is_replaced(capsys: pytest.CaptureFixture[str], ink: Path, tmp_path: Path) -> None:
    lora(tmp_path / "other.safetensors", sd1_attention())
    said(capsys, "add", str(ink), "--name", "ink")
    said(capsys, "add", str(ink), "--name", "ink")
    assert main(["registry", "add", "other.safetensors", "--name", "ink"]) == 2
    assert "--replace" in capsys.readouterr().err
    said(capsys, "add", "other.safetensors", "--name", "ink", "--replace")
    listed = reported(capsys, "list", "--kind", "adapter")
    assert isinstance(listed, list) and sorted(one["name"].partition("@")[0] for one in listed) == ["ink", "ink"]


def test_a_copy_is_said_to_be_one(capsys: pytest.CaptureFixture[str], ink: Path, tmp_path: Path) -> None:
    said(capsys, "add", str(ink), "--name", "ink")
    (tmp_path / "blot.safetensors").write_bytes(ink.read_bytes())
    assert main(["registry", "add", "blot.safetensors"]) == 0
    assert f"blot.safetensors is a copy of {ink}: both are ink. --name" in capsys.readouterr().err.replace("\n", " ")
    (tmp_path / "linked.safetensors").symlink_to(tmp_path / "blot.safetensors")
    ink.unlink()
    for same in ("blot.safetensors", "linked.safetensors"):  # the other one is gone, and a link is no copy of its end
        assert main(["registry", "add", same]) == 0 and "is a copy of" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["shwo", "ink"], "'show'"),
        (["show", "pocked"], "'pocket'"),
        (["add", "absent.safetensors"], "absent.safetensors"),
        (["add", "pocket", "--parent", "mother=x"], "ROLE"),
        (["scan", "absent"], "folder"),
        (["list", "--kind", "adaptr"], "'adapter'"),
        (["fits", "pocket", "pocket"], "adapter was expected"),
        (["list", "--limit", "-1"], "--limit -1: expected 1 or more"),
        (["list", "--offset", "-1"], "--offset -1: expected 0 or more"),
        (["list", "--all", "--limit", "5"], "give one of them"),
        (["fits", "ink", "pocket", "--threshold", "nan"], "--threshold must be from 0 to 100, got nan."),
        (["convert", "ink", "--to", "kohya", "-o", "k.safetensors", "--memory-mib", "-5"], "--memory-mib must be at least 1, got -5."),
    ],
)
def test_what_is_refused_is_one_paragraph_with_exit_code_2(words: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["registry", *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and expected in captured.err and "Traceback" not in captured.err


@pytest.mark.slow
def test_a_listing_imports_neither_torch_nor_diffusers(tmp_path: Path) -> None:
    script = (
        "import sys\nfrom loraloom.cli import main\nassert main(['registry', 'list', '--json']) == 0\n"
        "heavy = {'torch', 'diffusers', 'transformers', 'peft', 'numpy', 'PIL'} & set(sys.modules)\nassert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [one["name"] for one in json.loads(done.stdout)] == ["pocket"]


def test_find_answers_an_image_with_its_models(capsys: pytest.CaptureFixture[str], ink: Path, tmp_path: Path) -> None:
    added = reported(capsys, "add", str(ink), "--name", "ink")
    assert isinstance(added, dict)
    pairs = f'Model: sd15, Model hash: 0123456789, Lora hashes: "Ink_v2: {added["hashes"]["tensors_sha256"][:12]}"'
    text = f"a cat <lora:Ink_v2:0.6>\nSteps: 20, Sampler: Euler, CFG scale: 7, Seed: 1, Size: 64x64, {pairs}"
    image = str(png(tmp_path / "a.png", parameters=text))
    found = reported(capsys, "find", image)
    assert isinstance(found, dict) and (found["tool"], found["source"]) == ("A1111", "parameters")
    assert [(one["what"], one["name"], one["registered"], one["by"]) for one in found["models"]] == [
        ("model", "sd15", None, None),
        ("LoRA", "Ink_v2", "ink", "kohya"),
    ]
    assert "not registered" in said(capsys, "find", image)
    said(capsys, "find", str(png(tmp_path / "b.png")), code=2)
