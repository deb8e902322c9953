"""Commands that write to a full disk: exit code 1, one error with the path and the room, nothing left."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from loraloom import console
from loraloom.cli import main
from tests.disks import full_disk
from tests.registry.adapters.made_adapters import checkpoint, lora

COMMANDS: dict[str, Callable[[Path, Path], list[str]]] = {
    "export-notes": lambda _work, out: ["registry", "export-notes", str(out)],
    "resize": lambda work, out: ["lora", "resize", str(work / "ink.safetensors"), "--rank", "1", "--output", str(out)],
    "convert": lambda work, out: [
        *("registry", "convert", str(work / "base.safetensors"), "--to", "safetensors", "--dtype", "fp16", "--output", str(out))
    ],
    "extract": lambda work, out: [
        *("lora", "extract", str(work / "tuned.safetensors"), str(work / "base.safetensors"), "--rank", "2", "--output", str(out))
    ],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_full_disk(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("LORALOOM_HOME", str(tmp_path / "home"))
    checkpoint(tmp_path / "base.safetensors", seed=1)
    checkpoint(tmp_path / "tuned.safetensors", seed=2)
    lora(tmp_path / "ink.safetensors")
    with full_disk(tmp_path / "disk", monkeypatch) as disk:
        before = sorted(os.listdir(disk))
        out = disk / ("notes.json" if command == "export-notes" else "out.safetensors")
        assert main(COMMANDS[command](tmp_path, out)) == 1
        reported = capsys.readouterr().err
        assert f"error: {out} cannot be written: the disk is full. It needs " in reported and "fault of loraloom" not in reported
        assert sorted(os.listdir(disk)) == before


def test_a_full_standard_output(tmp_path: Path) -> None:
    environment = {**os.environ, "LORALOOM_HOME": str(tmp_path / "home"), "PYTHONPATH": os.getcwd()}
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "loraloom", "registry", "list"]
        ended = subprocess.run(command, env=environment, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (1, "error: The answer cannot be written to standard output: No space left on device.\n")


def test_what_the_system_refuses_without_a_file_is_no_fault_of_the_program() -> None:
    assert console._paragraph(OSError(errno.EIO, os.strerror(errno.EIO))) == "error: Input/output error."
    assert "fault of loraloom itself" in console._paragraph(OSError("made by hand"))
