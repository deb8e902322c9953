"""Names, paths and metadata of other people's files, in the output of every command: never as a control character, never as a line."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from loraloom import cli, console
from registry.formats.safetensors_header import read_header
from tests.registry.adapters import made_adapters
from tests.registry.made import diffusers_folder, lora, sd1_attention

NASTY = "a\x1b]0;owned\x07\x1b[2J\u202eb\x9b1m\x7f\rc\nFORGED  adapter"
SHOWN = r"a\x1b]0;owned\x07\x1b[2J\u202eb\x9b1m\x7f\rc\nFORGED  adapter"
CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")

Run = Callable[..., tuple[str, str]]


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An adapter whose file name and metadata are hostile, in a folder of such a name, beside a damaged file and a hostile sidecar."""
    monkeypatch.setenv("LORALOOM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LORALOOM_POCKET", str(diffusers_folder(tmp_path / "pocket")))
    monkeypatch.chdir(tmp_path)
    path = tmp_path / f"folder {NASTY}" / f"{NASTY}.safetensors"
    metadata = {
        "modelspec.architecture": f"stable-diffusion-v1/lora{NASTY}",
        "modelspec.title": NASTY,
        "modelspec.license": NASTY,
        "modelspec.trigger_phrase": NASTY,
        "modelspec.merged_from": NASTY,
        "ss_sd_model_name": NASTY,
        "ss_base_model_version": NASTY,
    }
    lora(path, sd1_attention(128, channels=48, blocks=(0,)), rank=8, metadata=metadata)
    path.with_name(f"damaged {NASTY}.safetensors").write_text("<html>")
    path.with_suffix(".json").write_text(json.dumps({"description": NASTY, "activation text": NASTY, "notes": NASTY}))
    return path


@pytest.fixture
def run(model: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command line and gives its (stdout, stderr), both free of control characters and of forged lines."""

    def run_and_check(*words: str, code: int | None = 0) -> tuple[str, str]:
        capsys.readouterr()
        found = cli.main(list(words))
        out, err = capsys.readouterr()
        assert code is None or found == code, (out, err)
        for text in (out, err):
            assert not CONTROL.search(text), (words, text)
            assert not re.search("^FORGED", text, re.MULTILINE), (words, text)
            assert text is err or not re.search(r"^\W*FORGED", text, re.MULTILINE), (words, text)
            assert "fault of loraloom itself" not in text, (words, text)
        return out, err

    return run_and_check


@pytest.mark.slow
def test_every_registry_command(run: Run, model: Path, tmp_path: Path) -> None:
    out, _ = run("registry", "scan", str(model.parent), "--hash")
    assert f"{SHOWN}  adapter" in out and "damaged" in out
    stem = model.stem
    out, _ = run("registry", "list")
    assert len(out.splitlines()) == 3 and SHOWN in out
    assert SHOWN in run("registry", "show", stem)[0]
    run("registry", "show", str(model))
    run("registry", "find", "FORGED")
    run("registry", "duplicates")
    run("registry", "verify")
    run("registry", "lineage", stem)
    run("registry", "lineage", stem, "--dot")
    run("registry", "fits", stem, "pocket", code=None)
    run("registry", "tag", stem, NASTY, code=None)
    run("registry", "note", stem, NASTY, code=None)
    run("registry", "alias", stem, NASTY, code=None)
    run("registry", "keep", stem, code=None)
    run("registry", "export", stem, "--layout", "comfyui", str(tmp_path / f"out {NASTY}"))
    run("registry", "convert", stem, "--to", "diffusers", "--output", str(tmp_path / f"{NASTY}.safetensors"), code=None)
    run("registry", "convert", stem, "--to", NASTY, "--output", str(tmp_path / "x.safetensors"), code=2)
    run("registry", "export-notes")
    run("registry", "export-notes", str(tmp_path / f"notes {NASTY}.json"))
    run("registry", "import-notes", str(tmp_path / f"notes {NASTY}.json"))
    run("registry", "add", str(model.with_name(f"damaged {NASTY}.safetensors")), code=2)
    run("registry", "show", f"{stem}x", code=2)
    run("registry", "gc")
    run("registry", "rebuild")
    run("registry", "rm", stem)


@pytest.mark.slow
def test_merge_lora_grid_train_and_data(run: Run, model: Path, tmp_path: Path) -> None:
    run("registry", "add", str(model), "--name", "ink")
    reference = str(model)
    run("lora", "inspect", reference)
    assert SHOWN in run("lora", "inspect", str(model.with_name(f"damaged {NASTY}.safetensors")), code=2)[1]
    run("lora", "diff", reference, "ink", code=2)  # its numbers are random bytes, NaN among them
    sound = made_adapters.lora(tmp_path / f"sound {NASTY}.safetensors")
    run("lora", "diff", str(sound), str(sound))
    run("lora", "resize", reference, "--rank", "2", "--name", "small", "--output", str(tmp_path / f"small {NASTY}.safetensors"), code=None)
    run("lora", "resize", str(sound), "--rank", "2", "--output", str(tmp_path / "dry.safetensors"), "--dry-run")
    target = str(tmp_path / f"sum {NASTY}.safetensors")
    run("lora", "combine", reference, "ink:0.5", "--name", "sum", "--output", target, "--dry-run", code=2)
    run("lora", "combine", str(sound), f"{sound}:0.5", "--name", "sum", "--output", target, "--dry-run")
    run(
        "lora", "fuse", "pocket", "--adapter", "ink", "--name", "fused", "--output", str(tmp_path / f"fused {NASTY}.safetensors"), code=None
    )
    run("merge", "method=lerp", f"sources=['{reference}']", f"output={tmp_path}/m.safetensors", code=2)
    run("data", "lint", str(model.parent), code=None)
    run("train", f"data.path={model.parent}", code=2)
    run("train", "base=nothing", f"data.trigger='{NASTY}'", "--dry-run", code=2)
    run("grid", f"base={NASTY!r}", "prompt=a", code=2)
    run("reproduce", str(model), code=2)
    run("doctor", code=None)
    run(NASTY, code=2)


def test_json_reads_back_as_the_same_text(run: Run, model: Path) -> None:
    run("registry", "scan", str(model.parent))
    out, _ = run("registry", "list", "--json")
    names = [one["name"] for one in json.loads(out)]
    assert model.stem in names
    assert [one["files"][0]["path"] for one in json.loads(out) if one["name"] == model.stem] == [str(model)]
    assert read_header(model).metadata["modelspec.title"] == NASTY


def test_progress_notes_errors_and_tracebacks_are_printable(capsys: pytest.CaptureFixture[str]) -> None:
    import logging
    import warnings

    from registry.errors import BadFile, Faults
    from registry.progress import Tick

    with console.progress() as report:
        report(Tick(NASTY, 0, 2, note=NASTY))
    console.listen(debug=True)
    logging.getLogger("registry").info("read %s", NASTY)
    logging.getLogger("transformers_like").warning("read %s", NASTY)
    warnings.showwarning(UserWarning(NASTY), UserWarning, NASTY, 1)
    console.fail(Faults("Refused:", [NASTY, NASTY]))
    console.fail(BadFile(NASTY, "unreadable", NASTY))
    console.fail(OSError(28, "No space left", NASTY))
    console.fail(ZeroDivisionError(NASTY))
    console.listen(debug=False)
    out, err = capsys.readouterr()
    assert not out and not CONTROL.search(err) and not re.search("^FORGED", err, re.MULTILINE)


def test_a_name_that_is_no_utf8_is_shown_by_its_bytes(capsys: pytest.CaptureFixture[str]) -> None:
    console.answer("caf\udce9.safetensors")
    console.answer_json({"path": Path("caf\udce9")})
    assert capsys.readouterr().out == 'caf\\xe9.safetensors\n{\n  "path": "caf\\udce9"\n}\n'


def test_a_table_on_a_terminal_has_no_control_character_of_a_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    console.answer_table(["name", "kind"], [[NASTY, "adapter"]])
    out = re.sub("\x1b\\[[0-9;]*m", "", capsys.readouterr().out)  # colours, which are ours
    assert SHOWN in out.replace("\n", "") and not CONTROL.search(out)
