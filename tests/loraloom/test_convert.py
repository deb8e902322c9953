"""`loraloom registry convert`, as typed."""

import json
from pathlib import Path

import pytest

from loraloom.cli import main
from tests.registry.made import diffusers_folder, lora, sd1_attention


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORALOOM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LORALOOM_POCKET", str(diffusers_folder(tmp_path / "pocket")))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def ink(tmp_path: Path) -> Path:
    path = tmp_path / "m" / "ink.safetensors"
    lora(path, sd1_attention(768, channels=48, blocks=(0,)), rank=8, alpha=4.0)
    return path


def said(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> tuple[str, str]:
    assert main(["registry", "convert", *words]) == code
    shown = capsys.readouterr()
    return shown.out, shown.err


def test_an_adapter_is_planned_converted_and_found_again(ink: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["registry", "add", "m/ink.safetensors"]) == 0
    capsys.readouterr()
    words = ("m/ink.safetensors", "--to", "kohya", "--output", "out/ink.safetensors")
    plan = json.loads(said(capsys, *words, "--dry-run", "--json")[0])
    assert (plan["from"], plan["to"], plan["family"], plan["name"]) == ("diffusers", "kohya", "sd1", "ink-kohya")
    assert not (tmp_path / "out").exists()
    out, _ = said(capsys, *words)
    assert out.splitlines()[0] == str(tmp_path / "out" / "ink.safetensors")
    assert main(["registry", "show", "ink-kohya", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["dialect"], shown["alpha"], shown["rank"]) == ("kohya", 4.0, 8)
    assert [parent["role"] for parent in shown["parents"]] == ["source"]
    assert main(["registry", "lineage", "ink-kohya"]) == 0


def test_an_existing_file_and_a_wrong_ending_are_refused_together(ink: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "there.safetensors").write_bytes(b"mine")
    _, err = said(capsys, "m/ink.safetensors", "--to", "kohya", "--output", "there.safetensors", "--name", "a b/c", code=2)
    assert "exists already" in err and "name:" in err
    assert (tmp_path / "there.safetensors").read_bytes() == b"mine"
    _, err = said(capsys, "m/ink.safetensors", "--to", "kohya", "--output", "out.bin", code=2)
    assert ".safetensors" in err
    _, err = said(capsys, "m/ink.safetensors", "--to", "koya", "--output", "out.safetensors", code=2)
    assert "kohya" in err


def test_the_command_knows_every_form() -> None:
    from loraloom.commands.registry.convert import FORMS
    from registry.converting.request import FORMS as DETECT_ONLY

    assert set(FORMS) == set(DETECT_ONLY)


def test_the_folder_of_an_export_stands_behind_the_tool_or_last(ink: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (
        ("m/ink.safetensors", "--layout", "comfyui", "tool", "--json"),
        ("m/ink.safetensors", "tool", "--json", "--layout", "comfyui"),
    ):
        assert main(["registry", "export", *words, "--dry-run"]) == 0
        plan = json.loads(capsys.readouterr().out)
        assert plan["folder"] == str(tmp_path / "tool") and plan["items"][0]["how"] == "convert"
    assert not (tmp_path / "tool").exists()
    assert main(["registry", "export", "m/ink.safetensors", "--layout", "comfyui"]) == 2
    assert main(["registry", "export", "m/ink.safetensors", "--layout", "comfy", "tool"]) == 2
    assert "comfyui" in capsys.readouterr().err
