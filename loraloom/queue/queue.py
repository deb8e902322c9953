"""One queue a home, for the commands and for pages: several servers, shells and processes may use it at once."""

from __future__ import annotations

import codecs
import logging
import os
import re
import secrets
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from loraloom.queue import folder as files
from loraloom.queue.environment import kept
from loraloom.queue.job import Job, State
from loraloom.queue.start import start_process
from registry.errors import Ambiguous, BadFile, NotFound, Refused
from registry.files.locks import open_lock, take
from registry.files.unfinished import TEMPORARY
from registry.files.write_failure import explained, make_folder
from registry.formats.atomic_file import sync_folder
from registry.home import home_dir
from registry.printable import shell_line, some

ID = re.compile(r"\d{8}-\d{6}-[0-9a-f]{4}")
ORDER = "order.json"
LOCK = ".lock"
STOPS = (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGKILL", signal.SIGTERM))  # the first stop, the second, and all after it
SECONDS_TO_BEGIN = 20.0  # until a job's process has written who it is
WITHOUT_LOCKS = (
    "The queue needs file locks (flock), which keep two jobs from running at once, and {place} has none. "
    "Run the commands one after the other in a shell instead{way}."
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Waiting:
    """The waiting jobs in their order, and whether the queue is paused."""

    ids: tuple[str, ...] = ()
    paused: bool = False


class Queue:
    """The queue of a home, by default `$LORALOOM_HOME`'s own. An id may be shortened to a unique beginning, or to its last four digits."""

    def __init__(self, home: Path | None = None) -> None:
        self.home = (home if home is not None else home_dir()).absolute()
        self.folder = self.home / "queue"

    def add(self, words: Sequence[str], *, folder: Path, first: bool = False, once: bool = False) -> Job:
        """Add a command line without its `loraloom`, to run in a working folder; started at once when nothing else runs.

        With `once`, raises Refused where a job with these words waits or runs in this folder already.
        Raises what the command itself refuses its words with: an unknown command or switch, and of train, grid and merge every setting
        that cannot be read. What only a plan finds (the base, the data) is found when the job starts: it is `refused` then.
        """
        return self._add(_checked(words, folder), first=first, once=once)

    def add_unless(self, is_same: Callable[[files.CommandLine], bool], words: Sequence[str], *, folder: Path) -> tuple[Job, bool]:
        """`add`, unless a job that waits or runs is the same: (that job, False), else (the new job, True). Raises as `add`."""
        line = _checked(words, folder)
        with self._alone():
            found = next((name for name, other in self._unfinished() if is_same(other)), None)
            job = self._put(line) if found is None else found
        return self.job(job), found is None

    def _add(self, line: files.CommandLine, *, first: bool, once: bool = False) -> Job:
        with self._alone():
            if once:
                self._refuse_twice(line)
            job = self._put(line, first=first)
        return self.job(job)

    def _refuse_twice(self, line: files.CommandLine) -> None:
        """Raise Refused where a job with these words waits or runs in this folder already."""
        for name, other in self._unfinished():
            if (other.words, other.folder) == (line.words, line.folder):
                state, more = files.state_in(self.folder / name), shell_line("loraloom", "queue", "add", *line.words)
                raise Refused(f"It is in the queue again already: the job {name} is {state}. Once more in {line.folder}: {more}")

    def _unfinished(self) -> Iterator[tuple[str, files.CommandLine]]:
        """The jobs that run and wait, with what they are to run."""
        for name, state in self._states().items():
            if state in (State.waiting, State.running):
                with suppress(BadFile, FileNotFoundError):
                    yield name, files.read_command(self.folder / name)

    def _put(self, line: files.CommandLine, *, first: bool = False) -> str:
        """A new job among those that wait, started when nothing runs; gives its id."""
        job = self._make(line)
        waiting = [name for name in self._waiting() if name != job]
        self._write(Waiting((job, *waiting) if first else (*waiting, job), self._order().paused))
        self._advance()
        return job

    def _make(self, line: files.CommandLine) -> str:
        """A new folder with its job.json, whole or not there; gives its id."""
        for left in self.folder.glob(f"{TEMPORARY}*"):  # all of them are made under the lock: a killed process left it
            shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)
        made = self.folder / f"{TEMPORARY}{secrets.token_hex(8)}"
        with explained(made):
            made.mkdir()
        try:
            files.write_command(made, line)
            while True:
                name = f"{line.created:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
                if not (self.folder / name).exists():
                    break
            os.rename(made, self.folder / name)
        except BaseException:
            shutil.rmtree(made, ignore_errors=True)
            raise
        sync_folder(self.folder)
        return name

    def jobs(self, limit: int | None = None) -> list[Job]:
        """The running job, the waiting ones in their order, and the ended ones, the newest first: the last `limit` of those, or all.

        Jobs whose files are damaged are left out, with a warning that says what to do.
        """
        states = self._states()
        ended = sorted((name for name, state in states.items() if state is None or state.has_ended), key=self._ended_at, reverse=True)
        running = [name for name, state in states.items() if state is State.running]
        found = []
        for name in [*running, *self._in_order(states), *ended[:limit]]:
            try:
                found.append(files.read_job(self.folder / name))
            except FileNotFoundError:  # removed since
                continue
            except BadFile as error:
                log.warning("%s", error)
        return found

    def find(self, id: str) -> tuple[str, State | None]:
        """The whole id of a job, and its state as `folder.state_in` gives it; also of one whose files are damaged. Raises as `job`."""
        path = self._path(id)
        return path.name, files.state_in(path)

    def job(self, id: str) -> Job:
        """One job. Raises NotFound, and Ambiguous where several ids begin so."""
        try:
            return files.read_job(self._path(id))
        except FileNotFoundError as error:
            raise NotFound(f"The job {id} was removed.") from error

    def move(self, id: str, *, before: str | None) -> None:
        """Put a waiting job before another one, or last."""
        with self._alone():
            name, waiting = self._path(id).name, self._waiting()
            target = None if before is None else self._path(before).name
            for one in filter(None, (name, target)):
                if one not in waiting:
                    raise Refused(f"The job {one} does not wait: it is {self.job(one).state}. Only waiting jobs have an order.")
            if name != target:
                waiting.remove(name)
                waiting.insert(len(waiting) if target is None else waiting.index(target), name)
                self._write(Waiting(tuple(waiting), self._order().paused))

    def stop(self, id: str, *, stops: int | None = None) -> Job:
        """Stop a running job as Ctrl-C does, so that a training saves a checkpoint first; a waiting one is taken out of the queue.

        A second stop ends the job at once (SIGTERM), a third kills it: with `stops` only where it was asked so often before. Gives the job
        as it was. Raises Refused for one that has ended.
        """
        with self._alone():
            job = self.job(id)
            if job.state is State.waiting:
                self._take_out(job.id)
            elif job.state is State.running:
                if stops is None or stops == job.stops:
                    self._signal(job)
            else:
                raise Refused(f"The job {job.id} has ended: it is {job.state}.")
        return job

    def _signal(self, job: Job) -> None:
        path = self.folder / job.id
        until = time.monotonic() + SECONDS_TO_BEGIN
        while "process" not in (begin := files.read_plain(path / files.BEGIN)):
            if files.state_in(path) is not State.running or time.monotonic() > until:
                raise Refused(f"The job {job.id} has no process yet. Try again.")
            time.sleep(0.02)
        if begin["host"] != socket.gethostname():
            raise Refused(f"The job {job.id} runs on {begin['host']}. Stop it there.")
        files.write_plain(path / files.STOPS, {"stops": job.stops + 1})
        with suppress(ProcessLookupError):  # it ends just now
            os.killpg(int(begin["process"]), STOPS[min(job.stops, len(STOPS) - 1)])

    def remove(self, id: str) -> None:
        """Remove a job with its log; what it has made stays. Raises Refused for a running one."""
        with self._alone():
            path = self._path(id)
            if files.state_in(path) is State.running:
                raise Refused(f"The job {path.name} runs. Stop it first: {shell_line('loraloom', 'queue', 'stop', path.name)}")
            self._take_out(path.name)

    def _take_out(self, name: str) -> None:
        away = self.folder / f"{TEMPORARY}{secrets.token_hex(8)}"
        with explained(self.folder / name):
            os.rename(self.folder / name, away)
        shutil.rmtree(away, ignore_errors=True)

    def resume(self, id: str) -> Job:
        """Add an ended job again: a training that did not reach its end goes on with its run folder, all else begins anew.

        Raises Refused for a job that has not ended, and where it was added again already and has not ended since.
        """
        path = self._path(id)
        job = self.job(path.name)
        if not job.state.has_ended:
            raise Refused(f"The job {job.id} has not ended: it is {job.state}.")
        line = files.read_command(path)
        again = replace(line, words=resumed_words(job), created=datetime.now(UTC))
        return self._add(again, first=False, once=True)

    def log(self, id: str, *, start: int = 0, most: int = 65536) -> tuple[str, int]:
        """What the job wrote from a byte on, at most so many bytes, and the byte to continue from. A negative start counts from the end."""
        path = self._path(id)
        ended = files.state_in(path) not in (State.waiting, State.running)
        try:
            with (path / files.LOG).open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                begin = min(start if start >= 0 else max(size + start, 0), size)
                file.seek(begin)
                data = file.read(most)
        except FileNotFoundError:
            return "", 0
        skipped = 0
        while start < 0 < begin and skipped < min(3, len(data)) and data[skipped] & 0xC0 == 0x80:  # inside of a character
            skipped += 1
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        text = decoder.decode(data[skipped:], final=ended and begin + len(data) >= size)
        return text, begin + len(data) - len(decoder.getstate()[0])

    @property
    def paused(self) -> bool:
        """Whether no waiting job is started."""
        return self._order().paused

    @property
    def stuck(self) -> bool:
        """Whether jobs wait, the queue is not paused, and nothing starts them: what watched over the last job was killed, or the machine.

        `start` does. In the seconds after a job's end the next one may be on its way, which is none of that.
        """
        states = self._states()
        if State.running in states.values() or self.paused or not self.jobs(limit=0):
            return False
        last = max((self._ended_at(name) for name, state in states.items() if state is not State.waiting), default=0)
        return time.time_ns() - last > SECONDS_TO_BEGIN * 1e9

    def pause(self) -> None:
        """Start no waiting job until `start`; the running one goes on."""
        with self._alone():
            self._write(Waiting(tuple(self._waiting()), True))

    def start(self) -> Job | None:
        """End a pause, and start the first waiting job when nothing runs; gives the job that was started."""
        with self._alone():
            self._write(Waiting(tuple(self._waiting()), False))
            return self._advance()

    def advance(self) -> Job | None:
        """Start the first waiting job when nothing runs and the queue is not paused; gives the job that was started.

        It is a process of its own that outlives whoever started it, and holds its lock when this returns.
        """
        if not self.folder.is_dir():
            return None
        with self._alone():
            return self._advance()

    # --- under the queue's lock

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """The queue's lock, held. Raises Refused where the system has no locks."""
        if os.name == "nt":
            raise Refused(WITHOUT_LOCKS.format(place="Windows", way=", or use WSL"))
        path = make_folder(self.folder) / LOCK
        with explained(path):
            descriptor = open_lock(path)
        try:
            if take(descriptor, wait=True) is None:
                raise Refused(WITHOUT_LOCKS.format(place=f"the file system of {self.folder}", way=", or set LORALOOM_HOME to a local disk"))
            yield
        finally:
            os.close(descriptor)

    def _advance(self) -> Job | None:
        states = self._states()
        if self._order().paused or State.running in states.values():
            return None
        for name in self._in_order(states):
            try:
                files.read_command(self.folder / name)
            except FileNotFoundError:
                continue
            except BadFile as error:  # it cannot run, and keeps no other from running
                log.warning("%s", error)
                continue
            start_process(self.folder / name)
            return self.job(name)
        return None

    def _waiting(self) -> list[str]:
        return self._in_order(self._states())

    # --- what lies in the folder

    def _states(self) -> dict[str, State | None]:
        """The state of each job by its id, as `folder.state_in` gives it; the oldest first."""
        return {name: files.state_in(self.folder / name) for name in self._names()}

    def _in_order(self, states: dict[str, State | None]) -> list[str]:
        """The waiting jobs in their order; those that the order does not have (their adder was killed) at the end."""
        place = {name: number for number, name in enumerate(self._order().ids)}
        waiting = [name for name, state in states.items() if state is State.waiting]
        return sorted(waiting, key=lambda name: place.get(name, len(place)))

    def _ended_at(self, name: str) -> int:
        """When end.json was written, in ns; of a lost job when it was begun."""
        for file in (files.END, files.BEGIN):
            with suppress(FileNotFoundError):
                return (self.folder / name / file).stat().st_mtime_ns
        return 0

    def _order(self) -> Waiting:
        path = self.folder / ORDER
        try:
            value = files.read_plain(path)
            return Waiting(tuple(map(str, value["waiting"])), bool(value["paused"]))
        except FileNotFoundError:
            return Waiting()
        except (BadFile, KeyError, TypeError) as error:
            raise BadFile(
                path, "damaged", "is damaged. Remove it: the waiting jobs then run in the order in which they were added."
            ) from error

    def _write(self, order: Waiting) -> None:
        files.write_plain(self.folder / ORDER, {"waiting": list(order.ids), "paused": order.paused})

    def _path(self, id: str) -> Path:
        """The folder of a job by its id, a unique beginning of it, or its last four digits."""
        names = self._names()
        found = [id] if id in names else [name for name in names if id and (name.startswith(id) or name.endswith(f"-{id}"))]
        if len(found) > 1:
            raise Ambiguous(f"{id} may be several jobs: {some(found, 8)}. Give more of it.")
        if not found:
            raise NotFound(f"There is no job {id!r} in the queue. `loraloom queue list --all` has them all.")
        return self.folder / found[0]

    def _names(self) -> list[str]:
        try:
            return sorted(name for name in os.listdir(self.folder) if ID.fullmatch(name))
        except FileNotFoundError:
            return []


def _checked(words: Sequence[str], folder: Path) -> files.CommandLine:
    """What a job is to run from now on. Raises what the command refuses its words with."""
    from loraloom.queue.check import check_words

    words, folder = check_words(words), folder.absolute()
    if not folder.is_dir():
        raise Refused(f"{folder} is no folder, and a job runs in one.")
    return files.CommandLine(words, folder, datetime.now(UTC), kept())


def resumed_words(job: Job) -> tuple[str, ...]:
    """The words that an ended job is added again with: `train resume=FOLDER` of a training without a result, else its own."""
    unfinished = [path for path in job.made if (path / "config.yaml").is_file() and not (path / "result.json").exists()]
    single = job.words[:1] == ("train",) and not {"--multirun", "-m"} & {*job.words}
    return ("train", f"resume={unfinished[-1]}") if single and unfinished else job.words
