"""`python -m loraloom.queue.process FOLDER LOCK`: runs a job as a process of its own, writes how it ended, and starts the next one.

It stays small while the job runs, and sees how it ends, whatever ends it: a job that the system kills for its memory leaves an exit
code, and the queue goes on. The next one starts when all memory of this one is free again, on the GPU too.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from loraloom import console
from loraloom.queue import folder as files
from loraloom.queue.environment import job_environment
from loraloom.queue.job import exit_code_of
from loraloom.queue.queue import Queue
from loraloom.queue.start import PYTHON
from registry.errors import Refused
from registry.printable import one_line

POLITE = ("SIGINT", "SIGTERM", "SIGHUP")


def main(argv: Sequence[str]) -> None:
    """Leave the process that was started, which is waited for, and watch over the job in a child of it."""
    folder, descriptor = Path(argv[0]), int(argv[1])
    if os.fork():
        os._exit(0)
    console.listen(debug=False)
    asked: list[int] = []  # signals to this process: the system goes down, and starts nothing more

    def note(number: int, _frame: FrameType | None) -> None:
        asked.append(number)

    for name in POLITE:  # a handler of our own, not SIG_IGN, which the job would inherit
        signal.signal(getattr(signal, name), note)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    try:
        code = run(folder, descriptor)
        files.write_plain(folder / files.END, {"exit_code": code, "ended": datetime.now(UTC).isoformat()})
        os.close(descriptor)
        if not asked:
            Queue(folder.parents[1]).advance()
    except Exception as error:  # into the log: there is nobody else
        console.fail(error)


def run(folder: Path, descriptor: int) -> int:
    """Run the job's command line, and wait for it; gives its exit code. The lock stays with it, should this process be killed."""
    line = files.read_command(folder)
    try:
        child = subprocess.Popen(
            [*PYTHON, "loraloom", *line.words],
            cwd=line.folder,
            env=job_environment(line.environment, job=folder, home=folder.parents[1]),
            stdin=subprocess.DEVNULL,
            pass_fds=(descriptor,),
            process_group=0,  # a stop is for all of its processes, as Ctrl-C is
        )
    except OSError as error:
        gone = not line.folder.is_dir()
        reason = f"its working folder {one_line(line.folder)} is gone" if gone else str(error)
        return console.fail(Refused(f"The job was not started: {reason}."))
    begin = files.read_plain(folder / files.BEGIN)
    files.write_plain(folder / files.BEGIN, {**begin, "host": socket.gethostname(), "process": child.pid})
    code = exit_code_of(child.wait())
    if code < 0:  # killed: what it had started (workers of a sweep) is left, and may hold the GPU
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
    return code


if __name__ == "__main__":
    main(sys.argv[1:])
