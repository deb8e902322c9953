"""Every command with a home on a read-only or full disk: what only reads is answered, what writes is one error that names the home."""

import argparse
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import tiny
from tests.disks import close_folder, fill, small_disk
from tests.faults.mutations import outcome_of
from tests.faults.targets import command
from tests.registry.adapters import made_adapters

ANSWERED = {  # words of a command -> its arguments; {work} has the inputs, {out} is on a disk that can be written
    "registry list": "",
    "registry show": "ink",
    "registry find": "line",
    "registry duplicates": "",
    "registry fits": "ink base",
    "registry lineage": "ink",
    "registry verify": "",
    "registry fetch": "ink",
    "registry gc": "",
    "registry export-notes": "",
    "registry export": "ink --layout comfyui {out}",
    "lora inspect": "{work}/ink.safetensors",
    "lora diff": "{work}/ink.safetensors {work}/new.safetensors",
    "data lint": "{work}/set",
    "doctor": "",
    "merge": "method=copy sources=[{work}/base.safetensors] output={out}/m.safetensors dry_run=true",
    "reproduce": "base",
    "queue list": "",
    "hint": "{work}/set/000.png --prepare edges --output {out}.png",
}
REFUSED = {
    "registry scan": "{work}",
    "registry add": "{work}/new.safetensors",
    "registry keep": "ink",
    "registry convert": "{work}/ink.safetensors --to diffusers --output {out}/c.safetensors",
    "registry tag": "ink x",
    "registry note": "ink x",
    "registry alias": "ink x",
    "registry set": "ink --licence MIT",
    "registry rm": "ink",
    "registry gc": "--apply --caches",
    "registry import-notes": "{work}/notes.json",
    "registry rebuild": "",
    "lora fuse": "{work}/base.safetensors --adapter {work}/ink.safetensors --output {out}/f.safetensors",
    "lora combine": "{work}/ink.safetensors {work}/new.safetensors --output {out}/s.safetensors",
    "lora resize": "{work}/ink.safetensors --rank 1 --output {out}/r.safetensors",
    "lora extract": "{work}/tuned.safetensors {work}/base.safetensors --rank 2 --output {out}/e.safetensors",
    "merge": "method=copy sources=[{work}/base.safetensors] output={out}/m.safetensors",
    "grid": "base={work}/tiny prompt=a steps=1 size=32 device=cpu out={out}",
    "train": "base={work}/tiny data.path={work}/set resolution=32 steps=1 lora.rank=1 preview.prompts=[] device=cpu out={out} name=x",
    "demo": "--out {out}",
    "queue add": "registry list",
    "queue pause": "",
    "queue start": "",
}


NO_HOME = {
    "data caption",
    "data edit",
    "data mask",
    "report",
    "control",
    "vote",
    "rank",
}  # they read no home, and write beside the images, into the run or the grid
OF_A_JOB = {f"queue {word}" for word in ("show", "log", "stop", "move", "remove", "resume")}
ELSEWHERE = {"judge", "choose", "score", "explain", "studio", *OF_A_JOB}
# they need a run, a grid, an image or a job, or serve until Ctrl-C: tests/train/judging/test_run.py, tests/loraloom/queue/test_queue.py,
# tests/train/choosing/test_choose.py, tests/infer/score/test_finished.py, tests/infer/explain/test_explain.py


def subcommands() -> set[str]:
    """Every command and subcommand that the command line lists."""
    from loraloom.cli import find_commands

    found = set()
    for name, module in find_commands().items():
        parser = argparse.ArgumentParser()
        inner: list[argparse.Action] = []
        if hasattr(module, "add_parser"):
            module.add_parser(parsers := parser.add_subparsers())
            inner = [one for one in parsers.choices[name]._actions if isinstance(one, argparse._SubParsersAction)]
        words = [choice.dest for one in inner for choice in getattr(one, "_choices_actions", ())]
        found |= {f"{name} {word}" for word in words} or {name}
    return found


def test_every_command_is_here() -> None:
    assert subcommands() == {*ANSWERED, *REFUSED, *NO_HOME, *ELSEWHERE}


@pytest.fixture(scope="module", params=["read-only", "full"])
def disk(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, bool]]:
    """(folder, mounted): work/ has inputs, disk/home an index of some of them. Where no disk can be mounted, both are read-only."""
    from registry.formats.atomic_file import write_json
    from registry.store import Store

    folder = tmp_path_factory.mktemp("read-only")
    work = folder / "work"
    for number, name in enumerate(("base", "tuned")):
        made_adapters.checkpoint(work / f"{name}.safetensors", seed=number)
    for number, name in enumerate(("ink", "new")):
        made_adapters.lora(work / f"{name}.safetensors", number)
    tiny.tiny_sd1(work / "tiny")
    tiny.tiny_dataset(work / "set", 2)
    with small_disk(folder / "disk", size_kib=4096) as mounted:
        store = Store(folder / "disk" / "home")
        store.add(work / "ink.safetensors", tags=["line"])
        store.add(work / "base.safetensors", kind="checkpoint", recipe={"tool": "merge", "method": "copy"})
        write_json(work / "notes.json", store.export_notes())
        for name in ("gone", "changed"):
            store.add(made_adapters.lora(work / f"{name}.safetensors", ord(name[0])))
        store.close()
        (work / "gone.safetensors").unlink()
        made_adapters.lora(work / "changed.safetensors", 5, rank=3)
        os.link(work / "ink.safetensors", work / "linked")  # its ctime is another one
        if mounted and request.param == "full":
            fill(folder / "disk")
        elif mounted:
            subprocess.run(["mount", "-o", "remount,ro", str(folder / "disk")], check=True)
        yield folder, mounted


@pytest.fixture
def home(disk: tuple[Path, bool], monkeypatch: pytest.MonkeyPatch) -> Path:
    folder, mounted = disk
    monkeypatch.setenv("LORALOOM_HOME", str(folder / "disk" / "home"))
    if not mounted:
        close_folder(folder / "disk", monkeypatch)
        monkeypatch.setattr("registry.index.sqlite.os.access", lambda *_: False)
    return folder / "disk" / "home"


def files_of(home: Path) -> set[Path]:
    """Its files beside locks and SQLite's journal: empty ones are taken by a full disk, too."""
    return {path for path in home.rglob("*") if path.is_file() and not path.name.endswith((".lock", "-wal", "-shm"))}


def words_of(name: str, arguments: str, home: Path, out: Path) -> list[str]:
    return [*name.split(), *arguments.format(work=home.parent.parent / "work", out=out).split()]


@pytest.mark.slow
@pytest.mark.parametrize("name", ANSWERED)
def test_what_reads_is_answered(name: str, home: Path, tmp_path: Path) -> None:
    outcome, shown = outcome_of(command(*words_of(name, ANSWERED[name], home, tmp_path / "out")))
    assert outcome == "done" or (name == "reproduce" and "read-only" not in shown), shown  # its recipe cannot be repeated


@pytest.mark.slow
def test_a_file_that_is_gone_or_changed_is_shown_as_it_is(home: Path) -> None:
    from registry.store import Store

    store = Store(home)
    assert store.find("ink").tags == ("line",) and store.hashed(store.find("ink")).hashes.sha256
    assert [warning.code for warning in store.find("gone").warnings] == ["missing"]
    changed = store.find("changed")
    assert changed.warnings[-1].code == "changed" and not changed.hashes.sha256
    assert store.hashed(changed).hashes.sha256 not in (None, next(one for one in store.records() if one.name == "changed").hashes.sha256)
    store.close()


@pytest.mark.slow
@pytest.mark.parametrize("name", REFUSED)
def test_what_writes_is_one_error_that_names_the_home(name: str, home: Path, tmp_path: Path) -> None:
    before = files_of(home)
    outcome, shown = outcome_of(command(*words_of(name, REFUSED[name], home, tmp_path / "out")))
    assert outcome in ("refused", "failed"), shown
    assert shown.count("error: ") == 1 and str(home) in shown
    assert re.search(r"read-only disk|disk is read-only|disk is full", shown), shown
    assert files_of(home) == before
    assert not list(tmp_path.rglob("*.safetensors")) and not list(tmp_path.rglob(".tmp-*"))
    assert outcome_of(command("registry", "show", "ink"))[0] == "done"
