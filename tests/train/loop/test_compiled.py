"""Compiled blocks in a run: the same losses but for rounding, resumed to the same bytes; the plan refuses what cannot be compiled."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from registry.architectures.compiled import compile_blocks, uncompiled
from registry.errors import Faults, Refused
from registry.store import Store
from tests.tiny import shared_folder, tiny_parts
from tests.train.conftest import stopped
from train import run
from train.config import CheckpointConfig, TrainConfig
from train.plan import compiled
from train.plan.compiled import check_compiler

Settings = Callable[..., TrainConfig]
Prepared = Callable[[TrainConfig], Any]


@pytest.mark.slow
def test_losses_are_the_same_but_for_rounding(settings: Settings, prepared: Prepared) -> None:
    """On FLUX.1's two kinds of blocks, in int8, with checkpointing and activations in main memory. A compiler adds in another order: 1e-6
    of a number in fp32; a token whose code is then another one is 1/127 of it, once in some thousands."""
    beside = {"base": str(shared_folder("flux1")), "gradient_checkpointing": True, "base_dtype": "int8", "compute": "int8"}
    eager = prepared(settings(**beside)).state
    actual = prepared(settings(compile="blocks", offload_activations=True, **beside)).state
    torch._dynamo.utils.counters.clear()
    for step in range(2):
        one, other = eager.step(step).losses, actual.step(step).losses
        torch.testing.assert_close(one, other, rtol=1e-3, atol=0)
    counted = torch._dynamo.utils.counters
    assert not counted["graph_break"] and actual.offload.ledger.host_peak > 0
    assert counted["stats"]["unique_graphs"] <= 6, "one code for each kind, with and without a gradient into it"
    counted.clear()
    swapped = prepared(settings(compile="blocks", swap_blocks=4, **beside)).state
    for step in range(2):
        swapped.step(step)
    assert not counted["stats"]["unique_graphs"], "swapped blocks are computed by the same code"
    for (name, weight), (_, other) in zip(swapped.weights, actual.weights, strict=True):
        assert weight.equal(other), name
    assert list(swapped.swap.ledger.fetches.values()) == [4] * 4, "each block twice a step"


@pytest.mark.slow
def test_a_run_is_proven_uncompiled_and_resumed_to_the_same_bytes(
    settings: Settings, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compiled to torch's own operations, which needs no C++ compiler and no time."""
    honest = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function: honest(function, backend="aot_eager"))

    def config(name: str) -> TrainConfig:
        shared = {"base": str(shared_folder("flux1")), "gradient_checkpointing": True, "checkpoint": CheckpointConfig(every=2)}
        return settings(steps=3, out=str(tmp_path / name), compile="blocks", **shared)

    lines: list[str] = []
    straight = run.run(config("straight"), store, out=lines.append)
    again = run.resume(stopped(config("resumed"), store, at=2), {}, store)
    one, other = (Path(each.result["files"]["diffusers"]).read_bytes() for each in (straight, again))
    assert one == other and any("verified on a fresh base (largest difference 0)" in line for line in lines)


@pytest.mark.slow
def test_every_block_is_compiled_at_its_first_use_and_can_be_left_uncompiled() -> None:
    """Nothing is compiled here: a backend that counts takes the compiler's place."""
    family, parts = tiny_parts("flux1")
    seen: list[Any] = []

    def counting(graph: Any, _inputs: Any) -> Any:
        seen.append(graph)
        return graph

    with pytest.MonkeyPatch.context() as patched:
        honest = torch.compile
        patched.setattr(torch, "compile", lambda function: honest(function, backend=counting))
        kinds = compile_blocks(family, parts.denoiser)
    assert kinds == {"FluxTransformerBlock": 2, "FluxSingleTransformerBlock": 2} and not seen
    noisy, times = torch.zeros(1, family.channels(parts), 8, 8), torch.tensor([500.0])
    with torch.no_grad():
        states = family.encode_prompts(parts, ["a cat"])
        complete = family.complete(parts, states, height=64, width=64, guidance=1.0)
        with uncompiled():
            before = family.predict(parts, noisy, times, complete)
        assert not seen
        assert family.predict(parts, noisy, times, complete).equal(before) and 0 < len(seen) <= 4


def test_the_plan_shows_the_kinds_and_refuses_what_cannot_be_compiled(
    settings: Settings, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(compile="blocks")
    made = run.plan(config, store)
    assert made.to_json()["compiled_blocks"] == {"BasicTransformerBlock": 4}
    assert "\ncompile    4 BasicTransformerBlock: one code for each kind" in made.to_text()
    assert any("the first steps" in note for note in made.notes)
    with pytest.raises(Faults, match=r"compile must be blocks, or null, got 'model'"):
        settings(compile="model")
    with pytest.raises(Refused, match="compiled for cpu and cuda, and this is mps"):
        check_compiler(config, torch.device("mps"))
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", ("no-such-compiler",))
    with pytest.raises(Refused, match=r"there is none \(g\+\+ or clang\+\+\)\. Install it, or leave compile out"):
        check_compiler(config, torch.device("cpu"))
    monkeypatch.setattr(compiled, "_no_triton", lambda: "torch compiles for a GPU with triton, which is not installed")
    with pytest.raises(Refused, match="triton"):
        check_compiler(config, torch.device("cuda"))
