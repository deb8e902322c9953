"""An image file is read again when it has changed, and only then."""

import os
from pathlib import Path

import pytest
from PIL import Image

from registry.formats.image_file import Decoded, Unreadable, read_image
from train.config import DataConfig
from train.data import seen
from train.data.dataset import read_set
from train.data.seen import SeenFiles


def test_a_file_is_read_again_when_it_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, reads = tmp_path / "a.png", list[int]()

    def counted(data: bytes) -> Decoded:
        reads.append(len(data))
        return read_image(data)

    monkeypatch.setattr(seen, "read_image", counted)
    Image.new("RGB", (8, 6), "red").save(file)
    known = SeenFiles()
    first, second = known.see(file), known.see(file)
    assert len(reads) == 1 and (first.sha256, first.small, first.image.size) == (second.sha256, second.small, second.image.size)
    assert vars(second)["view"] is None
    before = file.stat()
    Image.new("RGB", (8, 6), "blue").save(file)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))  # as a copy that keeps times does
    assert known.see(file).sha256 != first.sha256 and len(reads) == 2


def test_few_are_remembered_and_none_that_cannot_be_read(tmp_path: Path) -> None:
    known = SeenFiles(most=2)
    for name in "abc":
        Image.new("RGB", (4, 4), (ord(name), 0, 0)).save(tmp_path / f"{name}.png")
        known.see(tmp_path / f"{name}.png")
    assert [path.stem for path in known._known] == ["b", "c"]
    (tmp_path / "d.png").write_bytes(b"nothing")
    with pytest.raises(Unreadable):
        known.see(tmp_path / "d.png")


def test_a_set_is_the_same_when_it_is_read_again(tmp_path: Path) -> None:
    for number in range(3):
        Image.new("RGB", (8 + number, 6), (number * 40, 0, 0)).save(tmp_path / f"{number}.png")
        (tmp_path / f"{number}.txt").write_text(f"number {number}")
    config = DataConfig(path=str(tmp_path))
    first = read_set(config)
    (tmp_path / "1.txt").write_text("another caption")
    Image.new("RGB", (20, 6), "red").save(tmp_path / "2.png")
    again = read_set(config)
    assert [sample.caption for sample in again.samples] == ["number 0", "another caption", "number 2"]
    assert again.samples[0] == first.samples[0] and again.samples[2].size.width == 20 and again.sha256 != first.sha256
