"""What is printed, and where."""

import json
import logging
import re
import resource
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from loraloom import console
from registry.errors import Faults, JobFailed, Refused
from registry.progress import Tick


@pytest.mark.parametrize("count", [0, 1, 3])
@pytest.mark.parametrize("of", [None, {"added": 2, "problems": [{"path": "/a]\x1b", "code": "x"}], "none": []}])
def test_rows_written_one_by_one_are_the_same_document(
    of: dict[str, object] | None, count: int, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"name": f"ä\u2028{number}\n", "empty": [], "deep": {"a": [1, {"b": Path("/x")}]}} for number in range(count)]
    console.answer_json(rows if of is None else {**of, "records": rows})
    whole = capsys.readouterr().out
    console.answer_json_parts(iter(rows), of=of, key="records")
    assert capsys.readouterr().out == whole


@pytest.mark.parametrize("form", ["rows", "parts", "report"])
def test_an_error_leaves_no_document_that_is_cut(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    def rows() -> Iterator[object]:
        yield from ({"name": "x" * 1000, "number": number} for number in range(400))  # more than is kept in memory
        raise JobFailed("a row cannot be read")

    def write(rows: Iterator[object]) -> None:
        if form == "rows":
            console.answer_json_rows(rows)
        else:
            console.answer_json_parts(rows, of={"added": 2} if form == "report" else None, key="records")

    with pytest.raises(JobFailed, match="a row cannot be read"):
        write(rows())
    assert capsys.readouterr().out == ""
    write(islice(rows(), 400))
    found = json.loads(capsys.readouterr().out)
    assert [row["number"] for row in (found["records"] if form == "report" else found)] == [*range(400)]


@pytest.mark.parametrize("count", [280, 400])  # the last of what is written fails when the document is read, or a row in the middle
def test_a_document_that_finds_no_room_says_where(count: int, capsys: pytest.CaptureFixture[str]) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 18, before[1]))
    try:
        with pytest.raises(
            JobFailed, match=r"^The answer cannot be kept in \S+ until it is whole: File too large\. Make room, or set TMPDIR"
        ):
            console.answer_json_rows("x" * 1000 for _ in range(count))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert capsys.readouterr().out == ""


def test_a_document_says_so_where_no_temporary_folder_can_be_written_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/nowhere"])  # on a system that is read only
    with pytest.raises(
        JobFailed, match=r"^The answer cannot be kept in a temporary folder until it is whole: No usable temporary directory"
    ):
        console.answer_json_rows("x" * 1000 for _ in range(400))


def test_answers_go_to_stdout_and_notes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    console.answer("yes")
    console.say("by the way [red]not markup[/red]")
    assert capsys.readouterr() == ("yes\n", "by the way [red]not markup[/red]\n")


def test_json_is_one_document_with_paths_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    console.answer_json({"path": Path("a/ü.png"), "none": None})
    text = capsys.readouterr().out
    assert json.loads(text) == {"path": "a/ü.png", "none": None}
    assert "ü" in text


def test_a_table_that_no_terminal_reads_is_plain(capsys: pytest.CaptureFixture[str]) -> None:
    console.answer_table(["name", "rank"], [["a long name, never cut " * 20, 4], ["b", None]])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "a long name, never cut " * 20 + "  4"
    assert lines[2] == "b"


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (Refused("No such base."), 2, "error: No such base.\n"),
        (Faults("Refused:", ["one", "two"]), 2, "error: Refused:\n  - one\n  - two\n"),
        (JobFailed("Disk full."), 1, "error: Disk full.\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (PermissionError(13, "Permission denied", "/x"), 1, "error: /x: Permission denied.\n"),
        (ZeroDivisionError("by zero"), 1, "error: ZeroDivisionError: by zero\nThis is a fault of loraloom itself; --debug shows where.\n"),
    ],
)
def test_an_error_is_one_paragraph_and_an_exit_code(error: BaseException, code: int, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert console.fail(error) == code
    assert capsys.readouterr().err == text


def test_only_the_first_process_prints_and_any_may_fail(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("RANK", "1")
    console.answer("twice")
    console.say("twice")
    assert console.fail(Refused("reported by the first")) == 2
    assert console.fail(JobFailed("Rank 1 ran out of memory.")) == 1
    assert capsys.readouterr() == ("", "error: Rank 1 ran out of memory.\n")


def test_progress_without_a_terminal_is_the_first_and_last_line_of_a_stage(capsys: pytest.CaptureFixture[str]) -> None:
    with console.progress() as report:
        for step in range(101):
            report(Tick("train", step, 100, values={"loss": 0.12345}))
        report(Tick("write", 1, 1, note="sheet"))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "train 0/100  loss 0.1235"
    assert re.fullmatch(r"train 100/100  loss 0\.1235  \S+/s  0:00", lines[1])
    assert lines[2:] == ["write 1/1  sheet"]


def test_progress_lines_tell_rate_and_time_left(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now = iter([0.0, 4.0, 20.0])
    monkeypatch.setattr("loraloom.console.time.monotonic", lambda: next(now))
    with console.progress() as report:
        for done in (0, 20, 100):
            report(Tick("train", done, 1000))
    assert capsys.readouterr().err.splitlines() == ["train 0/1000", "train 100/1000  5/s  3:00 left"]


def test_the_last_step_has_one_line_however_long_what_follows_it_reports(capsys: pytest.CaptureFixture[str]) -> None:
    with console.progress() as report:
        for done, note in ((0, ""), (100, ""), (100, "measuring held-out loss"), (100, "measuring held-out loss")):
            report(Tick("train", done, 100, note=note))
    assert [line.split("  ")[0] for line in capsys.readouterr().err.splitlines()] == ["train 0/100", "train 100/100"]


def test_a_stage_that_begins_again_is_timed_anew(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now = iter([0.0, 2.0, 100.0, 102.0])
    monkeypatch.setattr("loraloom.console.time.monotonic", lambda: next(now))
    with console.progress() as report:
        for done in (4, 8, 4, 8):
            report(Tick("previews", done, 8))
    assert capsys.readouterr().err.splitlines() == ["previews 4/8", "previews 8/8  2/s  0:02"] * 2


def test_progress_on_a_terminal_is_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setattr(console, "_stderr", lambda: Console(stderr=True, force_terminal=True, width=120))
    with console.progress() as report:
        report(Tick("train", 1, 4, values={"loss": 0.5}))
        console.say("a note [above] the bar")
        report(Tick("train", 4, 4, values={"loss": 0.25}))
        report(Tick("train", 1, 4))  # the stage begins again
    reported = capsys.readouterr()
    assert reported.out == ""
    assert "loss 0.25" in reported.err
    assert "4/4" in reported.err
    assert "a note [above] the bar" in reported.err


def test_log_records_are_notes(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before = root.handlers, root.level
    try:
        console.listen(debug=False)
        logging.getLogger("registry.index.scanning.scan").info("3 files")
        logging.getLogger("registry.index.scanning.scan").debug("not shown")
        logging.getLogger("somebody.else").info("not shown")
        logging.getLogger("somebody.else").warning("shown")
    finally:
        root.handlers, root.level = before
    assert capsys.readouterr() == ("", "3 files\nshown\n")


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00"), (42, "0:42"), (185.2, "3:05"), (3729, "1:02:09")])
def test_seconds_as_a_clock_shows_them(seconds: float, text: str) -> None:
    assert console.spell_seconds(seconds) == text


@pytest.mark.parametrize(("count", "text"), [(512, "512 B"), (24536678, "23.4 MiB"), (2**50, "1024.0 TiB")])
def test_bytes_with_their_unit(count: int, text: str) -> None:
    assert console.spell_bytes(count) == text


def test_one_long_name_leaves_the_other_rows_as_narrow_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    console.answer_table(["name", "rank"], [["x" * 240, 4], ["b", 8]], widest=20)
    assert capsys.readouterr().out.splitlines() == ["name" + " " * 18 + "rank", "x" * 240 + "  4", "b" + " " * 21 + "8"]


def test_a_long_table_is_the_same_in_pieces(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [[f"name-{number}", "x\x1fy" if number % 2 else None, number] for number in range(11)]
    console.answer_table(["name", "text", "rank"], rows)
    whole = capsys.readouterr().out
    monkeypatch.setattr(console, "LINES", 3)
    console.answer_table(["name", "text", "rank"], iter(rows))
    assert capsys.readouterr().out == whole and whole.splitlines()[2] == "name-1   x\\x1fy  1"
