"""The traces of an estimate, kept in the home from one process to the next."""

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch

from registry.budget import peak
from registry.budget.peak import Trace
from registry.families import FAMILIES, Family
from registry.parts import Parts
from tests.tiny import shared_folder
from train.config import LoraConfig, Precision, PreviewConfig, TrainConfig
from train.lora import targets_of
from train.plan import kept_traces, traces
from train.plan.kept_traces import is_known
from train.plan.traces import Traces, keep_made

CONFIG = TrainConfig(batch_size=2, lora=LoraConfig(rank=2), precision=Precision.fp32, preview=PreviewConfig(prompts=["a cat"]))


@pytest.fixture
def count(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], int]:
    """How many computations were traced since the last call, by a process that begins with each call. Its home is empty at first."""
    made: list[object] = []
    plain = peak.trace

    def counted(*given: Any, **options: Any) -> Any:
        made.append(given)
        return plain(*given, **options)

    def next_process() -> int:
        monkeypatch.setattr(traces, "TRACED", {})
        monkeypatch.setattr(traces, "UNKEPT", {})
        number = len(made)
        made.clear()
        return number

    monkeypatch.setenv("LORALOOM_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(traces, "trace", counted)
    next_process()
    return next_process


def traces_of(family: Family) -> Traces:
    return Traces(family, parts(), targets_of(FAMILIES["sd1"], "attention"), Precision.fp32, 32)


@cache
def parts() -> Parts:
    return FAMILIES["sd1"].load(shared_folder("sd1"), dtype=torch.float32, device="meta")


def encode(family: Family = FAMILIES["sd1"]) -> Trace:
    """One of the traces."""
    return traces_of(family).encode()


@pytest.mark.slow
def test_what_a_run_kept_is_not_traced_again_and_says_the_same(count: Callable[[], int]) -> None:
    def all_five() -> list[Trace]:
        made = traces_of(FAMILIES["sd1"])
        return [made.encode(), made.decode(CONFIG), made.prompt(CONFIG), made.forward(CONFIG), made.step(CONFIG)]

    first = all_five()
    keep_made()
    assert count() == 5 and all_five() == first
    assert count() == 0


def test_a_plan_alone_writes_nothing(count: Callable[[], int], tmp_path: Path) -> None:
    encode()
    assert count() == 1 and not (tmp_path / "home").exists()
    encode()
    assert count() == 1


@pytest.mark.parametrize("other", ["9" * 64, None])
def test_with_other_code_it_is_traced_again(count: Callable[[], int], other: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    encode()
    keep_made()
    count()
    monkeypatch.setattr(kept_traces, "_code", lambda: other)
    encode()
    keep_made()
    assert count() == 1


def test_a_trace_of_another_cpu_is_made_again(count: Callable[[], int], monkeypatch: pytest.MonkeyPatch) -> None:
    def encoded(*, on_cpu: bool) -> int:
        replace(traces_of(FAMILIES["sd1"]), on_cpu=on_cpu).encode()
        keep_made()
        return count()

    assert [encoded(on_cpu=True), encoded(on_cpu=False), encoded(on_cpu=True)] == [1, 1, 0]
    monkeypatch.setattr(traces, "processor", lambda: [False, False, True, False, "another"])
    assert [encoded(on_cpu=True), encoded(on_cpu=False)] == [1, 0]


def test_the_code_is_the_files_and_the_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = kept_traces._code.__wrapped__
    before = plain()
    assert before == plain()
    version = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: version(name) + (".post1" if name == "peft" else ""))
    assert plain() not in (before, None)
    monkeypatch.setattr(metadata, "version", lambda name: "0.43.0.dev0")
    assert plain() is None
    monkeypatch.undo()
    monkeypatch.setattr(kept_traces, "PACKAGES", ("registry",))
    assert plain() != before


@pytest.mark.parametrize("damage", ["number", "type", "text", "list"])
def test_a_damaged_trace_is_made_again_with_a_note(
    count: Callable[[], int], damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = encode()
    keep_made()
    count()
    (file,) = (tmp_path / "home" / "cache" / "traces").rglob("*.json")
    kept = json.loads(file.read_bytes())
    changed: object = {**kept, "peak": kept["peak"] + 1} if damage == "number" else {**kept, "peak": str(kept["peak"])}
    file.write_text("{" if damage == "text" else json.dumps([kept] if damage == "list" else changed))
    with caplog.at_level(logging.WARNING, logger="train.plan.kept_traces"):
        assert encode() == first
    keep_made()
    assert count() == 1 and len(caplog.records) == 1 and str(file) in caplog.text
    assert encode() == first and count() == 0, "the damaged file was made anew"


def test_the_traces_of_a_family_from_elsewhere_are_not_kept(count: Callable[[], int]) -> None:
    def count_tokens(parts: Parts, prompt: str) -> tuple[int, int]:
        return FAMILIES["sd1"].count_tokens(parts, prompt)

    other = replace(FAMILIES["sd1"], count_tokens=count_tokens)
    assert all(map(is_known, FAMILIES.values())) and not is_known(other)
    encode(other)
    keep_made()
    count()
    encode(other)
    assert count() == 1
