"""When progress.json is written: what others look at is at most a second old, and says nothing that is over."""

from pathlib import Path

import pytest

from registry.files import progress_file
from registry.files.progress_file import ProgressFile, read_progress
from registry.progress import Tick, silent


def test_what_a_note_says_ends_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within a second of the last write, in which a step alone is not written."""
    now = iter([10.0, 10.1, 12.0, 12.1, 12.3])
    monkeypatch.setattr(progress_file, "time", type("Clock", (), {"monotonic": lambda: next(now)}))
    report, found = ProgressFile(tmp_path / "progress.json", silent), []
    for done, note in ((1, ""), (2, ""), (2, "measuring held-out loss"), (2, "measuring held-out loss"), (2, "")):
        report(Tick("train", done, 9, note=note))
        seen = read_progress(report.path)
        assert seen is not None
        found.append((seen.done, seen.note))
    assert found == [(1, ""), (1, ""), (2, "measuring held-out loss"), (2, "measuring held-out loss"), (2, "")]
