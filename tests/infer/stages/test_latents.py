"""Kept latents: the exact numbers back, whole or not there, and no more of them than are allowed."""

import os
from pathlib import Path

import pytest
import torch

from infer.stages.latents import LatentsError, LatentsStore, latents_of, read_keep_latents
from registry.errors import Refused

CPU = torch.device("cpu")


def key(number: int) -> str:
    return f"{number:064x}"


def numbers(seed: int = 1, *, dtype: torch.dtype = torch.float32, side: int = 8) -> torch.Tensor:
    return torch.randn(1, 4, side, side, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("layout", ["contiguous", "channels last", "a slice"])
def test_numbers_and_layout_come_back(tmp_path: Path, dtype: torch.dtype, layout: str) -> None:
    latents = numbers(dtype=dtype)
    if layout == "channels last":
        latents = latents.contiguous(memory_format=torch.channels_last)
    if layout == "a slice":
        latents = torch.cat([latents, latents + 1])[1:].transpose(2, 3)
    LatentsStore(tmp_path, most=10_000).put(key(1), latents)
    found = LatentsStore(tmp_path, most=10_000).get(key(1), CPU)
    assert found is not None and found.dtype == dtype and found.equal(latents) and found.stride() == latents.stride()
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [f"{key(1)}.safetensors"]


def test_what_is_not_there_is_none(tmp_path: Path) -> None:
    latents = LatentsStore(tmp_path, most=10_000)
    assert not latents.has(key(1)) and latents.get(key(1), CPU) is None
    latents.put(key(1), numbers() * float("nan"))
    latents.put(key(2), numbers(side=64))  # more than all of them may take
    assert not latents.has(key(1)) and not latents.has(key(2))


def test_latents_of_another_key_are_noticed(tmp_path: Path) -> None:
    latents = LatentsStore(tmp_path, most=10_000)
    latents.put(key(1), numbers())
    (path,) = tmp_path.rglob("*.safetensors")
    path.with_name(f"{key(2)}.safetensors").write_bytes(path.read_bytes())
    with pytest.raises(LatentsError, match=key(2)):
        latents.get(key(2), CPU)


@pytest.mark.parametrize("damage", ["numbers", "cut off", "layout"])
def test_damage_is_noticed(tmp_path: Path, damage: str) -> None:
    latents = LatentsStore(tmp_path, most=10_000)
    latents.put(key(1), numbers())
    (path,) = tmp_path.rglob("*.safetensors")
    data = path.read_bytes()
    changed = {
        "numbers": data[:-1] + bytes([data[-1] ^ 1]),
        "cut off": data[:-1],
        "layout": data.replace(b"[256, 64, 8, 1]", b"[256, 64, 1, 8]"),
    }[damage]
    assert changed != data
    path.write_bytes(changed)
    with pytest.raises(LatentsError, match=key(1)):
        latents.get(key(1), CPU)


def test_the_last_used_stay(tmp_path: Path) -> None:
    one = LatentsStore(tmp_path, most=10_000)
    one.put(key(1), numbers())
    size = next(tmp_path.rglob("*.safetensors")).stat().st_size
    latents = LatentsStore(tmp_path, most=4 * size)
    for number in (2, 3, 4):
        latents.put(key(number), numbers(number))
    for age, path in enumerate(sorted(tmp_path.rglob("*.safetensors")), 1):
        os.utime(path, (age, age))
    assert latents.get(key(1), CPU) is not None  # used now
    latents.put(key(5), numbers(5))
    assert [number for number in range(1, 6) if latents.has(key(number))] == [1, 4, 5]  # within nine tenths of the most


def test_the_setting() -> None:
    assert read_keep_latents("0") == 0 and read_keep_latents("2GiB") == 2 << 30 and read_keep_latents("500MB") == 500_000_000
    assert latents_of(Path("home"), "0") is None
    for text in ("auto", "2", "-1GiB", "", "lots"):
        with pytest.raises(Refused, match="keep_latents is"):
            read_keep_latents(text)
