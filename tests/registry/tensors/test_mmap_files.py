"""Memory-mapped tensors: the elements of a range, in whatever parts and orientation they are stored, and files that change."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torch import Tensor

from registry.errors import BadFile, JobFailed, Refused
from registry.formats.atomic_file import torch_dtype, write_safetensors
from registry.formats.safetensors_header import TensorInfo
from registry.tensors.layout import Stored, joined, read_layout
from registry.tensors.mmap_files import KeyChunks, MappedFiles

MATRIX = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])


def stored(path: Path, value: Tensor) -> Stored:
    """A file with one tensor, `x`."""
    write_safetensors(path, {"x": value}, metadata={})
    return read_layout(path).tensors["x"]


def test_a_range_of_a_tensor_is_read_in_its_own_dtype(tmp_path: Path) -> None:
    one = stored(tmp_path / "a.safetensors", MATRIX.bfloat16())
    found = MappedFiles([one.file]).tensor(one, 1, 3)
    assert found.dtype == torch.bfloat16 and found.tolist() == [2.0, 3.0, 4.0]


def test_an_empty_tensor_is_read(tmp_path: Path) -> None:
    one = stored(tmp_path / "a.safetensors", torch.zeros(0, dtype=torch.float16))
    found = MappedFiles([one.file]).tensor(one, 0, 0)
    assert (found.dtype, found.numel()) == (torch.float16, 0)


def test_raw_bytes_are_those_of_the_file(tmp_path: Path) -> None:
    one = stored(tmp_path / "a.safetensors", MATRIX)
    assert bytes(MappedFiles([one.file]).raw(one, 4, 8)) == torch.tensor(2.0).numpy().tobytes()


def test_a_transposed_tensor_is_read_by_its_own_rows(tmp_path: Path) -> None:
    one = stored(tmp_path / "a.safetensors", MATRIX).transposed()
    maps = MappedFiles([one.file])
    assert one.info.shape == (3, 2) and maps.tensor(one, 0, 6).tolist() == [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]
    assert maps.tensor(one, 3, 2).tolist() == [5.0, 3.0]


def test_parts_in_several_files_are_one_tensor(tmp_path: Path) -> None:
    first, second = stored(tmp_path / "a.safetensors", MATRIX), stored(tmp_path / "b.safetensors", MATRIX + 10)
    both = joined([first.rows(1, 2), second])
    maps = MappedFiles(both.files)
    assert both.info.shape == (3, 3) and maps.tensor(both, 0, 9).tolist() == [4.0, 5.0, 6.0, 11.0, 12.0, 13.0, 14.0, 15.0, 16.0]
    assert maps.tensor(both, 2, 3).tolist() == [6.0, 11.0, 12.0]


def test_a_tensor_at_an_unaligned_offset_is_read(tmp_path: Path) -> None:
    path = tmp_path / "raw"
    path.write_bytes(b"\0" + MATRIX.numpy().tobytes())
    one = Stored(path, 1, TensorInfo("F32", (2, 3)))
    assert MappedFiles([path]).tensor(one, 0, 6).tolist() == MATRIX.reshape(-1).tolist()


def test_writing_to_a_tensor_does_not_change_the_file(tmp_path: Path) -> None:
    one = stored(tmp_path / "a.safetensors", MATRIX)
    before = one.file.read_bytes()
    MappedFiles([one.file]).tensor(one, 0, 6).zero_()
    assert one.file.read_bytes() == before


def test_a_file_that_changes_or_disappears_fails_the_job(tmp_path: Path) -> None:
    one = stored(tmp_path / "a.safetensors", MATRIX)
    maps = MappedFiles([one.file])
    maps.check()
    os.utime(one.file, ns=(1, 1))
    with pytest.raises(JobFailed, match="changed while it was read"):
        maps.check()
    one.file.unlink()
    with pytest.raises(JobFailed, match="went away"):
        maps.check()


def test_a_file_that_cannot_be_opened_is_a_bad_file(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    for name in ("absent", "empty"):
        with pytest.raises(BadFile, match="cannot be mapped"):
            MappedFiles([tmp_path / name])


def test_chunks_of_a_key_are_blocks_of_every_source_in_the_wanted_dtype(tmp_path: Path) -> None:
    one, two = stored(tmp_path / "a.safetensors", MATRIX.half()), stored(tmp_path / "b.safetensors", -MATRIX)
    chunks = KeyChunks(MappedFiles([one.file, two.file]), (one, two), dtype=torch.float64, count=6, scratch=0, step=4, shape=(2, 3))
    assert [[tensor.tolist() for tensor in chunk] for chunk in chunks] == [
        [[1.0, 2.0, 3.0, 4.0], [-1.0, -2.0, -3.0, -4.0]],
        [[5.0, 6.0], [-5.0, -6.0]],
    ]
    assert [chunk[0].tolist() for chunk in chunks.pick(1)] == [[-1.0, -2.0, -3.0, -4.0], [-5.0, -6.0]]
    assert next(iter(chunks))[0].dtype == torch.float64


def test_blocks_are_the_chunks_of_a_range_whatever_the_form_that_they_are_stored_in(tmp_path: Path) -> None:
    values = torch.arange(35.0).reshape(7, 5)
    whole, turned = stored(tmp_path / "a.safetensors", values.half()), stored(tmp_path / "b.safetensors", -values.T.contiguous())
    parts = joined([whole.rows(0, 3), whole.rows(3, 7)])
    maps = MappedFiles([whole.file, turned.file])
    chunks = KeyChunks(maps, (whole, turned.transposed(), parts), dtype=torch.float32, count=35, scratch=0, step=8, shape=(7, 5))
    found = [(first, [tensor.tolist() for tensor in tensors]) for first, tensors in chunks.blocks(8, 20)]
    flat = values.reshape(-1).tolist()
    assert found == [(at, [flat[at:end], [-one for one in flat[at:end]], flat[at:end]]) for at, end in ((8, 16), (16, 24), (24, 28))]


def test_two_that_read_in_turns_have_their_own_numbers(tmp_path: Path) -> None:
    one, two = stored(tmp_path / "a.safetensors", MATRIX), stored(tmp_path / "b.safetensors", -MATRIX)
    both = KeyChunks(MappedFiles([one.file, two.file]), (one, two), dtype=torch.float32, count=6, scratch=0, step=2, shape=(2, 3))
    for (first,), (second,) in zip(both.pick(0), both.pick(1), strict=True):
        assert second.equal(-first)


def test_a_file_that_was_cut_short_is_an_error(tmp_path: Path) -> None:
    one = stored(tmp_path / "a.safetensors", MATRIX)
    maps = MappedFiles([one.file])
    os.truncate(one.file, one.begin + 8)
    with pytest.raises(JobFailed, match=r"a\.safetensors was cut short while it was read"):
        maps.read_into(one, 0, memoryview(bytearray(24)))


def test_a_file_that_was_replaced_before_it_is_read_is_an_error(tmp_path: Path) -> None:
    one = stored(tmp_path / "a.safetensors", MATRIX)
    maps = MappedFiles([one.file])
    stored(tmp_path / "b.safetensors", -MATRIX).file.replace(one.file)
    for _ in range(2):
        with pytest.raises(JobFailed, match=r"a\.safetensors changed while it was read"):
            maps.read_into(one, 0, memoryview(bytearray(24)))
    one.file.unlink()
    with pytest.raises(JobFailed, match=r"a\.safetensors went away"):
        maps.read_into(one, 0, memoryview(bytearray(24)))


def test_every_safetensors_dtype_of_torch_has_one() -> None:
    assert (torch_dtype("F8_E4M3"), torch_dtype("I64"), torch_dtype("BOOL")) == (torch.float8_e4m3fn, torch.int64, torch.bool)
    with pytest.raises(Refused, match="F4 is a dtype that is not computed with here"):
        torch_dtype("F4")


def test_a_reshaped_tensor_has_the_same_elements(tmp_path: Path) -> None:
    one = stored(tmp_path / "a.safetensors", MATRIX).shaped((3, 2, 1, 1))
    assert one.info.shape == (3, 2, 1, 1) and MappedFiles([one.file]).tensor(one, 0, 6).tolist() == MATRIX.reshape(-1).tolist()
