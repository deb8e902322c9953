"""The folders that runs make for themselves."""

from pathlib import Path

from registry.files.stamped_folder import new_folder


def test_two_folders_of_one_second_do_not_collide(tmp_path: Path) -> None:
    folders = [new_folder(tmp_path, "name") for _ in range(5)]
    assert len(set(folders)) == 5 and all(folder.is_dir() for folder in folders)
