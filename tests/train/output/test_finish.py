"""The end of a run: which step is the best, what result.json holds, what is registered."""

import json
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from registry.converting.proof import TOLERANCE
from registry.errors import JobFailed, LoomError
from registry.store import Store
from tests.tiny import tiny_parts
from train.config import LoraConfig, TrainConfig
from train.loop import checkpoint
from train.loop.history import History
from train.loop.saved_state import training_state
from train.output.export import Proof, verify_predictions
from train.output.finish import finish
from train.output.header import write_adapter
from train.plan.base import load

Settings = Callable[..., TrainConfig]
Prepared = Callable[[TrainConfig], Any]


@pytest.mark.slow
def test_the_best_step_is_the_lowest_held_out_loss_and_the_adapter_is_registered(
    prepared: Prepared, settings: Settings, store: Store
) -> None:
    work = prepared(settings(steps=2))
    lines: list[str] = []
    work.out = lines.append
    work.state.step(0)
    rows: list[dict[str, Any]] = [{"step": 1, "losses": [0.5, 0.7, 0.6]}, {"step": 2, "losses": [0.6, 0.7, 0.8]}]
    result = finish(work, History(base=[0.9, 0.8, 1.0], heldout=rows), store, seconds_before=2.0, begun=0.0)
    assert result["best_step"] == 1
    heldout = result["heldout"]
    assert [heldout[name] for name in ("base", "final", "best")] == [pytest.approx(0.9), pytest.approx(0.7), pytest.approx(0.6)]
    assert heldout["best_to_final"]["mean"] == pytest.approx(-0.1) and result["adapter_step"] == 2
    assert any("no measured step is better than the last beyond chance; the lowest is step 1 (0.6000)" in line for line in lines)
    assert json.loads((work.folder / "result.json").read_text()) == result
    assert (
        """http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:;""" in (work.folder / "report.html").read_text()
    )
    record = store.find("discs", kind="adapter")
    assert record.path == result["files"]["diffusers"] and [parent["role"] for parent in record.parents] == ["base", "dataset", "run"]


@pytest.mark.slow
@pytest.mark.parametrize("swapped", [0, 2])
def test_the_trained_model_is_freed_before_a_fresh_one_is_loaded(
    swapped: int, prepared: Prepared, settings: Settings, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = prepared(settings(steps=1, gradient_checkpointing=True, swap_blocks=swapped))
    work.state.step(0)
    trained, there = weakref.ref(work.state.parts.denoiser), []

    def fresh(*given: Any, **more: Any) -> Any:
        there.append(trained())
        return load(*given, **more)

    monkeypatch.setattr("train.output.finish.load", fresh)
    finish(work, History(base=[], heldout=[]), store, seconds_before=0.0, begun=0.0)
    assert there == [None]


@pytest.mark.slow
def test_a_copy_for_other_tools_that_is_not_proven_costs_no_run(
    prepared: Prepared, settings: Settings, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TOLERANCE, "F32", -1.0)  # no product is near enough
    work = prepared(settings(steps=1))
    lines: list[str] = []
    work.out = lines.append
    work.state.step(0)
    result = finish(work, History(base=[], heldout=[]), store, seconds_before=0.0, begun=0.0)
    assert [*result["files"]] == ["diffusers"] and store.find("discs", kind="adapter").path == result["files"]["diffusers"]
    assert any(line.startswith("not written with kohya keys:") and "has another product" in line for line in lines)
    assert not [*work.folder.glob("*kohya*")]


@pytest.mark.slow
def test_an_overfitted_run_gives_its_name_to_the_best_step(prepared: Prepared, settings: Settings, store: Store) -> None:
    work = prepared(settings(steps=2, lora=LoraConfig(rank=2, alpha=3.0)))
    work.state.step(0)
    kept = checkpoint.save(
        work.folder, 1, write_adapter=lambda path: write_adapter(work, path, 1), training=training_state(work.state), history={}
    )
    work.state.step(1)
    rows: list[dict[str, Any]] = [{"step": 1, "losses": [0.4, 0.3, 0.51]}, {"step": 2, "losses": [0.9, 0.82, 0.98]}]
    result = finish(work, History(base=[0.9, 0.8, 1.0], heldout=rows), store, seconds_before=0.0, begun=0.0)
    assert (result["adapter_step"], result["best_step"], result["steps"]) == (1, 1, 2)
    named, best = load_file(result["files"]["diffusers"]), load_file(kept / "adapter.safetensors")
    assert named.keys() == best.keys() and all(torch.allclose(named[name], best[name], rtol=1e-6, atol=0) for name in named)


@pytest.mark.slow
def test_a_best_checkpoint_that_is_gone_is_named_with_what_to_do(prepared: Prepared, settings: Settings, store: Store) -> None:
    work = prepared(settings(steps=1))
    work.state.step(0)
    rows: list[dict[str, Any]] = [{"step": 7, "losses": [0.4, 0.3, 0.51]}, {"step": 1, "losses": [0.9, 0.82, 0.98]}]
    with pytest.raises(JobFailed, match=r"step-000007 is damaged(.|\n)*resume=.* checkpoint\.load_best_at_end=false"):
        finish(work, History(base=[0.9, 0.8, 1.0], heldout=rows), store, seconds_before=0.0, begun=0.0)
    work.plan.config.checkpoint.load_best_at_end = False
    assert finish(work, History(base=[0.9, 0.8, 1.0], heldout=rows), store, seconds_before=0.0, begun=0.0)["adapter_step"] == 1


@pytest.mark.slow
def test_a_refused_adapter_is_kept_beside_and_not_registered(prepared: Prepared, settings: Settings, store: Store) -> None:
    work = prepared(settings(steps=1))  # no step is taken: every product is zero
    with pytest.raises(JobFailed, match="does nothing"):
        finish(work, History(), store, seconds_before=0.0, begun=0.0)
    assert (work.folder / "discs.refused").is_file() and not (work.folder / "result.json").exists()
    with pytest.raises(LoomError):
        store.find("discs", kind="adapter")


def test_predictions_that_are_all_zero_are_compared_too() -> None:
    _, parts = tiny_parts("sd1")
    kept = Proof((), {}, torch.zeros(1, 4, 2, 2), lambda _: torch.zeros(1, 4, 2, 2))
    assert verify_predictions(parts, kept) == 0.0
    with pytest.raises(JobFailed, match="relative difference inf"):
        verify_predictions(parts, replace(kept, inputs=lambda _: torch.ones(1, 4, 2, 2)))
