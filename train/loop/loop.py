"""The training loop: steps, and what is due after a step, in an order that survives a kill.

After a step: metrics are checked and logged, then held-out loss, previews, and the checkpoint last. All that a checkpoint counts
is on disk by then, and a resume drops the rows after its checkpoint and writes them again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from registry.errors import JobFailed
from registry.printable import shell_line
from registry.progress import Report, Tick
from train.config import Precision
from train.loop import checkpoint
from train.loop.history import History, parts_of
from train.loop.interrupt import Interrupted, StopRequest
from train.loop.pace import Pace, times_due
from train.loop.probes import Probes
from train.loop.saved_state import training_state
from train.loop.step import StepMetrics, TrainState
from train.loop.trackers import Tracker
from train.measures.early_stop import Stopped, early_stop
from train.measures.images import others_due, write_images
from train.output.requests import KINDS, SAMPLE, SAVE, STOP, Requests

WINDOW = 10  # steps whose numbers are read together, so that a GPU need not wait
OVERFLOWS = 20  # fp16: steps in a row that loss scaling may skip


class Previews(Protocol):
    """Draws the preview prompts with the weights as they are."""

    def draw(self, state: TrainState, step: int) -> list[Path]: ...


@dataclass(kw_only=True)
class Loop:
    """The training loop of one process, from a step to the last."""

    state: TrainState
    folder: Path
    probe: Probes | None
    previews: Previews | None
    trackers: Sequence[Tracker]
    write_adapter: Callable[[Path, int], object]
    history: History
    report: Report
    out: Callable[[str], None]
    stop_request: StopRequest
    requests: Requests
    window: list[StepMetrics] = field(default_factory=list)
    overflows: int = 0
    pace: Pace = field(default_factory=Pace)
    stopped: Stopped | None = None  # early
    last: Tick | None = None  # of the steps

    def run(self, start: int) -> Stopped | None:
        """Steps start..steps; the last one where that comes earlier. Raises Interrupted, or JobFailed when a number is not finite."""
        config = self.state.config
        if start == 0:
            self._before()
        self._start, self._counted = start, self.history.seconds
        self.pace.begin_steps()
        self.report(Tick("train", start, config.steps))
        if start < config.steps and STOP in self._asked():
            self._leave(start)
        self._stop_early(start)
        for step in () if self.stopped else range(start + 1, config.steps + 1):
            self.window.append(self._step(step))
            asked = self._asked()
            if asked or self._due(step) or len(self.window) >= self._window:
                self._read(step)
            if asked or self._due(step):
                self._after(step, asked)
            if STOP in asked and step < config.steps:
                self._leave(step)
            if self.stopped:
                break
        return self.stopped

    def _step(self, step: int) -> StepMetrics:
        """One step. Raises JobFailed with what reduces memory when there is too little."""
        import torch

        try:
            return self.state.step(step - 1)
        except torch.OutOfMemoryError as error:
            raise JobFailed(
                f"Step {step}: not enough memory on {self.state.device}. What helps, in this order: gradient_checkpointing=true, "
                "swap_blocks=NUMBER (the plan has how many there are), offload_activations=true, "
                "precision=bf16, a smaller batch_size with as much more accumulate, a lower resolution."
            ) from error

    def _before(self) -> None:
        """Held-out loss and previews of the base, which later ones are compared with."""
        if self.probe:
            with self.state.baseline(), self._measuring("held-out", "held-out loss of the base"):
                self.history.before = self.probe.measure(self.state, model=self.state.model)
            with self.state.baseline(), self._measuring("training images", "training images"):
                self.history.before |= self.probe.measure_seldom(self.state, model=self.state.model, others=False)
            self.history.base = self.history.before["losses"]
            self._keep_images()
            base = self.history.base_mean
            assert base is not None
            heldout, whose = self.probe.heldout, "base" if self.state.as_began is None else "reference"
            count = f"{len(self.history.base)} {heldout.unit} at {heldout.points} timesteps each"
            self.out(f"held-out loss of the {whose}: {base:.4f} ({count})")
            self._log([{"step": 0, "heldout_base": base, **parts_of(self.history.before)}])
        self._draw(0)

    def _intervals(self) -> dict[str, list[int]]:
        """What is due after a step, and when: at multiples of any of these, and at the last step."""
        config, steps = self.state.config, self.state.config.steps
        saved, measured, drawn = (every or steps for every in (config.checkpoint.every, config.heldout.every, config.preview.every))
        found = {"checkpoint": [saved]}
        found |= {"held-out": [measured, saved], "training images": [saved]} if self.probe else {}
        return found | ({"previews": [drawn]} if self.previews else {})

    def _due(self, step: int) -> set[str]:
        """What is due after this step."""
        last = step == self.state.config.steps
        return {kind for kind, intervals in self._intervals().items() if last or any(step % every == 0 for every in intervals)}

    @property
    def _window(self) -> int:
        """Steps whose numbers are read together: a CPU has nothing to wait for."""
        return 1 if self.state.device.type == "cpu" else WINDOW

    def _asked(self) -> set[str]:
        """What is asked of the run, by a signal to any process or by a request. Several processes agree once a window, by a message."""
        accelerator = self.state.accelerator
        if accelerator.num_processes > 1 and len(self.window) < self._window:
            return set()
        found = self.requests.pending() if accelerator.is_main_process else set()
        if STOP in found and self.stop_request.signal_name is None:
            self.stop_request.signal_name = "a request"
        if self.stop_request.signal_name is not None:
            found.add(STOP)
        if accelerator.num_processes == 1:
            return found
        import torch

        counts = accelerator.reduce(torch.tensor([float(kind in found) for kind in KINDS], device=self.state.device), "sum")
        return {kind for kind, count in zip(KINDS, counts.tolist(), strict=True) if count > 0}

    # --- numbers

    def _read(self, step: int) -> None:
        """Copy the window's numbers to the CPU at once, check, log and report them."""
        import torch

        window, self.window = self.window, []
        accelerator = self.state.accelerator
        own = self.state.config.images_per_step  # most images of a process; short batches have fewer
        rests = [metrics.losses.new_zeros(own - len(metrics.losses)) for metrics in window]
        columns = zip(window, rests, strict=True)
        table = torch.stack([torch.cat([m.losses, rest, m.gradient_norm.to(m.losses).view(1)]) for m, rest in columns])
        if accelerator.num_processes > 1:
            table = accelerator.gather(table.unsqueeze(0)).permute(1, 0, 2)  # (steps, processes, images + 1)
        values = table.reshape(len(window), -1, own + 1).double().cpu()
        rows = []
        for metrics, row in zip(window, values, strict=True):
            counts = self._counts(metrics.step - 1)
            losses, norm = torch.cat([each[:count] for each, count in zip(row, counts, strict=True)]), float(row[0, -1])
            self._check(metrics, [float(loss) for loss in losses], norm)
            finite = {"gradient_norm": norm} if math.isfinite(norm) else {}
            rows.append({"step": metrics.step, "loss": float(losses.mean()), "lr": metrics.rate, **finite})
        self._log(rows)
        self.history.seconds = self._counted + self.pace.elapsed
        self.pace.steps = step - self._start
        steps = self.state.config.steps
        left = self.pace.seconds_left(steps - step, self._pauses_after(step))
        self.last = Tick("train", step, steps, values={"loss": rows[-1]["loss"], "steps/s": self.pace.rate}, seconds_left=left)
        self.report(self.last)

    def _pauses_after(self, step: int) -> dict[str, int]:
        """How often each pause is still due, the one after this step included. A checkpoint of a new best step is not foreseen."""
        return {kind: times_due(step - 1, self.state.config.steps, intervals) for kind, intervals in self._intervals().items()}

    def _check(self, metrics: StepMetrics, losses: Sequence[float], norm: float) -> None:
        """Raise JobFailed at the first number that is not finite, with the images it came from, before any checkpoint holds it."""
        bad = [place for place, loss in enumerate(losses) if not math.isfinite(loss)]
        scaled = self.state.precision is Precision.fp16
        self.overflows = self.overflows + 1 if scaled and not math.isfinite(norm) else 0
        if not bad and (math.isfinite(norm) or (scaled and self.overflows < OVERFLOWS)):
            return
        every = self._names(metrics.step - 1)
        names = dict.fromkeys([every[place] for place in bad] or every)
        what = f"the loss is {losses[bad[0]]}" if bad else f"the gradient's norm is {norm}"
        times = f" Timesteps of this process: {', '.join(f'{t:.0f}' for t in metrics.timesteps.tolist())}."
        kept = checkpoint.steps_of(self.folder)
        last = f" The last good weights are in {list(kept.values())[-1]}." if kept else " No checkpoint had been made."
        raise JobFailed(
            f"Step {metrics.step}: {what}, at a learning rate of {metrics.rate:.3g}. Images: {', '.join(names)}.{times}{last} "
            f"{self._advice(bool(bad))}"
        )

    def _counts(self, step: int) -> list[int]:
        """Images of each process in a step, from 0."""
        return [sum(len(batch.items) for batch in batches) for batches in zip(*self.state.order.step(step), strict=True)]

    def _names(self, step: int) -> list[str]:
        """Names of a step's images in the order of the gathered losses: process by process, pass by pass."""
        state = self.state
        columns = zip(*state.order.step(step), strict=True)
        return [state.items[item].sample.name for batches in columns for batch in batches for item in batch.items]

    def _advice(self, loss: bool) -> str:
        if self.state.precision is Precision.fp16:
            return "fp16 overflows in some models: try precision=bf16 or fp32, then a lower optim.lr."
        return f"Try a lower optim.lr (it is {self.state.config.optim.lr:g})" + (", and check these images." if loss else " or optim.clip.")

    def _log(self, rows: Sequence[Mapping[str, Any]]) -> None:
        for tracker in self.trackers:
            tracker.log(rows)

    # --- what is due

    def _after(self, step: int, asked: Collection[str]) -> None:
        due, stop = self._due(step), STOP in asked
        better = "held-out" in due and self._measure(step, seldom="checkpoint" in due)
        if (("previews" in due or self.stopped) and not stop) or SAMPLE in asked:
            self._draw(step)
        if "checkpoint" in due or stop or better or self.stopped or SAVE in asked:
            self.save(step, requested=SAVE in asked)
        if asked and self.state.accelerator.is_main_process:
            self._answer(step, asked)

    def _answer(self, step: int, asked: Collection[str]) -> None:
        """Say what was done of what was asked for, and take the requests away: they were answered."""
        if SAMPLE in asked:
            self.out(f"step {step}: {'previews are off' if self.previews is None else 'previews drawn, as requested'}")
        if SAVE in asked:
            self.out(f"step {step}: checkpoint saved, as requested; checkpoint.keep leaves it")
        self.requests.remove(asked)

    def _measure(self, step: int, *, seldom: bool) -> bool:
        """Held-out loss now; whether it is the lowest so far."""
        assert self.probe is not None
        with self._measuring("held-out", "held-out loss"):
            measured = self.probe.measure(self.state, model=self.state.model)
        bad = [name for name, loss in zip(self.probe.heldout.names, measured["losses"], strict=True) if not math.isfinite(loss)]
        if bad:
            raise JobFailed(f"Step {step}: the held-out loss of {', '.join(bad)} is not finite. {self._advice(False)}")
        self.history.heldout = [row for row in self.history.heldout if row["step"] != step] + [{"step": step, **measured}]
        self._stop_early(step)
        if seldom or self.stopped:
            with self._measuring("training images", "training images"):
                others = others_due(self.history, step, self.state.config.steps)
                more = self.probe.measure_seldom(self.state, model=self.state.model, others=others)
            if not all(math.isfinite(loss) for losses in more.values() for loss in losses):
                raise JobFailed(f"Step {step}: the loss of training images or generic captions is not finite. {self._advice(False)}")
            self.history.heldout[-1] |= more
            self._keep_images()
        found, mean = self.history.difference(step), self.history.mean(step)
        assert found is not None and mean is not None
        row: dict[str, Any] = {"step": step, "heldout": mean, "heldout_difference": found.mean, **parts_of(self.history.heldout[-1])}
        if found.low is not None and found.high is not None:
            row |= {"heldout_difference_low": found.low, "heldout_difference_high": found.high}
        self._log([row])
        self.out(f"step {step}: held-out loss {mean:.4f}, {found.sentence()}")
        return self.history.best_step == step

    @contextmanager
    def _measuring(self, kind: str, what: str) -> Iterator[None]:
        """A pause of this kind; the reports of its passes say what is measured, as the step stays the same meanwhile."""
        last = self.last or Tick("train", 0, self.state.config.steps)
        self.state.after_pass = lambda: self.report(replace(last, note=f"measuring {what}"))
        try:
            with self.pace.pause(kind):
                yield
        finally:
            self.state.after_pass = None
        self.report(last)

    def _stop_early(self, step: int) -> None:
        """Stop after this step where its measurement asks for it; of several processes the first decides."""
        config = self.state.config
        reason = early_stop(self.history, config.heldout, step=step) if 0 < step < config.steps else None
        asked = config.heldout.patience is not None or config.heldout.stop_when_worse
        if asked and self.state.accelerator.num_processes > 1:
            from accelerate.utils import broadcast_object_list

            (reason,) = broadcast_object_list([reason])
        self.stopped = Stopped(step, config.steps, reason) if reason else None
        if reason:
            self.out(f"step {step}: {reason}")

    def _keep_images(self) -> None:
        """Write the training images' losses so far."""
        if self.probe is not None and self.state.accelerator.is_main_process:
            write_images(self.folder, self.history, self.probe.image_names)

    def _draw(self, step: int) -> None:
        """Previews of this step. With too little memory for them, training continues without."""
        if self.previews is None or not self.state.accelerator.is_main_process:
            return
        import torch

        try:
            with self.pace.pause("previews"):
                self.previews.draw(self.state, step)
        except torch.OutOfMemoryError:
            self.previews = None
            torch.cuda.empty_cache()
            self.out(f"step {step}: not enough memory to draw previews beside the training; previews are off from here")

    def save(self, step: int, *, requested: bool = False) -> None:
        """Save a checkpoint of this step, and remove old ones, but for those that were requested."""
        accelerator = self.state.accelerator
        if accelerator.is_main_process:
            try:
                with self.pace.pause("checkpoint"):
                    checkpoint.save(
                        self.folder,
                        step,
                        write_adapter=lambda path: self._write_adapter(path, step),
                        training=training_state(self.state),
                        history=self.history.to_json(),
                        requested=requested,
                    )
            except OSError as error:
                raise JobFailed(f"The checkpoint of step {step} cannot be written ({error}). Make room and resume={self.folder}") from error
            config = self.state.config
            every = config.checkpoint.every or config.steps
            checkpoint.prune(self.folder, keep=config.checkpoint.keep, best=self.history.best_step, every=every, steps=config.steps)
        accelerator.wait_for_everyone()

    def _write_adapter(self, path: Path, step: int) -> None:
        with self.state.evaluating():
            self.write_adapter(path, step)

    def _leave(self, step: int) -> None:
        self.out(f"stopped after step {step}")
        raise Interrupted(
            f"Stopped by {self.stop_request.signal_name or 'another process'} after step {step} of {self.state.config.steps}. "
            f"The checkpoint is saved; resume with: {shell_line('loraloom', 'train', f'resume={self.folder}')}"
        )
