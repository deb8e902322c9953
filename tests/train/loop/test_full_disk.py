"""What training writes, on a disk that takes no more: an error with the path, whatever the library that writes makes of it."""

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from registry.errors import WriteFailed
from train.config import TrainConfig
from train.loop import checkpoint
from train.loop.cache import Cache
from train.loop.trackers import JsonLines

KIB = 1 << 10


@pytest.fixture
def _small_files() -> Iterator[None]:
    """No file may grow beyond 64 KiB: a write fails inside the system call, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * KIB, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("_small_files")
def test_a_cache_entry(tmp_path: Path) -> None:
    with pytest.raises(WriteFailed, match=r"latents/ab/ab.*\.safetensors cannot be written.* It needs [\d,]+ bytes"):
        Cache("latents", root=tmp_path).put("ab" * 16, {"mean": torch.zeros(64 * KIB)})
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.usefixtures("_small_files")
def test_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(WriteFailed, match=r"training\.pt cannot be written: the file is larger"):
        checkpoint.save(tmp_path, 3, write_adapter=lambda path: path.write_bytes(b""), training={"a": torch.zeros(64 * KIB)}, history={})
    assert [path.name for path in tmp_path.rglob("*")] == ["checkpoints"]


@pytest.mark.usefixtures("_small_files")
def test_metrics(tmp_path: Path) -> None:
    metrics = JsonLines(tmp_path, TrainConfig(), 0)
    with pytest.raises(WriteFailed, match=r"metrics\.jsonl cannot be written: the file is larger"):
        metrics.log([{"step": step, "loss": 0.5} for step in range(8 * KIB)])
    metrics.close()
