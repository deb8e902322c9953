"""What is killed, and what goes on: real processes, real trainings of a tiny base."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from loraloom.queue import folder as files
from loraloom.queue.job import Job, State
from loraloom.queue.queue import Queue
from tests import tiny
from tests.patience import until

ADDER = "import sys, time; from pathlib import Path; from loraloom.queue.queue import Queue; here = Path.cwd()\n"


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Queue]:
    """A queue; whatever still runs at the end is killed."""
    found = Queue(tmp_path / "home")
    yield found
    found.pause()
    for job in found.jobs():
        if job.state is State.running:
            os.killpg(process_of(found, job), signal.SIGKILL)


def process_of(queue: Queue, job: Job) -> int:
    begin = queue.folder / job.id / files.BEGIN
    until(lambda: "process" in files.read_plain(begin))
    return int(files.read_plain(begin)["process"])


@pytest.mark.slow
def test_the_adder_and_then_the_job_are_killed_and_the_queue_goes_on(queue: Queue, tmp_path: Path) -> None:
    base, images = tiny.tiny_sd1(tmp_path / "tiny"), tiny.tiny_dataset(tmp_path / "set")
    words = ["train", f"base={base}", f"data.path={images}", "name=x", "resolution=32", "steps=3000", "lora.rank=1", "batch_size=1"]
    words += ["preview.prompts=[]", "checkpoint.every=5", "device=cpu"]
    script = f"{ADDER}q = Queue(Path({str(queue.home)!r}))\nq.add({words!r}, folder=here); q.add(['registry', 'list'], folder=here)\n"
    adder = subprocess.Popen(
        [sys.executable, "-c", script + "print('added', flush=True); time.sleep(600)"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.getcwd()},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert adder.stdout is not None and adder.stdout.readline() == "added\n"
    os.killpg(adder.pid, signal.SIGKILL)
    adder.wait()

    training, listing = queue.jobs()
    assert (training.state, listing.state) == (State.running, State.waiting)
    until(lambda: bool(queue.job(training.id).made))
    (run,) = queue.job(training.id).made
    until(lambda: len(list((run / "checkpoints").iterdir())) > 1)
    assert queue.job(training.id).progress is not None and (run / "progress.json").is_file()
    assert queue.advance() is None

    os.killpg(process_of(queue, training), signal.SIGKILL)
    until(lambda: queue.job(listing.id).state is State.done)
    lost = queue.job(training.id)
    assert (lost.state, lost.exit_code) == (State.lost, -9)

    again = queue.resume(training.id)
    assert again.words == ("train", f"resume={run}") and again.state is State.running
    until(lambda: "resuming" in queue.log(again.id)[0] and (found := queue.job(again.id).progress) is not None and found.stage == "train")
    assert f"resuming {run} after step 0 " not in queue.log(again.id)[0]
    queue.stop(again.id)
    until(lambda: queue.job(again.id).state is State.interrupted)
    assert queue.job(again.id).stops == 1 and "Stopped by SIGINT after step" in queue.log(again.id)[0]


@pytest.mark.slow
def test_several_servers_that_advance_at_once_start_one_job(queue: Queue, tmp_path: Path) -> None:
    queue.pause()
    added = [queue.add(["doctor"], folder=tmp_path).id for _ in range(3)]
    files.write_plain(queue.folder / "order.json", {"waiting": added, "paused": False})
    script = (
        f"{ADDER}from tests.patience import until\nq = Queue(Path({str(queue.home)!r}))\nprint('ready', flush=True)\n"
        "until(Path('go').exists, every=0.001)\nprint(q.advance() is not None)"
    )
    servers = [
        subprocess.Popen(
            [sys.executable, "-c", script], cwd=tmp_path, env=os.environ | {"PYTHONPATH": os.getcwd()}, stdout=subprocess.PIPE, text=True
        )
        for _ in range(5)
    ]
    for server in servers:
        assert server.stdout is not None and server.stdout.readline() == "ready\n"
    (tmp_path / "go").touch()
    assert sorted(server.communicate()[0].strip() for server in servers) == ["False"] * 4 + ["True"]
    until(lambda: all(job.state is State.done for job in queue.jobs()))
    ran = sorted((job.began, job.ended) for job in queue.jobs() if job.began and job.ended)
    assert len(ran) == 3 and all(ended <= began for (_, ended), (began, _) in pairwise(ran))
    assert [job.id for job in queue.jobs()] == [*reversed(added)]


def runs(process: int) -> bool:
    """Whether a process lives; one that has ended and is not waited for has no command line."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes() != b""
    except OSError:
        return False


@pytest.mark.slow
def test_what_a_killed_job_had_started_is_killed_with_it(queue: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import os, subprocess\n"
        "if os.environ.get('LORALOOM_JOB'):\n"  # the job's own process, as a launcher would start workers
        "    child = subprocess.Popen(['sleep', '600'])\n"
        "    open('child', 'w').write(f'{child.pid} ')\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{os.getcwd()}{os.pathsep}{tmp_path}")
    job = queue.add(["doctor"], folder=tmp_path)
    until(lambda: (tmp_path / "child").is_file() and (tmp_path / "child").read_text().endswith(" "))
    child = int((tmp_path / "child").read_text())
    os.kill(process_of(queue, job), signal.SIGKILL)  # it alone
    until(lambda: queue.job(job.id).state is State.lost)
    until(lambda: not runs(child))
    assert queue.job(job.id).state is State.lost and not runs(child)


@pytest.mark.slow
def test_a_second_stop_ends_a_job_and_a_third_kills_it(queue: Queue, tmp_path: Path) -> None:
    job = queue.add(["doctor"], folder=tmp_path)
    os.kill(process_of(queue, job), signal.SIGSTOP)  # it answers nothing
    for stops in (1, 2):
        queue.stop(job.id)
        queue.stop(job.id, stops=stops - 1)  # a second click on the same button
        assert queue.job(job.id).state is State.running and queue.job(job.id).stops == stops
    queue.stop(job.id)
    until(lambda: queue.job(job.id).state is State.lost)
