"""Starts a job's process apart from this one: another session, no pipe between them, and the lock handed over, never let go."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from loraloom.queue import folder as files
from loraloom.queue.environment import with_own_path
from registry.errors import JobFailed, Refused
from registry.files.locks import open_lock, take
from registry.files.write_failure import explained

# -P: the working folder is not searched for modules, as it is not by `loraloom` itself
PYTHON = (sys.executable, "-P", "-m")


def start_process(job: Path) -> None:
    """Start the job in a folder. The caller holds the queue's lock. Raises JobFailed where no process can be started: it waits again.

    The lock is taken here and inherited: an open file's lock lasts until the last process that has it open ends (flock(2)), so there
    is no moment in which the job has begun and its lock is free.
    """
    with explained(job):
        descriptor = open_lock(job / files.LOCK)
        log = os.open(job / files.LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        if take(descriptor, wait=True) is None:
            raise Refused(f"{job} has no file locks (flock), which the queue needs.")
        files.write_plain(job / files.BEGIN, {"began": datetime.now(UTC).isoformat(), "host": socket.gethostname()})
        try:
            returned = subprocess.run(
                [*PYTHON, "loraloom.queue.process", str(job), str(descriptor)],
                cwd=job,
                env=with_own_path(os.environ),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(descriptor,),
                start_new_session=True,
                check=False,
            ).returncode  # it goes on in a child of its own
            reason = f"exit code {returned}, see {job / files.LOG}"
        except OSError as error:
            returned, reason = 1, str(error)
        if returned:
            (job / files.BEGIN).unlink(missing_ok=True)
            raise JobFailed(f"The process of the job {job.name} cannot be started ({reason}).")
    finally:
        os.close(descriptor)
        os.close(log)
