"""Pipes, devices, sockets, loops and holes where a file is expected: every command answers, in words, and at once."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.mutations import limited, outcome_of
from tests.faults.targets import command
from tests.registry.adapters import made_adapters

KINDS = ("fifo", "socket", "device", "loop", "gone", "folder", "empty", "sparse", "unreadable name")


@pytest.fixture
def strange(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Path]]:
    monkeypatch.setenv("LORALOOM_HOME", str(tmp_path / "home"))
    folder = tmp_path / "models"
    folder.mkdir()
    found = {kind: folder / f"{kind}.safetensors" for kind in KINDS}
    os.mkfifo(found["fifo"])
    found["device"].symlink_to("/dev/zero")
    found["loop"].symlink_to(found["loop"].name)
    found["gone"].symlink_to("nowhere")
    found["folder"].mkdir()
    found["empty"].touch()
    with found["sparse"].open("wb") as file:
        file.truncate(1 << 33)
    found["unreadable name"] = Path(os.fsdecode(os.fsencode(folder) + b"/\xff.safetensors"))
    made_adapters.lora(folder / "sound.safetensors")
    found["unreadable name"].write_bytes((folder / "sound.safetensors").read_bytes())
    here = Path.cwd()
    os.chdir(folder)  # the name of a socket is short
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(found["socket"].name)
        os.chdir(here)
        yield found


def test_a_scan_passes_over_each_of_them(strange: dict[str, Path]) -> None:
    from registry.store import Store

    store = Store()
    with limited():
        found = store.scan(next(iter(strange.values())).parent)
    assert [record.name for record in found.records()] == ["sound"]
    assert len(found.problems) == len(KINDS) - 1  # a folder is looked into, and is empty
    store.close()


COMMANDS = (
    ("registry", "show"),
    ("registry", "add"),
    ("lora", "inspect"),
    ("lora", "resize", "--rank", "1", "--output", "o.safetensors"),
    ("registry", "convert", "--to", "kohya", "--output", "o.safetensors"),
    ("reproduce",),
    ("registry", "import-notes"),
    ("data", "lint"),
)


@pytest.mark.slow
@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("kind", KINDS)
def test_a_command_refuses_it_or_reads_it(words: tuple[str, ...], kind: str, strange: dict[str, Path], tmp_path: Path) -> None:
    split = 2 if words[0] in ("registry", "lora", "data") else 1
    rest = [word if word != "o.safetensors" else tmp_path / word for word in words[split:]]
    outcome, shown = outcome_of(command(*words[:split], strange[kind], *rest))
    assert outcome in ("refused", "done", "failed"), shown
    assert outcome == "refused" or words == ("data", "lint"), shown
