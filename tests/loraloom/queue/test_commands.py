"""`loraloom queue ...` as a person and a program meet it. The queue is paused but for what is started."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loraloom.cli import main
from loraloom.queue import folder as files
from loraloom.queue.queue import Queue
from registry.files.made_folders import VARIABLE, note_made
from registry.files.progress_file import NAME, ProgressFile
from registry.progress import Tick, silent

KEYS = ["id", "state", "command", "words", "folder", "created", "began", "ended", "exit_code", "made", "progress", "stops"]
Say = Callable[..., str]


@pytest.fixture
def say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Say:
    """Runs `loraloom queue` with these words, in an empty home and folder, and gives its stdout; the exit code must be that."""
    monkeypatch.setenv("LORALOOM_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)

    def run(*words: str, code: int = 0) -> str:
        assert main(["queue", *words]) == code, capsys.readouterr().err
        shown = capsys.readouterr()
        return shown.out if code == 0 else shown.err

    run("pause")
    return run


def jobs(say: Say, *words: str) -> list[dict[str, Any]]:
    found = json.loads(say("list", "--json", *words))
    assert list(found) == ["paused", "jobs"] and found["paused"] is True
    assert all(list(job) == KEYS for job in found["jobs"])
    return list(found["jobs"])


def test_jobs_are_added_listed_moved_shown_and_removed(say: Say, tmp_path: Path) -> None:
    one = say("add", "registry", "list", "--json").strip()
    two = json.loads(say("add", "--json", "grid", "prompt=a cat"))
    assert list(two) == KEYS and two["command"] == "loraloom grid 'prompt=a cat'" and two["folder"] == str(tmp_path)
    three = say("add", "--first", "--", "doctor").strip()
    assert [job["id"] for job in jobs(say)] == [three, one, two["id"]]
    assert jobs(say)[1]["words"] == ["registry", "list", "--json"]
    say("move", two["id"], "--first")
    say("move", three, "--last")
    say("move", one, "--before", two["id"])
    assert [job["id"] for job in jobs(say)] == [one, two["id"], three]
    table = say("list").splitlines()
    assert table[0].split() == ["id", "state", "progress", "command"] and table[1].split()[:2] == [one, "waiting"]
    assert json.loads(say("show", one, "--json"))["state"] == "waiting"
    assert "loraloom registry list" in say("show", one) and say("log", one) == ""
    assert "taken out" in say("stop", one)
    say("remove", two["id"], three)
    assert jobs(say) == []


def test_the_last_ten_that_ended_are_listed_and_all_of_them(say: Say, tmp_path: Path) -> None:
    for _ in range(12):
        job = tmp_path / "home" / "queue" / say("add", "doctor").strip()
        files.write_plain(job / files.BEGIN, {"began": "2026-01-01T10:00:00+00:00", "host": "here", "process": 1})
        files.write_plain(job / files.END, {"exit_code": 1, "ended": "2026-01-01T10:00:05+00:00"})
    assert len(jobs(say)) == 10 and len(jobs(say, "--all")) == 12
    last = jobs(say)[0]
    assert (last["state"], last["exit_code"], last["ended"]) == ("failed", 1, "2026-01-01T10:00:05+00:00")
    assert "failed (exit code 1)" in say("show", last["id"])
    assert json.loads(say("resume", last["id"], "--json"))["words"] == ["doctor"]


def test_what_a_job_does_is_shown_while_it_runs(say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same functions that a job's process calls, here for a folder whose lock this process has."""
    job = tmp_path / "home" / "queue" / say("add", "doctor").strip()
    files.write_plain(job / files.BEGIN, {"began": "2026-01-01T10:00:00+00:00", "host": "here"})
    from registry.files.locks import locked

    with locked(job / files.LOCK, wait=False) as granted:
        assert granted
        monkeypatch.setenv(VARIABLE, str(job))
        note_made(tmp_path / "runs" / "ä" / "1")
        note_made(tmp_path / "runs" / "ä" / "1")
        report = ProgressFile(job / NAME, silent)
        report(Tick("train", 0, 10))
        report(Tick("train", 5, 10, values={"loss": float("nan")}, seconds_left=5.0))  # within a second of the last: not written
        (found,) = jobs(say)
        assert (found["state"], found["made"]) == ("running", [str(tmp_path / "runs" / "ä" / "1")])
        assert found["progress"] == {
            "stage": "train",
            "done": 0,
            "total": 10,
            "values": {},
            "note": "",
            "seconds_left": None,
            "at": found["progress"]["at"],
        }
        report.written -= 1
        report(Tick("train", 6, 10, values={"loss": float("nan")}, seconds_left=65.0))
        assert jobs(say)[0]["progress"]["values"] == {"loss": None}
        assert "train 6/10  1:05 left" in say("list")
        assert "runs, and nothing was removed" in say("remove", job.name, code=2)
        (job / files.LOG).write_bytes("step 1\x1b[2J\nstep ä".encode())
        assert say("log", job.name) == "step 1\\x1b[2J\nstep ä"
    assert jobs(say)[0]["state"] == "lost"
    assert jobs(say)[0]["progress"]["done"] == 6


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["add"], "A job is a command line without its `loraloom`"),
        (["add", "train", "stpes=4"], "Did you mean 'steps'"),
        (["show", "2026"], "There is no job '2026' in the queue"),
        (["move", "2026"], "one of the arguments --first --last --before is required"),
        ([], "arguments are required: WHAT"),
    ],
)
def test_a_refusal_is_exit_code_2(words: list[str], answer: str, say: Say) -> None:
    assert answer in say(*words, code=2)


def test_where_there_are_no_locks_nothing_is_queued(say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loraloom.queue.queue.take", lambda *_, **_given: None)  # what a network file system without locks gives
    assert "needs file locks (flock)" in say("add", "doctor", code=2)
    assert jobs(say) == []


def test_gc_leaves_the_queue_alone(say: Say, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = tmp_path / "home" / "queue" / say("add", "doctor").strip()
    (job / ".tmp-0123456789abcdef").touch()
    before = sorted(Queue(tmp_path / "home").folder.rglob("*"))
    assert main(["registry", "gc", "--apply", "--caches", "--missing"]) == 0
    assert sorted(Queue(tmp_path / "home").folder.rglob("*")) == before


def test_a_damaged_job_is_named_and_removed(say: Say, tmp_path: Path) -> None:
    one, two = say("add", "doctor").strip(), say("add", "doctor").strip()
    (tmp_path / "home" / "queue" / one / "job.json").write_text("{")
    assert [job["id"] for job in jobs(say)] == [two]
    assert f"loraloom queue remove {one}" in say("show", one, code=2)
    say("remove", one)
    assert say("show", one, code=2).startswith("error: There is no job")
