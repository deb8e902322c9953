"""Lock files are never followed, emptied or shared by accident."""

from pathlib import Path

import pytest

from registry.errors import Refused
from registry.files.locks import held, held_if_free, locked_while_it_lasts


def test_a_lock_file_that_is_a_link_is_refused_and_its_target_stays(tmp_path: Path) -> None:
    mine = tmp_path / "mine.txt"
    mine.write_text("mine")
    (tmp_path / "index.sqlite.lock").symlink_to(mine)
    with pytest.raises(Refused, match=r"index\.sqlite\.lock is a link"), held(tmp_path / "index.sqlite"):
        pass
    assert mine.read_text() == "mine"


def test_a_lock_file_keeps_what_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "x.lock").write_text("kept")
    with held(tmp_path / "x"), held_if_free(tmp_path / "x") as free:
        assert not free
    with held(tmp_path / "x", shared=True), held_if_free(tmp_path / "x") as free:
        assert not free
    assert (tmp_path / "x.lock").read_text() == "kept"


def test_a_passing_lock_leaves_no_file(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with locked_while_it_lasts(lock, wait=False) as mine, locked_while_it_lasts(lock, wait=False) as second:
        assert mine and not second and lock.exists()
    assert list(tmp_path.iterdir()) == []
