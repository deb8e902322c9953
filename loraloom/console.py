"""The only place that prints. Answers go to stdout; everything else (progress, notes, errors) goes to stderr.

Names, paths and metadata come from other people's files: everything goes through registry/printable, which shows control characters
as escapes. What is one line here (a note, a cell of a table) stays one line, whatever it holds.

On a terminal progress is a bar; elsewhere it is a plain line now and then. Of the processes of `accelerate launch` only the
first prints; the others print their errors.
"""

import json
import logging
import os
import sys
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import cache
from importlib.util import find_spec
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from registry.errors import JobFailed, LoomError, Refused, is_out_of_memory
from registry.files.made_folders import job_folder
from registry.files.progress_file import NAME as PROGRESS
from registry.files.progress_file import ProgressFile
from registry.printable import json_printable, one_line, printable
from registry.progress import Report, Tick

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

INTERRUPTED = 130  # 128 + SIGINT, as shells have it
SECONDS_BETWEEN_LINES = 10.0  # of progress, where there is no terminal

LINES = 500  # of a table that are written at once
IN_MEMORY = 1 << 18  # characters of a document that waits to be whole
BETWEEN = "\x1f"  # cells of a row: a control character, which no cell has (registry/printable)

PACKAGES = ("registry", "infer", "train", "loraloom")  # whose log records are shown from INFO on

_debug = False  # --debug was given


def is_first() -> bool:
    """Whether this is the process that prints: rank 0, as torch.distributed names it, or the only one."""
    return os.environ.get("RANK", "0") == "0"


def answer(text: str) -> None:
    """What was asked for: one line on stdout."""
    _answer(one_line(text))


def answer_lines(text: str) -> None:
    """What was asked for, on stdout, with the lines that the text has: names in it were put on one line by registry/printable."""
    _answer(printable(text))


def answer_piece(text: str) -> None:
    """A piece of a text on stdout, which need not end with a line."""
    _answer(printable(text), end="")


def _answer(text: str, *, end: str = "\n") -> None:
    if not is_first():
        return
    try:
        print(text, end=end, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        _drop_stdout()
        raise JobFailed(f"The answer cannot be written to standard output: {error.strerror}.") from error


def _drop_stdout() -> None:
    """Nothing more goes to stdout; the interpreter flushes it once more at its end."""
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115


def answer_json(value: object) -> None:
    """One JSON document on stdout; what JSON cannot hold (paths, dates) as text."""
    _answer(json_printable(json.dumps(value, indent=2, ensure_ascii=False, default=str)))


def answer_json_rows(rows: Iterable[object]) -> None:
    """One JSON document on stdout, a list with an entry a line, of rows that are made one by one."""
    _answer_whole(_rows(rows))


def _rows(rows: Iterable[object]) -> Iterator[str]:
    begun = False
    for row in rows:
        yield (",\n" if begun else "[\n") + json_printable(json.dumps(row, ensure_ascii=False, default=str))
        begun = True
    yield "\n]\n" if begun else "[]\n"


def answer_json_parts(rows: Iterable[object], *, of: Mapping[str, object] | None = None, key: str = "") -> None:
    """The document that `answer_json` writes of the list of all rows, or of {**of, key: rows}, of rows that are made one by one."""
    _answer_whole(_parts(rows, of, key))


def _parts(rows: Iterable[object], of: Mapping[str, object] | None, key: str) -> Iterator[str]:
    around = json.dumps([] if of is None else {**of, key: []}, indent=2, ensure_ascii=False, default=str)
    begin, bracket, end = around.rpartition("]")
    margin = "\n" if of is None else "\n  "
    yield json_printable(begin)
    begun = False
    for row in rows:
        text = json.dumps(row, indent=2, ensure_ascii=False, default=str).replace("\n", f"{margin}  ")  # no string of JSON has a newline
        yield f"{',' if begun else ''}{margin}  {json_printable(text)}"
        begun = True
    yield (margin if begun else "") + bracket + end + "\n"


def _answer_whole(pieces: Iterable[str]) -> None:
    """A document on stdout once its last piece is there: an error before leaves none that is cut. A long one waits in a temporary file."""
    from tempfile import SpooledTemporaryFile

    document = SpooledTemporaryFile(IN_MEMORY, mode="w+", encoding="utf-8", errors="surrogatepass", newline="")  # noqa: SIM115
    try:
        for piece in pieces:
            with _kept_until_whole():
                document.write(piece)
        with _kept_until_whole():
            document.seek(0)
        while text := document.read(IN_MEMORY):
            _answer(text, end="")
    finally:
        with suppress(OSError):  # of a full disk: said above
            document.close()


@contextmanager
def _kept_until_whole() -> Iterator[None]:
    """Names the folder where a document finds no room."""
    import tempfile

    try:
        yield
    except OSError as error:
        where = one_line(tempfile.tempdir or "a temporary folder")  # None where no folder can be written to
        why = one_line(error.strerror or error)
        raise JobFailed(
            f"The answer cannot be kept in {where} until it is whole: {why}. Make room, or set TMPDIR to another folder."
        ) from error


def answer_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, widest: int | None = None) -> None:
    """A table on stdout: ruled on a terminal; elsewhere plain, a row a line, nothing wrapped or cut.

    `widest`: characters that a plain column is wide at most; a longer cell moves the rest of its own row.
    """
    cells = (["" if cell is None else one_line(cell) for cell in row] for row in rows)
    if not sys.stdout.isatty() or find_spec("rich") is None:  # doctor's tables are read where packages are missing
        lines = _plain_table(columns, cells, widest)
        while some := [*islice(lines, LINES)]:
            _answer("\n".join(some))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False)
    for row in cells:
        table.add_row(*map(Text, row))
    Console().print(table)


def _plain_table(columns: Sequence[str], rows: Iterable[Sequence[str]], widest: int | None) -> Iterator[str]:
    """The lines of a table. Until all widths are known a row is one text: a table may have a hundred thousand."""
    widths, texts = [0] * len(columns), []
    for row in chain([columns], rows):
        widths = [max(width, len(cell)) for width, cell in zip(widths, row, strict=True)]
        texts.append(BETWEEN.join(row))
    widths = widths if widest is None else [min(width, widest) for width in widths]
    for text in texts:
        yield "  ".join([cell.ljust(width) for cell, width in zip(text.split(BETWEEN), widths, strict=True)]).rstrip()


def say(text: str) -> None:
    """A note on stderr, one line, above the progress bar when there is one."""
    if is_first():
        _note(one_line(text))


def _note(text: str) -> None:
    text = printable(text)
    try:
        if sys.stderr.isatty():
            _stderr().print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            print(text, file=sys.stderr, flush=True)
    except BrokenPipeError:
        raise
    except OSError:  # the terminal was closed: a job goes on to keep its state
        return


def fail(error: BaseException) -> int:
    """The error as one paragraph on stderr, with its traceback under --debug; gives the exit code."""
    if _debug and not isinstance(error, BrokenPipeError):
        _note(_indented("".join(traceback.format_exception(error)).rstrip()))
    if isinstance(error, KeyboardInterrupt):
        say("interrupted")
        return INTERRUPTED
    if isinstance(error, BrokenPipeError):  # the reader of our stdout has gone: nobody to tell
        _drop_stdout()
        return 1
    if isinstance(error, Refused) and not is_first():  # the first process is refused the same
        return error.exit_code
    _note(_paragraph(error))
    return error.exit_code if isinstance(error, LoomError) else 1


def _paragraph(error: BaseException) -> str:
    if isinstance(error, LoomError):
        return f"{'interrupted' if error.exit_code == INTERRUPTED else 'error'}: {_indented(str(error))}"
    if (refusal := system_refusal(error)) is not None:
        return f"error: {refusal}"
    return f"error: {type(error).__name__}: {_indented(str(error))}\nThis is a fault of loraloom itself; --debug shows where."


def system_refusal(error: BaseException) -> str | None:
    """What the system refused, a file or memory, which is no fault of the program; None of any other error."""
    if isinstance(error, OSError) and error.errno is not None:
        where = f"{one_line(error.filename)}: " if error.filename is not None else ""
        return f"{where}{one_line(error.strerror)}."
    if is_out_of_memory(error):
        reason = one_line(str(error).partition("\n")[0]) or "MemoryError"
        return f"There is not enough memory for this ({reason}). Close other programs, or give smaller inputs."
    return None


def _indented(text: str) -> str:
    """The text with every line after the first indented: none of them looks like a message of its own."""
    first, *rest = text.split("\n")
    return "\n".join([first, *(line if line.startswith(" ") or not line else f"  {line}" for line in rest)])


class _Notes(logging.Handler):
    """Log records as notes; one logger a module, the names are for --debug."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if is_first():
                _note(_indented(self.format(record)))
        except Exception:
            self.handleError(record)


def listen(*, debug: bool) -> None:
    """Send log records to stderr: ours from INFO on, others' from WARNING on; with `debug` all of ours, and tracebacks."""
    global _debug
    _debug = debug
    handler = _Notes()
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s" if debug else "%(message)s"))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    logging.captureWarnings(True)  # warnings of libraries quote names, too
    for room in PACKAGES:
        logging.getLogger(room).setLevel(logging.DEBUG if debug else logging.INFO)


def listen_once(*, debug: bool) -> None:
    """`listen`, unless this process does already: a launcher's worker begins without it."""
    if not any(isinstance(handler, _Notes) for handler in logging.getLogger().handlers):
        listen(debug=debug)


def is_debug() -> bool:
    """Whether --debug was given."""
    return _debug


def set_verbose(loggers: object) -> None:
    """Hydra's `hydra.verbose`: true is every logger at DEBUG; Hydra itself has set those that are named one by one."""
    if loggers is True:
        for room in PACKAGES:
            logging.getLogger(room).setLevel(logging.DEBUG)


@contextmanager
def progress() -> Iterator[Report]:
    """A Report that draws: a bar for each stage on a terminal, else a line now and then. A job of the queue writes progress.json, too."""
    job = job_folder() if is_first() else None
    with nullcontext() if not (sys.stderr.isatty() and is_first()) else _bars() as bars:
        shown: Report = _Lines() if bars is None else _Bars(bars)
        yield shown if job is None else ProgressFile(job / PROGRESS, shown)


class _Lines:
    """A line at the first and last tick of a stage, and at most every SECONDS_BETWEEN_LINES between."""

    def __init__(self) -> None:
        self.started: dict[str, tuple[float, int]] = {}  # stage -> (when, done) of its first tick
        self.done: dict[str, int] = {}
        self.reported_at: dict[str, float] = {}

    def __call__(self, tick: Tick) -> None:
        now = time.monotonic()
        if tick.done < self.done.get(tick.stage, tick.done + 1):  # a stage that begins, or begins again
            self.started[tick.stage] = now, tick.done
            self.reported_at.pop(tick.stage, None)
        ends = tick.done >= tick.total > 0 and self.done.get(tick.stage) != tick.done
        self.done[tick.stage] = tick.done
        last = self.reported_at.get(tick.stage)
        if last is None or now - last >= SECONDS_BETWEEN_LINES or ends:
            self.reported_at[tick.stage] = now
            say(self._line(tick, now))

    def _line(self, tick: Tick, now: float) -> str:
        began, first = self.started[tick.stage]
        parts = [f"{tick.stage} {tick.done}/{tick.total}" if tick.total else f"{tick.stage} {tick.done}", spell_values(tick.values)]
        seconds, done = now - began, tick.done - first
        if done > 0 and seconds > 0:
            parts.append("" if any(name.endswith("/s") for name in tick.values) else f"{done / seconds:.3g}/s")
            left = (tick.total - tick.done) * seconds / done if tick.seconds_left is None else tick.seconds_left
            parts.append(f"{spell_seconds(left)} left" if left > 0 else spell_seconds(seconds))
        return "  ".join(part for part in [*parts, tick.note] if part)


class _Bars:
    """One bar a stage; a stage that begins again gets a new one."""

    def __init__(self, bars: "Progress") -> None:
        self.bars = bars
        self.tasks: dict[str, tuple[TaskID, int]] = {}

    def __call__(self, tick: Tick) -> None:
        task, done = self.tasks.get(tick.stage, (None, 0))
        if task is None or tick.done < done:
            task = self.bars.add_task(one_line(tick.stage), total=tick.total or None, values="", note="", seconds_left=None)
        self.tasks[tick.stage] = task, tick.done
        self.bars.update(
            task,
            completed=tick.done,
            total=tick.total or None,
            values=spell_values(tick.values),
            note=one_line(tick.note),
            seconds_left=tick.seconds_left,
        )


def _bars() -> "Progress":
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.text import Text

    class Left(TimeRemainingColumn):
        """What the job expects, where it says so; else rich's estimate."""

        def render(self, task: Task) -> Text:
            seconds = task.fields.get("seconds_left")
            return super().render(task) if seconds is None else Text(spell_seconds(seconds), style="progress.remaining")

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[values]}", markup=False),
        TimeElapsedColumn(),
        TextColumn("left", style="dim"),
        Left(),
        TextColumn("{task.fields[note]}", markup=False, style="dim"),
        console=_stderr(),
    )


@cache
def _stderr() -> "Console":
    from rich.console import Console

    return Console(stderr=True)


def spell_values(values: Mapping[str, float]) -> str:
    """'loss 0.1234  rate 3.2' of the numbers a Tick carries."""
    return "  ".join(f"{name} {_number(value)}" for name, value in values.items())


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def spell_seconds(seconds: float) -> str:
    """'0:42', '3:05', '1:02:09'."""
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


def spell_bytes(count: float) -> str:
    """'512 B', '23.4 MiB'."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
