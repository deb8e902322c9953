"""Runs a plan inside its run folder: prepare, train, finish."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.architectures.attention import without_cudnn
from registry.errors import Refused
from registry.files.locks import held
from registry.files.made_folders import note_made
from registry.files.progress_file import NAME as PROGRESS
from registry.files.progress_file import ProgressFile
from registry.formats.atomic_file import write_json
from registry.home import home_dir
from registry.progress import Report
from train.config import Precision
from train.loop import checkpoint
from train.loop.history import History, history_of
from train.loop.interrupt import catch_signals
from train.loop.loop import Loop
from train.loop.prepare import prepare
from train.loop.saved_state import restore
from train.loop.trackers import open_trackers
from train.output import export, folder
from train.output.embeddings import write_weights
from train.output.finish import finish
from train.output.inputs import inputs_of, record_resume, started_now
from train.output.requests import Requests
from train.plan.base import resolve_device
from train.plan.plan import Plan
from train.plan.traces import keep_made
from train.run_types import Log, Outcome, discard

if TYPE_CHECKING:
    from registry.store import Store


def start(plan: Plan, store: Store, *, report: Report, out: Log) -> Outcome:
    """Start a planned run in a new run folder."""
    accelerator = make_accelerator(plan)
    out = out if accelerator.is_main_process else discard
    for line in plan.to_text().split("\n"):
        out(line)
    inputs = {"started": started_now(), **inputs_of(plan, store)} if accelerator.is_main_process else {}
    place = [str(folder.make_folder(plan.config, str(plan.config.name), inputs))] if accelerator.is_main_process else [""]
    for other in folder.in_use_beside(Path(place[0])) if accelerator.is_main_process else []:
        out(f"{plan.config.name} is being trained in {other} too: the name will be that of the one which ends last")
    if accelerator.num_processes > 1:
        from accelerate.utils import broadcast_object_list

        broadcast_object_list(place)
    return _execute(plan, Path(place[0]), None, store, accelerator, report, out)


def resume_from(
    plan: Plan, place: Path, newest: checkpoint.Checkpoint | None, store: Store, *, changes: Mapping[str, Any], report: Report, out: Log
) -> Outcome:
    """Resume in a run folder from a checkpoint, or from step 0."""
    accelerator = make_accelerator(plan)
    out = out if accelerator.is_main_process else discard
    out(f"resuming {place} after step {newest.step if newest else 0} of {plan.config.steps}")
    return _execute(plan, place, newest, store, accelerator, report, out, changes=changes)


def make_accelerator(plan: Plan) -> Any:
    """accelerate's Accelerator for the plan's device and precision; under `accelerate launch` one of several."""
    import torch
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, GradientState, PartialState
    from accelerate.utils import DistributedDataParallelKwargs, GradientAccumulationPlugin

    if PartialState._shared_state and PartialState().num_processes == 1:
        AcceleratorState._reset_state(reset_partial_state=True)  # an earlier run of this process may have had another device
        GradientState._reset_state()
    device = resolve_device(plan.config.device)
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    scaled = plan.config.precision is Precision.fp16
    accelerator = Accelerator(
        cpu=device.type == "cpu",
        mixed_precision="fp16" if scaled else "no",
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),  # a plugin overrules the environment
        # buffers are the base's, the weights of a quantised one among them: every process has them
        kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
    )
    if accelerator.num_processes != plan.processes:
        raise Refused(
            f"The plan counts {plan.processes} processes, and accelerate started {accelerator.num_processes}: its steps would be others."
            " Launch with accelerate launch or torchrun."
        )
    return accelerator


def _execute(
    plan: Plan,
    place: Path,
    newest: checkpoint.Checkpoint | None,
    store: Store,
    accelerator: Any,
    report: Report,
    out: Log,
    *,
    changes: Mapping[str, Any] | None = None,
) -> Outcome:
    """`changes` None: a new run; else the settings that a resume changes."""
    main = accelerator.is_main_process
    begun, start_step = time.perf_counter(), newest.step if newest else 0
    with _held(place, report, out) if main else contextlib.nullcontext(report) as report, without_cudnn():
        if main:
            folder.sweep(place)
            if changes is not None:
                checkpoint.set_aside(place, after=start_step, out=out)
                record_resume(place, plan, step=start_step, changes=changes)
            write_json(place / folder.PLAN, {**plan.to_json(), "text": plan.to_text()})
            with held(home_dir() / "cache", shared=True):
                keep_made()
        accelerator.wait_for_everyone()
        work = prepare(plan, place, accelerator, report=report, out=out)
        history = History()
        if newest is not None:
            restore(work.state, newest, export.read_adapter(newest.adapter))
            history = history_of(newest)
        seconds_before = history.seconds
        trackers = open_trackers(place, plan.config, after=start_step) if main else []
        reading = held(home_dir() / "cache", shared=True) if plan.streams else contextlib.nullcontext()  # gc leaves what is read
        try:
            with reading, catch_signals() as stop_request:
                stopped = Loop(
                    state=work.state,
                    folder=place,
                    probe=work.probe,
                    previews=work.previews,
                    trackers=trackers,
                    write_adapter=lambda path, step: write_weights(work, path, step),
                    history=history,
                    report=report,
                    out=out,
                    stop_request=stop_request,
                    requests=Requests(place),
                ).run(start_step)
        finally:
            for tracker in trackers:
                tracker.close()
        accelerator.wait_for_everyone()
        result = finish(work, history, store, stopped=stopped, seconds_before=seconds_before, begun=begun) if main else {}
        accelerator.wait_for_everyone()
        accelerator.end_training()
    return Outcome(place, result)


@contextlib.contextmanager
def _held(place: Path, report: Report, out: Log) -> Iterator[Report]:
    """The run folder held for this process, which answers requests in it; the Report keeps progress.json there as long as it is."""
    note_made(place)
    with folder.held(place):
        requests, kept = Requests(place), ProgressFile(place / PROGRESS, report)
        requests.remove()  # of a process that was killed
        try:
            yield kept
        finally:
            kept.remove()
            if late := requests.pending():
                out(f"requests that came too late: {', '.join(sorted(late))}")
            requests.remove()
