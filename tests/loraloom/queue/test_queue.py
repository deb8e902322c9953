"""The queue's order, states, logs and refusals; few jobs are run, the rest wait in a paused queue."""

import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from loraloom.queue import folder as files
from loraloom.queue.check import check_words
from loraloom.queue.environment import job_environment, kept
from loraloom.queue.job import Job, State
from loraloom.queue.queue import Queue
from registry.errors import Ambiguous, BadFile, Faults, NotFound, Refused, UnknownName
from registry.files.locks import open_lock, take
from tests.patience import until

LIST = ("registry", "list")


@pytest.fixture
def queue(tmp_path: Path) -> Queue:
    """A paused queue: nothing is started."""
    found = Queue(tmp_path / "home")
    found.pause()
    return found


@pytest.fixture
def add(queue: Queue, tmp_path: Path) -> Callable[..., str]:
    """Adds `registry list`, or other words; gives the id."""

    def make(*words: str, first: bool = False) -> str:
        return queue.add(words or LIST, folder=tmp_path, first=first).id

    return make


def ended(queue: Queue, job: str, exit_code: int) -> None:
    """The files of a job that has ended so."""
    files.write_plain(queue.folder / job / files.BEGIN, {"began": "2026-01-01T10:00:00+00:00", "host": "here", "process": 1})
    files.write_plain(queue.folder / job / files.END, {"exit_code": exit_code, "ended": "2026-01-01T10:00:05+00:00"})


def wait_for(job: Callable[[], Job]) -> Job:
    return until(lambda: found if (found := job()).state.has_ended else None)


def test_jobs_wait_in_the_order_in_which_they_were_added_and_are_moved(queue: Queue, add: Callable[..., str]) -> None:
    one, two, three = add(), add(), add()
    last = add(first=True)
    assert [job.id for job in queue.jobs()] == [last, one, two, three]
    queue.move(last, before=None)
    queue.move(three, before=one)
    assert [job.id for job in queue.jobs()] == [three, one, two, last]
    queue.move(one, before=one)
    queue.remove(one)
    assert [job.id for job in Queue(queue.home).jobs()] == [three, two, last]
    assert {job.state for job in queue.jobs()} == {State.waiting}


def test_a_job_that_the_order_does_not_have_waits_at_the_end(queue: Queue, add: Callable[..., str]) -> None:
    one, two = add(), add()
    files.write_plain(queue.folder / "order.json", {"waiting": ["20200101-000000-0000", two], "paused": True})
    assert [job.id for job in queue.jobs()] == [two, one]
    (queue.folder / "order.json").write_text("{")
    with pytest.raises(BadFile, match=r"order\.json.*Remove it"):
        queue.jobs()


def test_an_id_may_be_shortened(queue: Queue, add: Callable[..., str]) -> None:
    one, two = add(), add()
    assert queue.job(one[-4:]).id == one or one[-4:] == two[-4:]
    assert queue.job(two).command == "loraloom registry list"
    with pytest.raises(Ambiguous, match=f"{one}, {two}|{two}, {one}"):
        queue.job(one[:8])
    for unknown in ("zzz", "", "../order.json"):
        with pytest.raises(NotFound, match="There is no job"):
            queue.job(unknown)


@pytest.mark.parametrize(
    ("exit_code", "state"), [(0, "done"), (1, "failed"), (2, "refused"), (130, "interrupted"), (-9, "lost"), (120, "failed")]
)
def test_the_state_follows_from_the_exit_code(exit_code: int, state: str, queue: Queue, add: Callable[..., str]) -> None:
    job = add()
    ended(queue, job, exit_code)
    found = queue.job(job)
    assert (found.state.value, found.exit_code) == (state, exit_code) and found.began is not None and found.ended is not None
    with pytest.raises(Refused, match="has ended"):
        queue.stop(job)
    with pytest.raises(Refused, match="does not wait"):
        queue.move(job, before=None)


def test_a_job_that_begun_and_has_neither_lock_nor_end_is_lost(queue: Queue, add: Callable[..., str]) -> None:
    job = add()
    files.write_plain(queue.folder / job / files.BEGIN, {"began": "2026-01-01T10:00:00+00:00", "host": "here"})
    assert queue.job(job).state is State.lost
    again = queue.resume(job)
    assert again.state is State.waiting and again.words == LIST and again.id != job
    with pytest.raises(Refused, match="has not ended"):
        queue.resume(again.id)


def test_a_training_goes_on_with_its_run_folder(queue: Queue, add: Callable[..., str], tmp_path: Path) -> None:
    job = add("train", "base=x", "data.path=y", "lora.rank=2")
    run = tmp_path / "runs" / "a, b" / "20260101-000000"
    run.mkdir(parents=True)
    (run / "config.yaml").touch()
    (queue.folder / job / "made.jsonl").write_text(json.dumps(str(run)) + "\n")
    ended(queue, job, 130)
    assert queue.job(job).made == (run,)
    again = queue.resume(job)
    assert again.words == ("train", f"resume={run}")
    with pytest.raises(Refused, match=rf"in the queue again already: the job {again.id} is waiting.*queue add train 'resume="):
        queue.resume(job)
    queue.remove(again.id)
    assert queue.resume(job).words == again.words
    (run / "result.json").touch()
    assert queue.resume(job).words == ("train", "base=x", "data.path=y", "lora.rank=2")


@pytest.mark.parametrize(
    ("words", "error", "text"),
    [
        ((), Refused, "A job is a command line"),
        (("--help",), Refused, "A job is a command line"),
        (("trian",), UnknownName, "Did you mean 'train'"),
        (("queue", "list"), Refused, "cannot be a job: it is about the queue itself"),
        (("doctor", "--jsno"), Refused, "Did you mean '--json'"),
        (("registry",), Refused, "arguments are required"),
        (("train", "stpes=5", "lora.rnk=3"), Faults, "(?s)Did you mean 'steps'.*lora.rank"),
        (("grid", "prompt=a", "steps=many"), Faults, "steps"),
        (("train", "--multirun", "stpes=1,2"), Faults, "Did you mean 'steps'"),
        (("train", "--help"), Refused, "without `queue add`"),
        (("doctor", "a\0b"), Refused, "NUL"),
        (("loraloom", "train", "steps=5"), Refused, "Leave out `loraloom`: loraloom queue add train steps=5"),
        (("vote", "grid"), Refused, "it serves a page until Ctrl-C. Give one of --html FILE"),
        (("choose", "runs/a/b", "--seeds", "3"), Refused, "it serves a page until Ctrl-C. Give one of --no-vote"),
    ],
)
def test_words_are_refused_early_by_the_command_itself(
    words: tuple[str, ...], error: type[Refused], text: str, queue: Queue, tmp_path: Path
) -> None:
    with pytest.raises(error, match=text):
        queue.add(words, folder=tmp_path)
    assert queue.jobs() == []


@pytest.mark.slow
def test_threads_of_a_server_may_check_words_at_once() -> None:
    words = ("train", "experiment=ink", "lora.rank=3")
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(check_words, [words] * 8)) == {words}


def test_a_job_needs_its_working_folder(queue: Queue, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="is no folder"):
        queue.add(LIST, folder=tmp_path / "gone")


def test_a_log_is_read_in_pieces_that_end_with_a_character(queue: Queue, add: Callable[..., str]) -> None:
    job = add()
    assert queue.log(job) == ("", 0)
    (queue.folder / job / "log.txt").write_bytes("aäöü".encode())
    assert queue.log(job, most=2) == ("a", 1)
    assert queue.log(job, start=1, most=5) == ("äö", 5)
    assert queue.log(job, start=5) == ("ü", 7)
    assert queue.log(job, start=7) == ("", 7) and queue.log(job, start=99) == ("", 7)
    assert queue.log(job, start=-3) == ("ü", 7) and queue.log(job, start=-99)[0] == "aäöü"
    (queue.folder / job / "log.txt").write_bytes(b"a\xc3")
    assert queue.log(job) == ("a", 1)  # the rest of the character may follow
    ended(queue, job, 0)
    assert queue.log(job) == ("a\ufffd", 2)


def test_nothing_secret_is_stored_and_the_adders_variables_are_the_jobs(tmp_path: Path) -> None:
    environment = {
        "HF_HOME": "/hub",
        "HF_TOKEN": "hf_abcdefghijklmnopqrst",
        "WANDB_API_KEY": "x",
        "LORALOOM_INDEX": "postgresql://me:secret@host/index",
        "LORALOOM_BLOBS": "s3://bucket",
        "ACCELERATE_MIXED_PRECISION": "no",
        "OMP_NUM_THREADS": "1",
        "HF_ENDPOINT": "https://user:word@mirror",
        "PATH": "/bin",
        "LORALOOM_HOME": "/other",
        "LORALOOM_JOB": "/job",
    }
    stored = kept(environment)
    assert stored == {"HF_HOME": "/hub", "LORALOOM_BLOBS": "s3://bucket", "ACCELERATE_MIXED_PRECISION": "no", "OMP_NUM_THREADS": "1"}
    own = {"HF_TOKEN": "own", "HF_HOME": "/mine", "CUDA_VISIBLE_DEVICES": "1", "PATH": "/usr/bin"}
    found = job_environment(stored, job=tmp_path / "job", home=tmp_path, own=own)
    assert found == {
        "PYTHONPATH": str(Path(__file__).parents[3]),  # a checkout is found from every working folder
        **stored,
        "HF_TOKEN": "own",
        "PATH": "/usr/bin",
        "LORALOOM_JOB": str(tmp_path / "job"),
        "LORALOOM_HOME": str(tmp_path),
    }


def test_a_list_reads_only_the_ended_jobs_that_it_shows(queue: Queue, add: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    first = add()
    line = files.read_command(queue.folder / first)
    for number in range(200):
        folder = queue.folder / f"20250101-000000-{number:04x}"
        folder.mkdir()
        (folder / files.BEGIN).write_text('{"began": "2026-01-01T10:00:00+00:00"}')
        (folder / files.END).write_text('{"exit_code": 0, "ended": "2026-01-01T10:00:05+00:00"}')
    read = []

    def read_command(job: Path) -> files.CommandLine:
        read.append(job)
        return line

    monkeypatch.setattr(files, "read_command", read_command)
    assert len(queue.jobs(limit=5)) == 6 and len(read) == 6
    assert len(queue.jobs()) == 201


@pytest.mark.slow
def test_jobs_run_one_after_the_other_without_a_server(tmp_path: Path) -> None:
    queue = Queue(tmp_path / "home")
    one = queue.add(("registry", "show", "no such model"), folder=tmp_path)
    assert one.state is State.running and one.began is not None
    two = queue.add(LIST, folder=tmp_path)
    assert two.state in (State.waiting, State.running)
    with pytest.raises(Refused, match="Stop it first"):
        queue.remove(next(job.id for job in queue.jobs() if job.state is State.running))
    assert wait_for(lambda: queue.job(two.id)).state is State.done
    found = queue.job(one.id)
    assert (found.state, found.exit_code) == (State.refused, 2)
    assert "no such model" in queue.log(one.id)[0] and "pocket" in queue.log(two.id)[0]
    assert [job.id for job in queue.jobs()] == [two.id, one.id]
    assert not list(queue.folder.glob(".tmp-*"))
    queue.remove(one.id)
    assert [job.id for job in queue.jobs()] == [two.id]


def test_a_job_whose_working_folder_is_gone_is_refused_when_it_starts(queue: Queue, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    job = queue.add(LIST, folder=tmp_path / "work")
    (tmp_path / "work").rmdir()
    started = queue.start()
    assert started is not None and started.id == job.id
    assert wait_for(lambda: queue.job(job.id)).state is State.refused
    assert "working folder" in queue.log(job.id)[0]


def test_commands_for_votes_are_jobs_where_they_serve_no_page(queue: Queue, tmp_path: Path) -> None:
    queue.pause()
    for words in (["vote", "grid", "--html", "page.html"], ["choose", "runs/a/b", "--no-vote"]):
        assert queue.add(words, folder=tmp_path).words == tuple(words)


@pytest.mark.parametrize(
    ("file", "text"), [("job.json", "{"), ("end.json", '{"exit_code": "x", "ended": "2026-01-01T00:00:00+00:00"}'), ("stops.json", "{}")]
)
def test_a_damaged_job_hides_no_other_and_is_removed(
    file: str, text: str, queue: Queue, add: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    queue.pause()
    one, two = add(), add()
    ended(queue, one, 0)
    (queue.folder / one / file).write_text(text)
    assert [job.id for job in queue.jobs()] == [two]
    assert f"loraloom queue remove {one}" in caplog.text and file in caplog.text
    assert queue.find(one)[0] == one
    queue.remove(one)
    caplog.clear()
    assert [job.id for job in queue.jobs()] == [two] and caplog.text == ""


def test_a_damaged_job_that_waits_keeps_no_other_from_running(
    queue: Queue, add: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    queue.pause()
    one, two = add(), add()
    (queue.folder / one / "job.json").write_text("{")
    started = queue.start()
    assert started is not None and started.id == two and f"loraloom queue remove {one}" in caplog.text
    assert wait_for(lambda: queue.job(two)).state is State.done and queue.find(one) == (one, State.waiting)
    assert queue.start() is None


def test_a_damaged_job_that_runs_is_what_the_others_wait_for(queue: Queue, add: Callable[..., str]) -> None:
    one, two = add(), add()
    begin = queue.folder / one / files.BEGIN
    files.write_plain(begin, {"began": "2026-01-01T10:00:00+00:00", "host": "here", "process": 1})
    files.write_plain(queue.folder / "order.json", {"waiting": [two], "paused": False})
    os.utime(begin, (0, 0))
    (queue.folder / one / "job.json").write_text("{")
    assert Queue(queue.home).stuck
    descriptor = open_lock(queue.folder / one / files.LOCK)
    try:
        assert take(descriptor, wait=True) and not queue.stuck and queue.advance() is None
    finally:
        os.close(descriptor)


def test_damaged_notes_of_a_job_are_left_out(queue: Queue, add: Callable[..., str]) -> None:
    queue.pause()
    one = add()
    deep = b"[" * 100_000
    (queue.folder / one / "made.jsonl").write_bytes(b'"/runs/a"\n\xff\xfe\n' + deep + b'\n"/runs/b"\n')
    (queue.folder / one / "progress.json").write_bytes(b'{"stage": "x", "done": 1e999, "total": 1}')
    (job,) = queue.jobs()
    assert job.made == (Path("/runs/a"), Path("/runs/b")) and job.progress is None
