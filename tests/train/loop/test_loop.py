"""The order of what is due after a step, and what stops a run, on a real tiny model with recorders in the places of the rim."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
import torch

from registry.errors import JobFailed
from registry.progress import Tick, silent
from registry.store import Store
from tests.train.conftest import short_run
from train import run
from train.config import CheckpointConfig, HeldoutConfig, OptimConfig, Precision, PreviewConfig
from train.execute import make_accelerator
from train.loop.history import History
from train.loop.interrupt import Interrupted, StopRequest
from train.loop.loop import OVERFLOWS, Loop
from train.loop.prepare import Work, prepare
from train.loop.step import StepMetrics, TrainState
from train.output.folder import make_folder
from train.output.inputs import inputs_of
from train.output.requests import Requests


@pytest.fixture(scope="module")
def work(base: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Work:
    """A run that is ready to train; its weights move from test to test, which no test here looks at."""
    place = tmp_path_factory.mktemp("loop")
    config = short_run(base, images, place / "runs", optim=OptimConfig(lr=1e-3))
    store = Store(place / "home")
    plan = run.plan(config, store)
    folder = make_folder(plan.config, "discs", inputs_of(plan, store))
    return prepare(plan, folder, make_accelerator(plan), report=silent, out=lambda _line: None)


@dataclass
class Recorder:
    """A tracker, previews and an adapter writer that note their calls in order."""

    calls: list[str] = field(default_factory=list)

    def log(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self.calls += [f"{next(name for name in row if name != 'step')} {row['step']}" for row in rows]

    def close(self) -> None:
        self.calls.append("close")

    def draw(self, state: TrainState, step: int) -> list[Path]:
        self.calls.append(f"preview {step}")
        return []

    def write_adapter(self, path: Path, step: int) -> None:
        self.calls.append(f"adapter {step}")
        path.write_bytes(b"")


def loop_of(work: Work, folder: Path, recorder: Recorder, *, checkpoint: int, heldout: int, preview: int) -> Loop:
    (folder / "checkpoints").mkdir()
    config = replace(
        work.state.config,
        checkpoint=CheckpointConfig(every=checkpoint),
        heldout=HeldoutConfig(every=heldout),
        preview=PreviewConfig(prompts=[], every=preview),
    )
    return Loop(
        state=replace(work.state, config=config),
        folder=folder,
        probe=work.probe,
        previews=recorder,
        trackers=[recorder],
        write_adapter=recorder.write_adapter,
        history=History(),
        report=silent,
        out=lambda _line: None,
        stop_request=StopRequest(),
        requests=Requests(folder),
    )


@pytest.mark.slow
def test_numbers_held_out_loss_previews_and_checkpoint_come_in_this_order(work: Work, tmp_path: Path) -> None:
    recorder = Recorder()
    loop_of(work, tmp_path, recorder, checkpoint=2, heldout=2, preview=2).run(0)
    before = ["heldout_base 0", "preview 0"]
    after = [["loss 1", "loss 2", "heldout 2", "preview 2", "adapter 2"], ["loss 3", "loss 4", "heldout 4", "preview 4", "adapter 4"]]
    assert recorder.calls == [*before, *after[0], *after[1]]


@pytest.mark.slow
def test_a_lower_held_out_loss_is_saved_between_checkpoints(work: Work, tmp_path: Path) -> None:
    recorder = Recorder()
    loop = loop_of(work, tmp_path, recorder, checkpoint=4, heldout=1, preview=4)
    loop.run(0)
    means = [sum(row["losses"]) for row in loop.history.heldout]
    lowest = [step for step in range(1, 5) if means[step - 1] < min(means[: step - 1], default=float("inf"))]
    assert [int(call.removeprefix("adapter ")) for call in recorder.calls if call.startswith("adapter")] == sorted({*lowest, 4})


def test_a_stop_request_saves_the_step_and_draws_nothing(work: Work, tmp_path: Path) -> None:
    recorder = Recorder()
    loop = loop_of(work, tmp_path, recorder, checkpoint=4, heldout=4, preview=1)
    loop.stop_request.signal_name = "SIGTERM"
    loop.history.base = [1.0]
    with pytest.raises(Interrupted, match=r"Stopped by SIGTERM after step 0 of 4"):
        loop.run(0)
    loop.window, recorder.calls = [], []
    loop._after(2, {"stop"})
    assert recorder.calls == ["adapter 2"]


@pytest.mark.slow
def test_too_little_memory_for_previews_ends_the_previews_alone(work: Work, tmp_path: Path) -> None:
    class Full(Recorder):
        def draw(self, state: TrainState, step: int) -> list[Path]:
            raise torch.OutOfMemoryError

    recorder = Full()
    loop = loop_of(work, tmp_path, recorder, checkpoint=4, heldout=4, preview=1)
    loop.run(0)
    assert loop.previews is None and recorder.calls[-1] == "adapter 4"


def metrics(step: int, norm: float) -> StepMetrics:
    return StepMetrics(step, 1e-4, torch.tensor([0.5, 0.25]), torch.tensor(norm), (0, 1), torch.tensor([10.0, 20.0]))


def test_fp16_may_skip_fewer_than_twenty_steps_in_a_row(work: Work, tmp_path: Path) -> None:
    loop = loop_of(work, tmp_path, Recorder(), checkpoint=4, heldout=4, preview=4)
    loop.state.precision = Precision.fp16
    for step in range(1, OVERFLOWS):
        loop._check(metrics(step, float("inf")), [0.5, 0.25], float("inf"))
    loop._check(metrics(OVERFLOWS, 1.0), [0.5, 0.25], 1.0)  # a finite step starts the count anew
    for step in range(1, 20):
        loop._check(metrics(step, float("inf")), [0.5, 0.25], float("inf"))
    with pytest.raises(JobFailed, match=r"Step 20: the gradient's norm is inf.*try precision=bf16"):
        loop._check(metrics(20, float("inf")), [0.5, 0.25], float("inf"))


def test_a_loss_that_is_not_finite_names_its_image(work: Work, tmp_path: Path) -> None:
    loop = loop_of(work, tmp_path, Recorder(), checkpoint=4, heldout=4, preview=4)
    second = loop._names(0)[1]
    with pytest.raises(JobFailed, match=rf"Step 1: the loss is nan.*Images: {second}\. Timesteps of this process: 10, 20\."):
        loop._check(metrics(1, 1.0), [0.5, float("nan")], 1.0)


def test_what_is_due_is_counted_as_it_is_done(work: Work, tmp_path: Path) -> None:
    """Held-out loss at its own steps and at every checkpoint; all of it at the last step."""
    loop = loop_of(work, tmp_path, Recorder(), checkpoint=3, heldout=2, preview=4)
    assert [sorted(loop._due(step)) for step in range(1, 5)] == [
        [],
        ["held-out"],
        ["checkpoint", "held-out", "training images"],
        ["checkpoint", "held-out", "previews", "training images"],
    ]
    assert loop._pauses_after(1) == {"checkpoint": 2, "held-out": 3, "training images": 2, "previews": 1}
    loop.previews = loop.probe = None
    assert loop._pauses_after(4) == {"checkpoint": 1} and loop._due(2) == set()


def test_the_shown_rate_is_the_mean_of_the_steps_without_their_pauses(work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock on which a step takes 2 seconds, a held-out measurement 30 and a preview 50."""
    from train.loop import pace

    class Clock:
        now = 0.0

        def perf_counter(self) -> float:
            return self.now

    class Slow(Recorder):
        def draw(self, state: TrainState, step: int) -> list[Path]:
            clock.now += 50
            return super().draw(state, step)

    def measure(_state: TrainState, *, model: Any) -> dict[str, Any]:
        clock.now += 30
        return {"losses": [0.5] * 3, "bands": [0.5] * 3, "trained": [0.5], "others": [], "own": []}

    def step(number: int) -> StepMetrics:
        clock.now += 2
        return metrics(number + 1, 1.0)

    clock, ticks = Clock(), list[Tick]()
    monkeypatch.setattr(pace, "time", clock)
    loop = loop_of(work, tmp_path, Slow(), checkpoint=4, heldout=2, preview=2)
    assert loop.probe is not None
    monkeypatch.setattr(loop.probe, "measure", measure)
    monkeypatch.setattr(loop.probe, "measure_seldom", lambda *_, **_given: {})
    monkeypatch.setattr(loop.state, "step", step)
    monkeypatch.setattr(Loop, "save", lambda *_, **_given: None)
    loop.report = ticks.append
    loop.pace = pace.Pace()
    loop.run(0)
    assert list(dict.fromkeys((tick.values["steps/s"], tick.seconds_left) for tick in ticks if tick.values)) == [
        (0.5, 3 * 2 + 2 * 80), (0.5, 2 * 2 + 2 * 80), (0.5, 2 + 80), (0.5, 80)
    ]  # fmt: skip


def test_while_something_is_measured_its_reports_say_so(work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One for each pass, as the step stays the same for as long as it takes; then the step's own again."""
    ticks = list[Tick]()
    loop = loop_of(work, tmp_path, Recorder(), checkpoint=4, heldout=4, preview=4)
    monkeypatch.setattr(loop.state, "step", lambda number: metrics(number + 1, 1.0))
    monkeypatch.setattr(Loop, "save", lambda *_, **_given: None)
    loop.report = ticks.append
    loop.run(0)
    base, own = "measuring held-out loss of the base", "measuring held-out loss"
    notes = [note for note, _ in groupby((tick.done, tick.note) for tick in ticks if "images" not in tick.note)]
    assert notes == [(0, base), (0, ""), (1, ""), (2, ""), (3, ""), (4, ""), (4, own), (4, "")]
    assert sum(tick.note == own for tick in ticks) > 1 and {tick.stage for tick in ticks} == {"train"}
    assert all(tick.values["loss"] > 0 for tick in ticks if tick.note == own)
