"""The lock of a run folder, which may come from somebody else."""

from pathlib import Path

import pytest

from registry.errors import Refused
from train.output import folder


def test_a_lock_that_is_a_link_is_refused_and_its_target_keeps_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(tmp_path / "mine.txt")
    with pytest.raises(Refused, match=r"\.lock is a link"), folder.held(tmp_path / "run"):
        pass
    assert (tmp_path / "mine.txt").read_text() == "mine"
    (tmp_path / "run" / ".lock").unlink()
    with folder.held(tmp_path / "run"), pytest.raises(Refused, match="in use by another process"), folder.held(tmp_path / "run"):
        pass
