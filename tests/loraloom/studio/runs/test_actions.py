"""Every button and the command line that it shows: both, on equal homes, leave the same."""

import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from loraloom.cli import main
from loraloom.queue import folder as files
from loraloom.queue.job import State
from loraloom.queue.queue import Queue
from loraloom.studio.runs.listing import glance
from loraloom.studio.runs.routes import watched_job
from tests.loraloom.studio.opened import Served, serving
from tests.loraloom.studio.runs.made import make_run
from tests.patience import until
from train.output.folder import held


def left(home: Path) -> tuple[list[tuple[tuple[str, ...], str, str]], bool]:
    """The jobs of a home in their order, and whether it is paused."""
    queue = Queue(home)
    return [(job.words, str(job.folder), job.state.value) for job in queue.jobs()], queue.paused


@pytest.fixture
def waiting(served: Served) -> list[str]:
    """Three jobs that wait in a paused queue."""
    queue = Queue(served.studio.home)
    queue.pause()
    return [queue.add(["registry", "find", name], folder=served.studio.folder).id for name in "abc"]


def check(served: Served, monkeypatch: pytest.MonkeyPatch, route: str, values: dict[str, object], words: Sequence[str]) -> None:
    copy = served.studio.home.parent / "copy"
    served.studio.home.mkdir(exist_ok=True)
    shutil.copytree(served.studio.home, copy)
    status, answer = served.post(route, **values)
    assert status == 200, answer
    monkeypatch.setenv("LORALOOM_HOME", str(copy))
    monkeypatch.chdir(served.studio.folder)
    assert main(list(words)) == 0
    assert left(served.studio.home) == left(copy)


@pytest.mark.parametrize(
    ("job", "place", "words"),
    [
        (2, "first", "queue move {2} --first"),
        (0, "last", "queue move {0} --last"),
        (2, "up", "queue move {2} --before {1}"),
        (0, "down", "queue move {0} --before {2}"),
        (1, "down", "queue move {1} --last"),
    ],
)
def test_moves(served: Served, waiting: list[str], monkeypatch: pytest.MonkeyPatch, job: int, place: str, words: str) -> None:
    check(served, monkeypatch, "runs/move", {"id": waiting[job], "place": place}, words.format(*waiting).split())


def test_removes(served: Served, waiting: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    check(served, monkeypatch, "runs/remove", {"id": waiting[1]}, ["queue", "remove", waiting[1]])
    assert len(left(served.studio.home)[0]) == 2


def test_a_waiting_job_is_taken_out(served: Served, waiting: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    check(served, monkeypatch, "runs/stop", {"id": waiting[0]}, ["queue", "stop", waiting[0]])


def test_pauses(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    check(served, monkeypatch, "runs/pause", {"paused": True}, ["queue", "pause"])
    assert served.post("runs/pause", paused=False)[1] == {"paused": False}


def test_a_run_goes_on_from_the_queue(served: Served, waiting: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_run(served.studio.folder, done=20, finished=False)
    check(served, monkeypatch, "runs/resume", {"path": str(folder)}, ["queue", "add", "train", f"resume={folder}"])
    status, refused = served.post("runs/resume", path=str(folder))
    assert status == 400 and "waits in the queue already" in refused["error"]


def test_a_run_goes_on_once_where_two_ask_at_the_same_moment(served: Served, waiting: list[str]) -> None:
    folder = make_run(served.studio.folder, done=20, finished=False)
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda _: served.post("runs/resume", path=str(folder)), range(4)))
    assert sorted(status for status, _ in answers) == [200, 400, 400, 400]


def test_a_report_is_made_by_the_queue(served: Served, waiting: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_run(served.studio.folder, done=20, finished=False)
    check(served, monkeypatch, "runs/make_report", {"path": str(folder)}, ["queue", "add", "report", str(folder)])


def test_a_report_is_made_once_however_often_it_is_asked_for(served: Served, waiting: list[str]) -> None:
    """Also where a shell has asked for it by another path; the answer is the job that makes it already."""
    folder = make_run(served.studio.folder, done=20, finished=False)
    other = make_run(served.studio.folder, "other", done=20, finished=False)
    queue = Queue(served.studio.home)
    by_hand = queue.add(["report", str(other.relative_to(served.studio.folder))], folder=served.studio.folder)
    copy = queue.add(["report", str(folder), "--output", "copy.html"], folder=served.studio.folder)  # another file
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda _: served.post("runs/make_report", path=str(folder)), range(4)))
    assert {status for status, _ in answers} == {200} and len({job["id"] for _, job in answers} - {copy.id}) == 1
    assert sorted(job["added"] for _, job in answers) == [False, False, False, True]
    status, job = served.post("runs/make_report", path=str(other))
    assert status == 200 and (job["id"], job["added"], job["state"]) == (by_hand.id, False, "waiting")
    assert [one.words[0] for one in queue.jobs()].count("report") == 3
    queue.remove(by_hand.id)
    assert served.post("runs/make_report", path=str(other))[1]["added"]


@pytest.mark.slow
def test_jobs_that_nothing_starts_are_said_and_started(
    served: Served, waiting: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What watched over the first job was killed: it left no end.json, and started no other one."""
    queue, (killed, *others) = Queue(served.studio.home), waiting
    begin = queue.folder / killed / files.BEGIN
    files.write_plain(begin, {"began": "2026-01-01T10:00:00+00:00", "host": "here", "process": 1})
    files.write_plain(queue.folder / "order.json", {"waiting": others, "paused": False})
    assert not queue.stuck  # the next one may be on its way
    os.utime(begin, (0, 0))
    with serving(served.studio.folder, home=served.studio.home, read_only=True) as sealed:
        assert glance(sealed.studio)["stuck"] and sealed.get("runs/list")[1]["stuck"]
        watched_job(sealed.studio, others[0])
        assert queue.job(others[0]).state is State.waiting
    monkeypatch.setenv("LORALOOM_HOME", str(served.studio.home))
    assert main(["queue", "list"]) == 0 and "Go on: loraloom queue start" in capsys.readouterr().err
    watched_job(served.studio, others[1])
    assert queue.job(others[0]).state is not State.waiting and not queue.stuck
    until(lambda: all(queue.job(one).state is State.done for one in others))
    assert main(["queue", "list"]) == 0 and "queue start" not in capsys.readouterr().err


@pytest.mark.parametrize("what", ["save", "sample", "stop"])
def test_a_training_is_asked(served: Served, what: str) -> None:
    mine, other = make_run(served.studio.folder, "a", finished=False), make_run(served.studio.folder, "b", finished=False)
    assert served.post("runs/ask", path=str(mine), what=what)[0] == 400  # nobody trains there
    with held(mine), held(other):
        assert served.post("runs/ask", path=str(mine), what=what)[0] == 200
        assert main(["control", str(other), what]) == 0
        assert served.post("runs/ask", path=str(mine), what="dance")[0] == 400
    assert [one.name for one in (mine / "requests").iterdir()] == [one.name for one in (other / "requests").iterdir()] == [what]


def test_nothing_is_changed_by_a_read_only_studio(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    with serving(tmp_path / "work", home=tmp_path / "home", read_only=True) as sealed:
        for route in ("stop", "remove", "move", "again", "resume", "pause", "ask", "make_report"):
            assert sealed.post(f"runs/{route}", id="x")[0] == 403
        assert sealed.post("new_run/start", words=["data.path=x"])[0] == 403
        assert sealed.get("runs/list")[0] == 200 and not (tmp_path / "home" / "queue").exists()
