"""The lock of a run folder, which may come from somebody else."""

import errno
import os
from pathlib import Path

import pytest

from registry.errors import Refused, WriteFailed
from train.config import TrainConfig
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


def test_a_disk_that_takes_no_folder_is_named_and_no_name_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def full(_made: Path, final: Path) -> None:
        tried.append(final)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "rename", full)
    with pytest.raises(WriteFailed, match="the disk is full"):
        folder.make_folder(TrainConfig(out=str(tmp_path)), "ink", {})
    assert len(tried) == 1 and list((tmp_path / "ink").iterdir()) == []
