"""The strict header reader: against the reference library, and by name for what is no safetensors file."""

import json
import os
import random
import re
import struct
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors

from registry.errors import BadFile
from registry.formats import safetensors_header as header_module
from registry.formats.safetensors_header import (
    DTYPE_BITS,
    HEADER_LIMIT,
    Header,
    TensorInfo,
    data_order,
    header_bytes,
    parse_header,
    read_header,
    read_header_bytes,
)
from tests.registry.made import raw_file

ONE = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


def library_names(raw: bytes) -> set[str]:
    """The tensors the reference library finds; it raises for what it refuses."""
    deserialize: Any = safetensors.deserialize
    return {name for name, _ in deserialize(raw)}


def written(folder: Path, data: bytes, name: str = "x.safetensors") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def code_of(path: Path) -> str:
    with pytest.raises(BadFile) as caught:
        read_header(path)
    assert str(path) in str(caught.value)
    return caught.value.code


def test_a_header_written_by_hand(tmp_path: Path) -> None:
    tensors = {"b": {"dtype": "F16", "shape": [2, 3], "data_offsets": [4, 16]}, "a": ONE}
    path = written(tmp_path, raw_file({"__metadata__": {"k": "v"}, **tensors}, bytes(16)))
    header = read_header(path)
    assert header.tensors == {"b": TensorInfo("F16", (2, 3)), "a": TensorInfo("F32", (1,))}
    assert header.offsets == {"b": (4, 16), "a": (0, 4)}
    assert header.metadata == {"k": "v"}
    assert header.data_start + 16 == header.file_bytes == path.stat().st_size
    assert header.tensors["b"].elements == 6


@pytest.mark.parametrize(
    ("header", "data"),
    [
        (b"{}", 0),
        (b"  {}", 0),
        (b'{"__metadata__":{"format":"pt"}}', 0),
        (b'\n{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}   ', 4),
        (json.dumps({"s": {"dtype": "F32", "shape": [], "data_offsets": [0, 4]}}).encode(), 4),
        (json.dumps({"a": ONE, "z": {"dtype": "F32", "shape": [0, 3], "data_offsets": [4, 4]}}).encode(), 4),
        (json.dumps({"z": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}, "a": ONE}).encode(), 4),
        (json.dumps({"n": {"dtype": "F4", "shape": [4], "data_offsets": [0, 2]}}).encode(), 2),
    ],
    ids=["empty", "leading space", "metadata alone", "trailing space", "scalar", "no elements behind", "no elements before", "half bytes"],
)
def test_sound_headers_are_accepted_as_the_library_does(tmp_path: Path, header: bytes, data: int) -> None:
    raw = raw_file(header, bytes(data))
    assert library_names(raw) == set(read_header(written(tmp_path, raw)).tensors)


def entry(**changes: object) -> dict[str, object]:
    return {"a": {**ONE, **changes}}


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (raw_file(entry(data_offsets=[4, 8]), bytes(8)), "hole"),
        (raw_file({"a": ONE, "b": {**ONE, "data_offsets": [2, 6]}}, bytes(6)), "overlap"),
        (raw_file({"a": ONE}, bytes(5)), "trailing-bytes"),
        (raw_file({"a": ONE}, bytes(3)), "truncated"),
        (raw_file(entry(shape=[2]), bytes(4)), "shape-mismatch"),
        (raw_file(entry(shape=[1 << 63, 4, 0], data_offsets=[0, 0])), "bad-shape"),
        (raw_file(entry(shape=[-1]), bytes(4)), "bad-shape"),
        (raw_file(entry(shape=[1.0]), bytes(4)), "bad-shape"),
        (raw_file(entry(shape=[True]), bytes(4)), "bad-shape"),
        (raw_file(entry(shape="1"), bytes(4)), "bad-shape"),
        (raw_file(entry(dtype="F8_E4M3FN"), bytes(4)), "unknown-dtype"),
        (raw_file(entry(dtype=None), bytes(4)), "unknown-dtype"),
        (raw_file(entry(data_offsets=[0, 4, 4]), bytes(4)), "bad-offsets"),
        (raw_file(entry(data_offsets=[4, 0]), bytes(4)), "shape-mismatch"),
        (raw_file(b'{"a":{"dtype":"F4","shape":[3],"data_offsets":[0,1]}}', bytes(1)), "shape-mismatch"),
        (raw_file(b'{"a":1,"a":2}'), "duplicate-key"),
        (raw_file(b'{"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}}', bytes(4)), "duplicate-key"),
        (raw_file(b'{"__metadata__":{"k":"1","k":"2"}}'), "duplicate-key"),
        (raw_file({"__metadata__": {"k": 1}}), "bad-metadata"),
        (raw_file({"__metadata__": []}), "bad-metadata"),
        (raw_file(b'{"__metadata__":{"k":"\\ud800"}}'), "bad-metadata"),
        (raw_file(b'{"a":NaN}'), "bad-header"),
        (raw_file(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"), "bad-header"),
        (raw_file(b'{"a":' + b"9" * 10_000 + b"}"), "bad-header"),
        (raw_file(b"[]"), "bad-header"),
        (raw_file(b"\xff\xfe{}"), "bad-header"),
        (raw_file(b"\xef\xbb\xbf{}"), "bad-header"),
        (raw_file(b"{}\0\0"), "bad-header"),
        (raw_file(b"{}", length=3), "truncated"),
        (raw_file(b"{}", length=HEADER_LIMIT), "truncated"),
        (raw_file(b"{}", length=HEADER_LIMIT + 1), "header-too-large"),
        (raw_file(b"{}", length=(1 << 64) - 1), "header-too-large"),
        (bytes(600), "bad-header"),
        (b"\x1f\x8b\x08\0" + bytes(40), "not-a-model"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "not-a-model"),
        (b"", "truncated"),
        (b"ab", "truncated"),
        (b"\x10\0\0\0", "truncated"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 4265146304\n", "lfs-pointer"),
        (b"<!DOCTYPE html><html><body>log in</body></html>", "not-a-model"),
        (b"\n\n  <html>", "not-a-model"),
        (b'{"error": "not found"}', "not-a-model"),
        (b"PK\x03\x04" + bytes(20) + b"archive/data.pkl" + bytes(40), "pickle"),
        (b"PK\x03\x04" + bytes(20) + b"readme.txt" + bytes(40), "not-a-model"),
        (b"\x80\x02}q\0.", "pickle"),
        (b"GGUF\x03\0\0\0" + bytes(32), "gguf"),
    ],
)
def test_what_is_wrong_has_a_name(tmp_path: Path, raw: bytes, code: str) -> None:
    assert code_of(written(tmp_path, raw)) == code


def test_pipes_folders_and_locked_files_are_unreadable(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.safetensors")
    (tmp_path / "folder.safetensors").mkdir()
    (tmp_path / "loop.safetensors").symlink_to("loop.safetensors")
    for name in ("pipe", "folder", "loop", "absent"):
        assert code_of(tmp_path / f"{name}.safetensors") == "unreadable"


@pytest.fixture
def unprivileged() -> Iterator[Path]:
    """A folder, while the process has no more rights than any user: root reads every file."""
    root = os.geteuid() == 0
    with tempfile.TemporaryDirectory() as name:  # tmp_path is closed to others
        os.chmod(name, 0o777)
        if root:
            os.seteuid(65534)  # nobody
        try:
            yield Path(name)
        finally:
            if root:
                os.seteuid(0)


def test_a_file_without_read_permission_is_unreadable(unprivileged: Path) -> None:
    path = written(unprivileged, raw_file({"a": ONE}, bytes(4)), "locked.safetensors")
    assert list(read_header(path).tensors) == ["a"]
    path.chmod(0)
    assert code_of(path) == "unreadable"


def mutated(random_: random.Random, raw: bytes) -> bytes:
    """The bytes with one thing changed: bits, a cut, an insertion, a swap of digits, the length."""
    data = bytearray(raw)
    kind = random_.randrange(6) if len(data) > 60 else 0
    place = random_.randrange(len(data))
    if kind == 0:
        data[place] ^= 1 << random_.randrange(8)
    elif kind == 1:
        del data[place:]
    elif kind == 2:
        data[place:place] = random_.randbytes(random_.randrange(1, 5))
    elif kind == 3:
        digits = [index for index, byte in enumerate(data) if 48 <= byte <= 57] or [place]
        data[random_.choice(digits)] = random_.randrange(48, 58)
    elif kind == 4:
        data[:8] = struct.pack("<Q", random_.choice([0, 1, 2, len(raw) - 8, len(raw), 1 << 40, (1 << 64) - 1]))
    else:
        marks = [index for index, byte in enumerate(data) if byte in b'{}[]:,"'] or [place]
        data[random_.choice(marks)] = random_.choice(b'{}[]:,"')
    return bytes(data)


SOUND = {
    "model.a.weight": {"dtype": "F16", "shape": [4, 2], "data_offsets": [12, 28]},
    "model.b": {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]},
    "z": {"dtype": "U8", "shape": [0], "data_offsets": [28, 28]},
}
ORDERED = {name: SOUND[name] for name in ("model.b", "model.a.weight", "z")}


def compact(header: object) -> bytes:
    return json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()


STARTS = (
    raw_file({"__metadata__": {"name": "ink", "note": "é"}, **SOUND}, bytes(range(28))),
    raw_file(compact({"__metadata__": {"name": "ink", "note": 'é " \\'}, **ORDERED}), bytes(range(28))),  # as the library writes it
    raw_file(compact(ORDERED) + b"   ", bytes(range(28))),
)


def mutations(path: Path, count: int, seed: int) -> tuple[int, int]:
    """(accepted, refused) of so many mutated files; each is read as the library reads it, or refused with a code of one word."""
    random_ = random.Random(seed)
    accepted, codes = 0, Counter[str]()
    for number in range(count):
        raw = sound = STARTS[number % len(STARTS)]
        for _ in range(random_.randrange(1, 4)):
            raw = mutated(random_, raw or sound)
        path.write_bytes(raw)
        try:
            header = read_header(path)
        except BadFile as error:
            codes[error.code] += 1
            continue
        accepted += 1
        assert library_names(raw) == set(header.tensors)  # it would raise for what it refuses
        assert header == slowly(path)
    assert all(re.fullmatch("[a-z-]+", code) for code in codes)
    return accepted, codes.total()


def slowly(path: Path) -> Header:
    """The header read entry by entry, not in the few calls that the library's own form allows."""
    size, raw = read_header_bytes(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(header_module, "_plain_header", lambda raw, file_bytes: None)
        return parse_header(raw, path=path, file_bytes=size)


@pytest.mark.slow
def test_hundreds_of_mutations_are_read_or_refused_and_never_more_than_the_library_takes(tmp_path: Path) -> None:
    accepted, refused = mutations(tmp_path / "x.safetensors", 900, 20261123)
    assert refused > 400 and accepted > 20


@pytest.mark.slow
def test_thousands_of_mutations(tmp_path: Path) -> None:
    accepted, refused = mutations(tmp_path / "x.safetensors", 12_000, 20261126)
    assert refused > 6000 and accepted > 300


def test_the_librarys_own_form_is_read_as_any_other(tmp_path: Path) -> None:
    for number, raw in enumerate(STARTS):
        path = written(tmp_path, raw, f"{number}.safetensors")
        reported, header = slowly(path), read_header(path)
        assert header == reported and list(header.tensors) == list(reported.tensors)


@pytest.mark.parametrize(
    "table",
    [
        b',"a":{"dtype":"F16","shape":[2],"data_offsets":[0,4]},:[4"b":{"dtype":"F16","shape":[2],"data_offsets",8]}}',
        b'{"a":{"dtype":"F16","shape":[4],"data_offsets":[0,08]}}',
        b'{"a":{"dtype":"F16","shape":[04],"data_offsets":[0,8]}}',
        b'{"a":{"dtype":"F16","shape":[4,],"data_offsets":[0,8]}}',
        b'{"a":{"dtype":"F16","shape":[4],"data_offsets":[+0,8]}}',
        b'{"a\n":{"dtype":"F16","shape":[4],"data_offsets":[0,8]}}'.replace(b"\\n", b"\n"),
        b'{"a":{"dtype":"F16","shape":[2],"data_offsets":[0,4]},"a":{"dtype":"F16","shape":[2],"data_offsets":[4,8]}}',
        b'{"a":{"dtype":"F16","shape":[4],"data_offsets":[0,8]}},',
        b'{"a":{"dtype":"F16","shape":[4],"data_offsets":[0,8]} }',
    ],
)
def test_the_fast_reader_takes_no_other_form(table: bytes) -> None:
    assert header_module.plain_table(table.decode(), 8) is None


def test_the_order_and_bytes_are_the_librarys() -> None:
    import torch
    from safetensors.torch import save

    tensors = {
        "z16": torch.arange(3, dtype=torch.float16),
        "b16": torch.arange(3).bfloat16(),
        "a64": torch.arange(2),
        "flag": torch.tensor([True, False]),
        "a32": torch.arange(2.0),
        "f8": torch.arange(4.0).to(torch.float8_e4m3fn),
        "Ä": torch.zeros(2, 0),
        "u8": torch.arange(5, dtype=torch.uint8),
    }
    words = {"torch.float16": "F16", "torch.bfloat16": "BF16", "torch.int64": "I64", "torch.bool": "BOOL", "torch.float32": "F32",
             "torch.float8_e4m3fn": "F8_E4M3", "torch.uint8": "U8"}  # fmt: skip
    infos = {name: TensorInfo(words[str(tensor.dtype)], tuple(tensor.shape)) for name, tensor in tensors.items()}
    expected = save(tensors, {"k": 'quote " and \n'})
    actual, order = header_bytes(infos, {"k": 'quote " and \n'})
    assert expected.startswith(actual)
    assert order == data_order(infos) == [name for name in json.loads(actual[8:]) if name != "__metadata__"]
    assert set(words.values()) <= set(DTYPE_BITS)


@pytest.mark.parametrize("length", [0x0280, 0x0380, 0x0480, 0x0580])
def test_a_header_whose_length_looks_like_a_pickle_is_read(tmp_path: Path, length: int) -> None:
    raw = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'.ljust(length)
    path = tmp_path / "model.safetensors"
    path.write_bytes(length.to_bytes(8, "little") + raw + bytes(4))
    assert list(read_header(path).tensors) == ["a"]


@pytest.mark.parametrize("form", ["{}", " {}", "{} "])
def test_a_name_longer_than_any_is_refused_in_every_form(form: str, tmp_path: Path) -> None:
    """Numbers in names are read as numbers, and Python reads none of more than 4,300 digits."""
    for length, good in ((4_096, True), (4_097, False)):
        file = written(tmp_path, raw_file(form.format(json.dumps({"1" * length: ONE}, separators=(",", ":"))).encode(), bytes(4)))
        if good:
            assert len(next(iter(read_header(file).tensors))) == length
        else:
            assert code_of(file) == "bad-header"
