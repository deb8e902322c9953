"""The journal of a set: what killed processes leave is finished or undone, and what others changed is not lost."""

import json
import os
import resource
import signal
from contextlib import nullcontext
from pathlib import Path

import pytest

from registry.errors import BadFile, JobFailed, Refused
from registry.formats.atomic_file import write_text
from registry.progress import Tick
from tests.train.data.editing.conftest import files_of, image
from train.config import DataConfig
from train.data.dataset import inspect_set
from train.data.editing import journal
from train.data.editing.operations import Add
from train.data.editing.request import EditRequest


def killed_in(folder: Path, request: EditRequest, *, after: int) -> None:
    """Make an edit in a process that kills itself after so many files."""

    def report(tick: Tick) -> None:
        if tick.done == after:
            os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if child == 0:
        try:
            request.make(report=report)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def test_several_edits_are_undone_one_by_one_also_after_a_move(photos: Path, tmp_path: Path) -> None:
    states = [files_of(photos)]
    for tag in ("x", "y", "z"):
        EditRequest(path=str(photos), operations=[Add(tag)]).make()
        states.append(files_of(photos))
    moved = photos.rename(tmp_path / "elsewhere")
    for state in reversed(states[:-1]):
        with journal.editing(moved):
            journal.undo(moved)
        assert files_of(moved) == state
    assert [edit.stage for edit in journal.history(moved)] == ["undone"] * 3
    with pytest.raises(Refused, match="no edit to undo"), journal.editing(moved):
        journal.undo(moved)


@pytest.mark.parametrize("way", [journal.finish, journal.undo], ids=["finish", "undo"])
@pytest.mark.parametrize("held", [False, True], ids=["captions", "moves"])
def test_a_killed_edit_is_finished_or_undone(photos: Path, way: object, held: bool) -> None:
    before = files_of(photos)
    request = EditRequest(path=str(photos), hold_out=["a.png", "b.png"]) if held else EditRequest(path=str(photos), operations=[Add("x")])
    killed_in(photos, request, after=2)
    assert journal.history(photos)[0].stage == "begun"
    with pytest.raises(Refused, match=r"an edit was interrupted: .* --finish finishes it, --undo takes it back"):
        EditRequest(path=str(photos), operations=[Add("y")]).make()
    with journal.editing(photos):
        way(photos)  # type: ignore[operator]
    if way is journal.undo:
        assert files_of(photos) == before
    else:
        state = files_of(photos)
        with journal.editing(photos):
            journal.undo(photos)
        assert files_of(photos) == before
        request.make()
        assert files_of(photos) == state


def test_an_undo_that_is_killed_is_finished(photos: Path) -> None:
    before = files_of(photos)
    EditRequest(path=str(photos), operations=[Add("x")]).make()

    def report(tick: Tick) -> None:
        if tick.done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), journal.editing(photos):
        journal.undo(photos, report=report)
    assert journal.history(photos)[0].stage == "undoing"
    with journal.editing(photos):
        journal.finish(photos)
    assert files_of(photos) == before


def test_what_somebody_else_changed_since_is_not_undone(photos: Path) -> None:
    EditRequest(path=str(photos), operations=[Add("x")]).make()
    (photos / "b.txt").write_text("written by hand")
    now = files_of(photos)
    with pytest.raises(Refused, match=r"(?s)changed by something else since.*b\.txt"), journal.editing(photos):
        journal.undo(photos)
    assert files_of(photos) == now
    with journal.editing(photos):
        made = journal.undo(photos, keep_changed=True)
    assert (
        made.left == ("b.txt",)
        and (photos / "b.txt").read_text() == "written by hand"
        and (photos / "a.txt").read_text() == "a, hat, red\n"
    )


@pytest.mark.parametrize("name", ["/etc/passwd", "../a.txt", "x/../../a.txt", ".loraloom-edits/lock", ""])
def test_a_journal_of_elsewhere_names_no_file_outside_the_set(photos: Path, name: str) -> None:
    EditRequest(path=str(photos), operations=[Add("x")]).make()
    (file,) = (photos / ".loraloom-edits").glob("*.jsonl")
    head, first, *rest = file.read_text().splitlines()
    file.write_text("\n".join([head, json.dumps({**json.loads(first), "file": name}), *rest]))
    with pytest.raises(BadFile, match="not a file of the set"), journal.editing(photos):
        journal.undo(photos)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"when": 1}', '{"when": "", "words": [], "images": 1}\n{"kind": "shell"}'])
def test_a_damaged_journal_is_refused(photos: Path, text: str) -> None:
    EditRequest(path=str(photos), operations=[Add("x")]).make()
    (file,) = (photos / ".loraloom-edits").glob("*.jsonl")
    file.write_text(text)
    with pytest.raises(BadFile, match=r"000001\.done\.jsonl"), journal.editing(photos):
        journal.undo(photos)


def test_training_refuses_a_set_whose_edit_was_interrupted(photos: Path) -> None:
    killed_in(photos, EditRequest(path=str(photos), operations=[Add("x")]), after=2)
    found = inspect_set(DataConfig(path=str(photos)), path=str(photos))
    assert len(found.faults) == 1 and "--finish finishes it, --undo takes it back" in found.faults[0]
    with journal.editing(photos):
        journal.undo(photos)
    assert inspect_set(DataConfig(path=str(photos)), path=str(photos)).faults == []


@pytest.mark.parametrize("undone", [False, True])
def test_nothing_is_written_through_a_linked_folder(photos: Path, tmp_path: Path, undone: bool) -> None:
    if undone:
        EditRequest(path=str(photos), operations=[Add("x")]).make()
    (photos / "heldout").rename(tmp_path / "elsewhere")
    (photos / "heldout").symlink_to(tmp_path / "elsewhere")
    before = files_of(tmp_path / "elsewhere")
    with pytest.raises(Refused, match=r"heldout is a link"), journal.editing(photos) if undone else nullcontext():
        journal.undo(photos) if undone else EditRequest(path=str(photos), hold_out=["a.png"]).make()
    assert files_of(tmp_path / "elsewhere") == before


def test_a_folder_that_cannot_be_written_to_is_found_before_anything_is_changed(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    allowed = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "heldout" and allowed(path, mode))  # root may write anywhere
    before = files_of(photos)
    with pytest.raises(Refused, match=r"heldout cannot be written to, and nothing is changed"):
        EditRequest(path=str(photos), operations=[Add("x")]).make()
    assert files_of(photos) == before and journal.history(photos) == []


def test_an_edit_that_the_disk_refuses_says_what_to_do(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file-size limit refuses the large caption alone, as a full disk would."""
    (photos / "c.txt").write_text("c, " * 20000)
    before = files_of(photos)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            whole = resource.getrlimit(resource.RLIMIT_FSIZE)
            plan = EditRequest(path=str(photos), operations=[Add("x")]).plan()
            with journal.editing(photos):

                def limited(path: Path, text: str) -> None:
                    write_text(path, text)
                    resource.setrlimit(resource.RLIMIT_FSIZE, (30000, whole[1]))

                monkeypatch.setattr(journal, "write_text", limited)
                journal.make(photos, plan.changes, words=["data", "edit"], images=4)
        except JobFailed as error:
            said = str(error)
            code = 0 if "half done" in said and "--finish finishes it, --undo takes it back" in said and "c.txt" in said else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    with journal.editing(photos):
        journal.undo(photos)
    assert files_of(photos) == before


def test_a_content_that_is_kept_no_more_is_found_before_an_undo(photos: Path) -> None:
    image(photos / "a-masklabel.png", 7)
    EditRequest(path=str(photos), unmask=["a.png"]).make()
    for kept in (photos / ".loraloom-edits" / "kept").iterdir():
        kept.unlink()
    with pytest.raises(Refused, match=r"a-masklabel\.png: what is to be put there is no longer in"), journal.editing(photos):
        journal.undo(photos)
    assert journal.history(photos)[0].stage == "done"
    with journal.editing(photos):
        made = journal.undo(photos, keep_changed=True)
    assert made.left == ("a-masklabel.png",) and made.edit.stage == "undone"


def test_a_folder_in_the_place_of_a_file_is_something_elses_change(photos: Path) -> None:
    EditRequest(path=str(photos), operations=[Add("x")]).make()
    (photos / "b.txt").unlink()
    (photos / "b.txt").mkdir()
    with pytest.raises(Refused, match=r"b\.txt"), journal.editing(photos):
        journal.undo(photos)
    with journal.editing(photos):
        assert journal.undo(photos, keep_changed=True).left == ("b.txt",)


@pytest.mark.parametrize("kept", [".loraloom-edits", ".loraloom-edits/kept"])
def test_edits_are_not_written_through_a_link(photos: Path, tmp_path: Path, kept: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (photos / kept).parent.mkdir(exist_ok=True)
    (photos / kept).symlink_to(elsewhere)
    before = files_of(photos)
    with pytest.raises(Refused, match="is a link"):
        EditRequest(path=str(photos), operations=[Add("x")]).make()
    assert list(elsewhere.iterdir()) == [] and files_of(photos) == before


HEAD = '{"when": "now", "words": [], "images": 1}'
CHANGES = {
    "no UTF-8": HEAD.encode() + b"\n\xff\xfe",
    "nested too deeply": (HEAD + "\n" + "[" * 100_000).encode(),
    "a head nested too deeply": b"[" * 100_000,
    "a number that is none": b'{"when": "now", "words": [], "images": 1e999}',
    "a text that is a number": (HEAD + '\n{"kind": "text", "file": "a.txt", "before": 5, "after": null}').encode(),
    "a name that is a number": (HEAD + '\n{"kind": "text", "file": 5, "before": "a", "after": null}').encode(),
    "a row that is a text": (HEAD + '\n{"kind": "rows", "file": "metadata.jsonl", "column": "file_name", "rows": [[]]}').encode(),
    "a place that is a text": (
        HEAD + '\n{"kind": "rows", "file": "metadata.jsonl", "column": "f", "rows": [{"before": "a", "after": "b", "place": "x"}]}'
    ).encode(),
    "a name with a NUL": (HEAD + '\n{"kind": "text", "file": "a\\u0000", "before": "a", "after": null}').encode(),
}


@pytest.mark.parametrize("data", CHANGES.values(), ids=CHANGES)
def test_a_journal_that_came_with_a_set_is_refused_by_name(data: bytes, photos: Path) -> None:
    EditRequest(path=str(photos), operations=[Add("x")]).make()
    (edit,) = journal.history(photos)
    before = files_of(photos)
    edit.file.write_bytes(data)
    with pytest.raises(BadFile, match=edit.file.name), journal.editing(photos):
        journal.undo(photos)
    assert files_of(photos) == before
