"""Every job that writes an output keeps it from others until it is registered."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from registry.errors import LoomError, Refused
from registry.exporting.job import place
from registry.files.unfinished import only_writer
from registry.jobs import combine_loras, convert, extract_lora, fuse_lora, merge
from registry.store import Store
from tests.registry.adapters.made_adapters import checkpoint, lora

JOBS: dict[str, Callable[[Store, Path, Path], Any]] = {
    "merge": lambda store, work, out: merge({"method": "copy", "sources": [str(work / "base.safetensors")]}, out, store=store),
    "fuse": lambda store, work, out: fuse_lora(str(work / "base.safetensors"), [str(work / "ink.safetensors")], out, store=store),
    "combine": lambda store, work, out: combine_loras(str(work / "ink.safetensors"), out, store=store),
    "extract": lambda store, work, out: extract_lora(
        str(work / "tuned.safetensors"), str(work / "base.safetensors"), out, rank=2, store=store
    ),
    "convert": lambda store, work, out: convert(str(work / "base.safetensors"), out, to="safetensors", dtype="fp16", store=store),
    "export": lambda store, work, out: place(work / "ink.safetensors", out),
}


@pytest.fixture
def work(tmp_path: Path) -> Path:
    checkpoint(tmp_path / "base.safetensors", seed=1)
    checkpoint(tmp_path / "tuned.safetensors", seed=2)
    lora(tmp_path / "ink.safetensors")
    return tmp_path


@pytest.mark.parametrize("job", JOBS)
def test_an_output_that_another_process_writes_is_refused(job: str, work: Path) -> None:
    output, store = work / "out.safetensors", Store(work / "home")
    with only_writer(output), pytest.raises(Refused, match=r"out\.safetensors is being written by another process"):
        JOBS[job](store, work, output)
    assert not output.exists() and not list(work.glob(".tmp-*"))
    JOBS[job](store, work, output)
    assert output.exists() and not list(work.glob(".tmp-*"))
    if job != "export":
        record = store.find("out")
        assert record.recipe and record.hashes.sha256
    with pytest.raises(LoomError, match=r"exists already|came to be|written it since"):
        JOBS[job](store, work, output)


@pytest.mark.parametrize("job", [job for job in JOBS if job != "export"])
def test_an_output_that_is_no_utf8_is_refused_before_it_is_written(job: str, work: Path) -> None:
    folder = work / "\udcff"
    with pytest.raises(Refused, match=r"\\xff/out\.safetensors is not UTF-8"):
        JOBS[job](Store(work / "home"), work, folder / "out.safetensors")
    assert not folder.exists()
