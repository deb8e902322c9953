"""The loop: steps, and what is due after a step, in an order that a kill cannot confuse.

After a step: numbers are read and checked, held-out loss, previews, rows to the trackers, and last the checkpoint. So what a
checkpoint knows has been written, and a resume forgets the rows behind it and makes them again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from registry.errors import JobFailed
from registry.progress import Report, Tick
from train.config import Precision
from train.loop import checkpoint
from train.loop.interrupt import Interrupted, StopRequest
from train.loop.rng import samples_at
from train.loop.step import Trace, TrainState
from train.loop.trackers import Tracker
from train.loop.validation import Difference, Probe, difference
from train.lora import adapter_disabled, set_lora_tensors
from train.optim import has_evaluation_weights

WINDOW = 10  # steps whose numbers are read together on a device that works ahead of us
OVERFLOWS = 20  # fp16: steps in a row that loss scaling may skip


class Previews(Protocol):
    """Draws the preview prompts with the weights as they are."""

    def draw(self, learner: TrainState, step: int) -> list[Path]: ...


@dataclass
class History:
    """What the run knows of itself; it travels in every checkpoint."""

    base: list[float] = field(default_factory=list)  # held-out loss of the base, an image each
    heldout: list[dict[str, Any]] = field(default_factory=list)  # {"step", "losses"}
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        return {"base": self.base, "heldout": self.heldout, "seconds": self.seconds}

    @property
    def best_step(self) -> int | None:
        """The step with the lowest mean held-out loss, the earliest of equals."""
        means = [(math.fsum(row["losses"]) / len(row["losses"]), row["step"]) for row in self.heldout]
        return min(means)[1] if means else None

    def mean(self, step: int | None) -> float | None:
        """Mean held-out loss at a step."""
        return next((math.fsum(row["losses"]) / len(row["losses"]) for row in self.heldout if row["step"] == step), None)

    @property
    def base_mean(self) -> float | None:
        return math.fsum(self.base) / len(self.base) if self.base else None

    def difference(self, step: int | None) -> Difference | None:
        """The paired difference to the base at a step."""
        losses = next((row["losses"] for row in self.heldout if row["step"] == step), None)
        return difference(losses, self.base) if losses and self.base else None


@dataclass(kw_only=True)
class Loop:
    """One process' part in a run, from a step to the last."""

    learner: TrainState
    folder: Path
    names: Sequence[str]  # of the training images, for messages
    probe: Probe | None
    previews: Previews | None
    trackers: Sequence[Tracker]
    write_adapter: Callable[[Path, int], object]
    history: History
    report: Report
    out: Callable[[str], None]
    wish: StopRequest
    window: list[Trace] = field(default_factory=list)
    overflows: int = 0

    def run(self, start: int) -> None:
        """Steps start..steps. Raises Interrupted, or JobFailed when a number is not finite."""
        config = self.learner.config
        if start == 0:
            self._before()
        self._began, self._counted, self._shown = time.perf_counter(), self.history.seconds, (start, time.perf_counter())
        self.report(Tick("train", start, config.steps))
        if start < config.steps and self._stop_requested():
            self._leave(start)
        for step in range(start + 1, config.steps + 1):
            self.window.append(self._take(step))
            stop = self._stop_requested()
            if stop or self._due(step) or len(self.window) >= (1 if self.learner.device.type == "cpu" else WINDOW):
                self._read(step)
            if stop or self._due(step):
                self._after(step, stop=stop)
            if stop and step < config.steps:
                self._leave(step)

    def _take(self, step: int) -> Trace:
        """One step; too little memory is told with what would help."""
        import torch

        try:
            return self.learner.take(step - 1)
        except torch.OutOfMemoryError as error:
            raise JobFailed(
                f"Step {step}: not enough memory on {self.learner.device}. What helps, in this order: gradient_checkpointing=true, "
                "precision=bf16, a smaller batch_size with as much more accumulate, a lower resolution."
            ) from error

    def _before(self) -> None:
        """The base's own held-out loss and previews: what everything is compared to."""
        if self.probe:
            with adapter_disabled(self.learner.modules):
                self.history.base = self.probe.measure(self.learner, model=self.learner.model)
            base = self.history.base_mean
            assert base is not None
            self.out(f"held-out loss of the base: {base:.4f} ({len(self.history.base)} images at {self.probe.points} timesteps each)")
            self._log([{"step": 0, "heldout_base": base}])
        self._draw(0)

    def _due(self, step: int) -> bool:
        return step == self.learner.config.steps or any(step % every == 0 for every in self._intervals())

    def _intervals(self) -> list[int]:
        config = self.learner.config
        measured = [config.heldout.every or config.steps] if self.probe else []
        drawn = [config.preview.every or config.steps] if self.previews else []
        return [config.checkpoint.every or config.steps, *measured, *drawn]

    def _stop_requested(self) -> bool:
        """Whether any process was told to stop; asked of the others only now and then, it costs a message."""
        accelerator = self.learner.accelerator
        if accelerator.num_processes == 1:
            return self.wish.signal_name is not None
        if len(self.window) < WINDOW:
            return False
        import torch

        told = torch.tensor([float(self.wish.signal_name is not None)], device=self.learner.device)
        return bool(accelerator.reduce(told, "sum").item() > 0)

    # --- numbers

    def _read(self, step: int) -> None:
        """Bring the window's numbers over in one go, check them, log them, and report."""
        import torch

        traces, self.window = self.window, []
        accelerator = self.learner.accelerator
        table = torch.stack([torch.cat([trace.losses, trace.gradient_norm.to(trace.losses).view(1)]) for trace in traces])
        if accelerator.num_processes > 1:
            table = accelerator.gather(table.unsqueeze(0)).permute(1, 0, 2)  # (steps, processes, images + 1)
        values = table.reshape(len(traces), -1, table.shape[-1]).double().cpu()
        rows = []
        for trace, row in zip(traces, values, strict=True):
            losses, norm = row[:, :-1].flatten(), float(row[0, -1])
            self._check(trace, [float(loss) for loss in losses], norm)
            finite = {"gradient_norm": norm} if math.isfinite(norm) else {}
            rows.append({"step": trace.step, "loss": float(losses.mean()), "lr": trace.rate, **finite})
        self._log(rows)
        now = time.perf_counter()
        self.history.seconds = self._counted + now - self._began
        (before, then), self._shown = self._shown, (step, now)
        rate = (step - before) / max(now - then, 1e-9)
        self.report(Tick("train", step, self.learner.config.steps, values={"loss": rows[-1]["loss"], "steps/s": rate}))

    def _check(self, trace: Trace, losses: Sequence[float], norm: float) -> None:
        """Stop at the first number that is not finite, and say where it came from. Nothing of it reaches a checkpoint."""
        bad = [place for place, loss in enumerate(losses) if not math.isfinite(loss)]
        scaled = self.learner.precision is Precision.fp16
        self.overflows = self.overflows + 1 if scaled and not math.isfinite(norm) else 0
        if not bad and (math.isfinite(norm) or (scaled and self.overflows < OVERFLOWS)):
            return
        processes = self.learner.accelerator.num_processes
        own = self.learner.config.images_per_step
        names = self._names_of(trace.step - 1, bad or range(own * processes))
        what = f"the loss is {losses[bad[0]]}" if bad else f"the gradient's norm is {norm}"
        times = f" Timesteps of this process: {', '.join(f'{t:.0f}' for t in trace.timesteps.tolist())}."
        kept = checkpoint.steps_of(self.folder)
        last = f" The last good weights are in {list(kept.values())[-1]}." if kept else " No checkpoint had been made."
        raise JobFailed(
            f"Step {trace.step}: {what}, at a learning rate of {trace.rate:.3g}. Images: {', '.join(names)}.{times}{last} "
            f"{self._advice(bool(bad))}"
        )

    def _names_of(self, step: int, places: Sequence[int]) -> list[str]:
        """Names of the images at these places of the gathered losses (process by process, pass by pass)."""
        config, processes = self.learner.config, self.learner.accelerator.num_processes
        own, batch = config.images_per_step, config.batch_size
        found = []
        for place in places:
            process, inside = divmod(place, own)
            turn, column = divmod(inside, batch)
            position = step * own * processes + (turn * processes + process) * batch + column
            found.append(self.names[samples_at(config.seed, len(self.names), [position])[0]])
        return list(dict.fromkeys(found))

    def _advice(self, loss: bool) -> str:
        if self.learner.precision is Precision.fp16:
            return "fp16 overflows in some models: try precision=bf16 or fp32, then a lower optim.lr."
        return f"Try a lower optim.lr (it is {self.learner.config.optim.lr:g})" + (
            ", and look at these images." if loss else " or optim.clip."
        )

    def _log(self, rows: Sequence[Mapping[str, Any]]) -> None:
        for tracker in self.trackers:
            tracker.log(rows)

    # --- what is due

    def _after(self, step: int, *, stop: bool) -> None:
        config = self.learner.config
        last = step == config.steps
        better = False
        if self.probe and (
            last or step % (config.heldout.every or config.steps) == 0 or step % (config.checkpoint.every or config.steps) == 0
        ):
            better = self._measure(step)
        if self.previews and not stop and (last or step % (config.preview.every or config.steps) == 0):
            self._draw(step)
        if last or stop or better or step % (config.checkpoint.every or config.steps) == 0:
            self.save(step)

    def _measure(self, step: int) -> bool:
        """Held-out loss now; whether it is the lowest so far."""
        assert self.probe is not None
        losses = self.probe.measure(self.learner, model=self.learner.model)
        bad = [name for name, loss in zip(self.probe.names, losses, strict=True) if not math.isfinite(loss)]
        if bad:
            raise JobFailed(f"Step {step}: the held-out loss of {', '.join(bad)} is not finite. {self._advice(False)}")
        self.history.heldout = [row for row in self.history.heldout if row["step"] != step] + [{"step": step, "losses": losses}]
        found, mean = self.history.difference(step), self.history.mean(step)
        assert found is not None and mean is not None
        row: dict[str, Any] = {"step": step, "heldout": mean, "heldout_difference": found.mean}
        if found.low is not None and found.high is not None:
            row |= {"heldout_difference_low": found.low, "heldout_difference_high": found.high}
        self._log([row])
        self.out(f"step {step}: held-out loss {mean:.4f}, {found.sentence()}")
        return self.history.best_step == step

    def _draw(self, step: int) -> None:
        """Previews of this step. Too little memory for them ends the previews, not the training."""
        if self.previews is None or not self.learner.accelerator.is_main_process:
            return
        import torch

        try:
            self.previews.draw(self.learner, step)
        except torch.OutOfMemoryError:
            self.previews = None
            torch.cuda.empty_cache()
            self.out(f"step {step}: not enough memory to draw previews beside the training; there will be no more of them")

    def save(self, step: int) -> None:
        """A checkpoint of this step, and the old ones that are no longer kept removed."""
        accelerator = self.learner.accelerator
        if accelerator.is_main_process:
            try:
                checkpoint.save(
                    self.folder,
                    step,
                    write_adapter=lambda path: self._write_adapter(path, step),
                    training=training_state(self.learner),
                    history=self.history.to_json(),
                )
            except OSError as error:
                raise JobFailed(f"The checkpoint of step {step} cannot be written ({error}). Make room and resume={self.folder}") from error
            checkpoint.prune(self.folder, keep=self.learner.config.checkpoint.keep, best=self.history.best_step)
        accelerator.wait_for_everyone()

    def _write_adapter(self, path: Path, step: int) -> None:
        with self.learner.evaluating():
            self.write_adapter(path, step)

    def _leave(self, step: int) -> None:
        self.out(f"stopped after step {step}")
        raise Interrupted(
            f"Stopped by {self.wish.signal_name or 'another process'} after step {step} of {self.learner.config.steps}. "
            f"What was learned is kept; go on with: loraloom train resume={self.folder}"
        )


def training_state(learner: TrainState) -> dict[str, Any]:
    """Everything beside the adapter that the next step depends on."""
    state: dict[str, Any] = {
        "optimizer": learner.optimizer.state_dict(),
        "weights": [name for name, _ in learner.weights],
        "random": checkpoint.random_states(),
    }
    if has_evaluation_weights(learner.optimizer):  # the adapter holds those to use, not those that train
        state["trained"] = {name: weight.detach().cpu().clone() for name, weight in learner.weights}
    scaler = getattr(learner.accelerator, "scaler", None)
    return state | ({"scaler": scaler.state_dict()} if scaler is not None else {})


def restore(learner: TrainState, found: checkpoint.Checkpoint, tensors: Mapping[str, Any]) -> None:
    """Weights, optimizer and random states as they were at the checkpoint. Raises JobFailed when they do not belong to this model."""
    names = [name for name, _ in learner.weights]
    if list(found.training["weights"]) != names:
        raise JobFailed(f"The checkpoint {found.folder} is of other layers than this run's settings give.")
    set_lora_tensors(learner.modules, tensors)
    decays = [group.get("weight_decay") for group in learner.optimizer.param_groups]
    learner.optimizer.load_state_dict(found.training["optimizer"])
    for group, decay in zip(learner.optimizer.param_groups, decays, strict=True):
        if decay is not None:
            group["weight_decay"] = decay  # a resume may change it; a checkpoint would put the old one back
    _restore_trained(learner, found.training.get("trained", {}))
    checkpoint.set_random_states(found.training["random"])
    scaler = getattr(learner.accelerator, "scaler", None)
    if scaler is not None and "scaler" in found.training:
        scaler.load_state_dict(found.training["scaler"])


def _restore_trained(learner: TrainState, trained: Mapping[str, Any]) -> None:
    """The weights of an optimizer that trains other ones than those to use."""
    import torch

    with torch.no_grad():
        for name, weight in learner.weights:
            if name in trained:
                weight.copy_(trained[name])
