"""The texts of caption files, as Python's text files are read: marks of UTF-8 and ends of lines of every system."""

from pathlib import Path

import pytest

from train.data.sidecars import read_captions


@pytest.mark.parametrize(
    "data", [b"a hat", b"\xef\xbb\xbfa hat", b"a\r\nhat\r\n", b"a\rhat\r", b"\r\n\r\n", b"\xef\xbb\xbf", b"", "né\x85\u2028".encode()]
)
@pytest.mark.parametrize("lines", [False, True])
def test_a_caption_is_the_text_of_its_file(tmp_path: Path, data: bytes, lines: bool) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes(data)
    text = file.read_text(encoding="utf-8-sig")
    expected = tuple(line.strip() for line in text.splitlines() if line.strip()) if lines else ()
    assert read_captions(file, lines=lines) == (expected or (text,), None)


@pytest.mark.parametrize(("data", "byte"), [(b"a \xff", 2), (b"\xef\xbb\xbfa \xff", 2), (b"\xff\xfea\x00", 0)])
def test_a_file_that_is_no_utf_8_is_named_with_the_place(tmp_path: Path, data: bytes, byte: int) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes(data)
    with pytest.raises(UnicodeDecodeError) as error:
        file.read_text(encoding="utf-8-sig")
    assert error.value.start == byte
    assert read_captions(file, lines=False) == ((), f"a.txt: is not UTF-8 text (byte {byte}); save it as UTF-8")
