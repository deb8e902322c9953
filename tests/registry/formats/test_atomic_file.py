"""Files that are whole or not there, with the bytes and hashes they should have."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from registry.errors import BadFile, Refused
from registry.formats.atomic_file import (
    RawTensor,
    atomic_file,
    atomic_folder,
    read_header,
    write_json,
    write_raw,
    write_safetensors,
    write_text,
)
from registry.formats.hashing import hash_file


def tensors() -> dict[str, torch.Tensor]:
    values = torch.arange(24.0).reshape(4, 6)
    return {
        "whole": values,
        "slice of a larger storage": values[1:3, 2:4],
        "transposed": values.t(),
        "half": values.half(),
        "bfloat": values.bfloat16(),
        "eight bits": values.to(torch.float8_e5m2),
        "scalar": torch.tensor(7),
        "none": torch.zeros(0, 3),
        "flags": values > 3,
        "grad": values.clone().requires_grad_(),
    }


def test_it_writes_the_librarys_bytes(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "ours.safetensors", tensors(), metadata={"k": "v"})
    save_file(
        {name: tensor.detach().clone().contiguous() for name, tensor in tensors().items()}, tmp_path / "reference.safetensors", {"k": "v"}
    )
    assert (tmp_path / "ours.safetensors").read_bytes() == (tmp_path / "reference.safetensors").read_bytes()
    back = load_file(tmp_path / "ours.safetensors")
    assert all(back[name].equal(tensor.detach()) for name, tensor in tensors().items())


def test_metadata_is_sorted_so_the_same_call_gives_the_same_bytes(tmp_path: Path) -> None:
    first = write_safetensors(tmp_path / "a", tensors(), metadata={"b": "2", "a": "1"})
    second = write_safetensors(tmp_path / "b", dict(reversed(tensors().items())), metadata={"a": "1", "b": "2"})
    assert first == second and (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_what_is_hashed_as_written_is_what_lies_there(tmp_path: Path) -> None:
    big = {"a": torch.arange(3_000_000.0), "b": torch.ones(7, dtype=torch.int16)}
    assert write_safetensors(tmp_path / "x", big, metadata={"ss_a": "é"}) == hash_file(tmp_path / "x")[0]


def test_what_the_format_has_no_word_for_is_refused_before_writing(tmp_path: Path) -> None:
    path, one = tmp_path / "x", torch.zeros(1)
    with pytest.raises(Refused, match="complex128"):
        write_safetensors(path, {"a": one.to(torch.complex128)}, metadata={})
    with pytest.raises(Refused, match="steps"):
        write_safetensors(path, {"a": one}, metadata={"steps": 3})  # type: ignore[dict-item]
    with pytest.raises(Refused, match="__metadata__"):
        write_safetensors(path, {"__metadata__": one}, metadata={})
    with pytest.raises(Refused, match="need 8"):
        write_raw(path, {"a": RawTensor("F32", (2,), b"1234")}, metadata={})
    assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})
    with pytest.raises(ZeroDivisionError), atomic_file(path) as file:
        file.write(b"half" * (1 // 0))
    with pytest.raises(ValueError):
        write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": 1} and list(tmp_path.iterdir()) == [path]
    write_text(path, "zwei\n")
    assert path.read_bytes() == b"zwei\n"


def test_a_killed_writer_leaves_no_file_under_the_name(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys\nfrom registry.formats.atomic_file import atomic_file\n"
        "with atomic_file(sys.argv[1]) as file:\n file.write(b'half')\n file.flush()\n os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "x")], check=False)
    assert done.returncode == -9
    assert [entry.name[:5] for entry in tmp_path.iterdir()] == [".tmp-"]


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    final = tmp_path / "runs" / "step-000300"
    with atomic_folder(final) as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "a").write_text("1")
        assert not final.exists() and folder.parent == final.parent
    assert (final / "sub" / "a").read_text() == "1"
    with pytest.raises(ZeroDivisionError), atomic_folder(tmp_path / "other") as folder:
        raise ZeroDivisionError
    with pytest.raises(Refused, match="exists already"), atomic_folder(final):
        pass
    assert sorted(os.listdir(tmp_path)) == ["runs"] and os.listdir(tmp_path / "runs") == ["step-000300"]


def test_our_reader_reads_what_the_library_writes_and_refuses_a_cut(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({name: tensor.detach().clone().contiguous() for name, tensor in tensors().items()}, path)
    header = read_header(path)
    assert header.tensors["half"] == ("F16", (4, 6)) and header.file_bytes == path.stat().st_size
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BadFile, match="should have"):
        read_header(path)
