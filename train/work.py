"""The work of a run inside its folder: load, encode, train, export, prove, register. What a plan promised is done here."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.errors import JobFailed
from registry.families.base import Parts
from registry.progress import Report, Tick
from registry.record import Hashes
from registry.safefile import write_json
from train import checkpoint, export, folder
from train.base import load, resolve_device, torch_dtype
from train.config import Precision, to_plain
from train.curves import draw_curves
from train.encode import Cache, Texts, cached_bytes, encode_pictures, encode_texts, release
from train.estimate import human_bytes, human_seconds
from train.heldout import Probe
from train.interrupt import listening
from train.lora import add_lora
from train.loop import History, Loop, restore
from train.objective import objective_of
from train.optim import OPTIMIZERS
from train.plan import Plan, safe_name
from train.preview import PromptPreviews, encode_nothing
from train.report import preview_files, write_report
from train.run import Out, Outcome, inputs_of, record_resume
from train.step import Learner, denoiser_call
from train.trackers import open_trackers, read_metrics

if TYPE_CHECKING:
    import torch

    from registry.store import Store

log = logging.getLogger(__name__)

PACKAGES = ("loraloom", "torch", "diffusers", "transformers", "peft", "accelerate", "safetensors")
LISTED = 1000  # pictures that the manifest in the adapter's header names one by one; more are told by their number and hash


def start(plan: Plan, store: Store, *, report: Report, out: Out) -> Outcome:
    """Begin a run that was planned: make its folder, then do the work."""
    out(plan.to_text())
    accelerator = make_accelerator(plan)
    inputs = inputs_of(plan, store) if accelerator.is_main_process else {}
    place = [str(folder.make_folder(plan.config, str(plan.config.name), inputs))] if accelerator.is_main_process else [""]
    if accelerator.num_processes > 1:
        from accelerate.utils import broadcast_object_list

        broadcast_object_list(place)
    return _work(plan, Path(place[0]), None, store, accelerator, report, out)


def go_on(
    plan: Plan, place: Path, newest: checkpoint.Checkpoint | None, store: Store, *, changes: Mapping[str, Any], report: Report, out: Out
) -> Outcome:
    """Go on in a run's folder from a checkpoint, or from step 0."""
    accelerator = make_accelerator(plan)
    step = newest.step if newest else 0
    out(f"going on with {place} after step {step} of {plan.config.steps}")
    if accelerator.is_main_process:
        record_resume(place, plan, step=step, changes=changes)
    accelerator.wait_for_everyone()
    return _work(plan, place, newest, store, accelerator, report, out)


def make_accelerator(plan: Plan) -> Any:
    """accelerate's Accelerator for the plan's device and precision; under `accelerate launch` one of several."""
    import torch
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, GradientState, PartialState

    if PartialState._shared_state and PartialState().num_processes == 1:
        AcceleratorState._reset_state(reset_partial_state=True)  # an earlier run of this process may have had another device
        GradientState._reset_state()
    device = resolve_device(plan.config.device)
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    scaled = plan.config.precision is Precision.fp16
    return Accelerator(cpu=device.type == "cpu", mixed_precision="fp16" if scaled else "no")


def _work(
    plan: Plan, place: Path, newest: checkpoint.Checkpoint | None, store: Store, accelerator: Any, report: Report, out: Out
) -> Outcome:
    main = accelerator.is_main_process
    begun = time.perf_counter()
    with folder.held(place) if main else contextlib.nullcontext(), listening() as wish:
        if main:
            folder.sweep(place)
        work = prepare(plan, place, accelerator, report=report, out=out)
        history = History()
        if newest is not None:
            restore(work.learner, newest, export.read_adapter(newest.adapter, plan.base.family))
            history = History(**newest.history)
        seconds_before = history.seconds
        trackers = open_trackers(place, plan.config, after=newest.step if newest else 0) if main else []
        try:
            Loop(
                learner=work.learner,
                folder=place,
                names=[sample.name for sample in plan.train],
                probe=work.probe,
                previews=work.previews,
                trackers=trackers,
                write_adapter=lambda path, step: _write(work, path, step),
                history=history,
                report=report,
                out=out if main else (lambda _line: None),
                wish=wish,
            ).run(newest.step if newest else 0)
        finally:
            for tracker in trackers:
                tracker.close()
        accelerator.wait_for_everyone()
        result: dict[str, Any] = {}
        if main:
            result = _finish(work, history, store, seconds_before=seconds_before, begun=begun)
        accelerator.wait_for_everyone()
        accelerator.end_training()
    return Outcome(place, result)


@dataclass(kw_only=True)
class Work:
    """A run that is ready to take steps."""

    plan: Plan
    folder: Path
    learner: Learner
    probe: Probe | None
    previews: PromptPreviews | None
    report: Report
    out: Out
    inputs: Mapping[str, Any] = field(default_factory=dict)


def prepare(plan: Plan, place: Path, accelerator: Any, *, report: Report, out: Out) -> Work:
    """Load the base, encode pictures and prompts, let the encoders go, put the LoRA on."""
    config, family = plan.config, plan.base.family
    device: torch.device = accelerator.device
    report(Tick("load the base", 0, 1, plan.base.name))
    parts = load(plan.base, config, dtype=torch_dtype(config.precision))
    report(Tick("load the base", 1, 1, plan.base.name))
    with accelerator.main_process_first():
        pictures = _Encoder(plan, parts, device, report)
        latents, held_latents = pictures.latents()
        texts, held_texts, preview_texts = pictures.texts()
        nothing = encode_nothing(family, parts, device=device) if preview_texts else None
    kept = cached_bytes(latents, texts)
    release(parts)
    out(f"encoded {len(plan.train) + len(plan.heldout)} pictures ({human_bytes(kept)} in memory); the text encoders are let go")
    objective = objective_of(parts.prediction, parts.scheduler_class, parts.scheduler_config, distribution=str(config.objective.timesteps))
    weights = add_lora(parts.denoiser, config, plan.targets)
    parts.denoiser.to(device)
    if config.gradient_checkpointing:
        parts.denoiser.enable_gradient_checkpointing()  # type: ignore[operator]  # diffusers is untyped
    parts.denoiser.train()
    optimizer = OPTIMIZERS[config.optim.name]([weight for _, weight in weights], config.optim)
    model, optimizer = accelerator.prepare(denoiser_call(family, parts), optimizer)
    learner = Learner(
        config=config,
        family=family,
        parts=parts,
        accelerator=accelerator,
        model=model,
        weights=weights,
        optimizer=optimizer,
        objective=objective,
        latents=latents,
        texts=texts,
        resolution=int(config.resolution or parts.resolution),
        precision=config.precision,
        guidance=config.objective.guidance if config.objective.guidance is not None else 1.0,
    )
    probe = None
    if held_latents is not None and held_texts is not None:
        names, hashes = [sample.name for sample in plan.heldout], [sample.sha256 for sample in plan.heldout]
        probe = Probe(latents=held_latents, texts=held_texts, sha256s=hashes, names=names)
    previews = None
    if preview_texts is not None:
        previews = PromptPreviews(config=config, folder=place, texts=preview_texts, nothing=nothing, report=report)
    inputs = folder.read_json(place / folder.INPUTS) or {}
    return Work(plan=plan, folder=place, learner=learner, probe=probe, previews=previews, report=report, out=out, inputs=inputs)


@dataclass(frozen=True)
class _Encoder:
    """The plan's pictures and prompts through the caches."""

    plan: Plan
    parts: Parts
    device: torch.device
    report: Report

    def latents(self) -> tuple[Any, Any]:
        """Of the training pictures, and of the held-out ones (None without any)."""
        plan = self.plan
        both = [*plan.train, *plan.heldout]
        resolution = int(plan.config.resolution or self.parts.resolution)
        every = encode_pictures(
            plan.base.family, self.parts, both, resolution=resolution, device=self.device, cache=Cache("latents"), report=self.report
        )
        return every.part(0, len(plan.train)), every.part(len(plan.train), len(both)) if plan.heldout else None

    def texts(self) -> tuple[Texts, Texts | None, Texts | None]:
        """Of the training prompts, the held-out ones, the previews'."""
        plan = self.plan
        previews = plan.config.preview.prompts or []
        counts = (len(plan.prompts), len(plan.heldout_prompts), len(previews))
        every = encode_texts(
            plan.base.family,
            self.parts,
            [*plan.prompts, *plan.heldout_prompts, *previews],
            device=self.device,
            cache=Cache("texts"),
            report=self.report,
        )
        first, second = counts[0], counts[0] + counts[1]
        held = every.part(first, second) if counts[1] else None
        return every.part(0, first), held, every.part(second, sum(counts)) if counts[2] else None


# --- what is written


def _write(work: Work, path: Path, step: int) -> Hashes:
    """The adapter at a step, with everything that made it in its header."""
    learner, plan = work.learner, work.plan
    header = export.metadata(
        plan.base.family, learner.parts.denoiser, title=str(plan.config.name), facts=_spec(work), manifest=_manifest(work, step)
    )
    return export.write_adapter(path, plan.base.family, learner.parts.denoiser, header)


def _spec(work: Work) -> dict[str, str]:
    """ModelSpec keys of this run beside the fixed ones."""
    config = work.plan.config
    facts = {
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "resolution": f"{config.resolution}x{config.resolution}",
        "description": f"LoRA, rank {config.lora.rank}, trained with LoRA Loom on {work.plan.base.name}",
    }
    prediction = export.PREDICTION.get(work.learner.parts.prediction)
    facts |= {"prediction_type": prediction} if prediction else {}
    return facts | ({"trigger_phrase": config.data.trigger} if config.data.trigger else {})


def _manifest(work: Work, step: int) -> dict[str, Any]:
    """What made the adapter: settings, base, every picture with its hash and prompt, versions, resumes."""
    data = dict(work.inputs.get("dataset", {}))
    if len(data.get("files", ())) > LISTED:
        data["files"] = f"{len(data['files'])} pictures; inputs.json of the run lists them"
    return {
        "tool": "loraloom",
        "run": f"{work.plan.config.name}/{work.folder.name}",
        "step": step,
        "config": to_plain(work.plan.config),
        "base": work.inputs.get("base", {}),
        "dataset": data,
        "resumes": work.inputs.get("resumes", []),
        "versions": _versions(),
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


# --- the end


def _finish(work: Work, history: History, store: Store, *, seconds_before: float, begun: float) -> dict[str, Any]:
    """Export, prove, register, draw the curves, and write result.json last of all."""
    plan, place = work.plan, work.folder
    steps = plan.config.steps
    path = place / f"{plan.config.name}.safetensors"
    report = work.report
    report(Tick("save and prove", 0, 3, "write"))
    hashes = _write(work, path, steps)
    kept = _proof(work)
    report(Tick("save and prove", 1, 3, "load on a fresh base"))
    _let_go(work)
    fresh = load(plan.base, plan.config, dtype=torch_dtype(plan.config.precision))
    fresh.denoiser.to(work.learner.device)
    try:
        difference = export.verify(path, plan.base.family, fresh, kept)
    except JobFailed:
        path.rename(path.with_suffix(".refused"))
        raise
    work.out(f"saved {path}; on a fresh base it predicts the same (largest difference {difference:.2g})")
    report(Tick("save and prove", 2, 3, "register"))
    name = register(work, path, hashes, store)
    draw_curves(read_metrics(place), place / "curves.png", title=f"{plan.config.name} on {plan.base.name}")
    best = history.best_step
    found = None if best is None else {"base": history.base_mean, "final": history.mean(steps), "best": history.mean(best)}
    seconds = seconds_before + time.perf_counter() - begun
    page = write_report(
        place, title=f"{plan.config.name} on {plan.base.name}", facts=_facts(work, history, name, seconds), prompts=plan.config.preview.prompts or [], plan=plan.to_text()
    )
    result = {
        "adapter": name,
        "files": {export.DIALECT: str(path)},
        "base": plan.base.name,
        "steps": steps,
        "seconds": round(seconds, 3),
        "heldout": found,
        "best_step": best,
        "previews": [str(file) for file in preview_files(place).values()],
        "report": str(page),
    }
    write_json(place / folder.RESULT, result)
    report(Tick("save and prove", 3, 3))
    for line in _verdict(work, history):
        work.out(line)
    return result


def _proof(work: Work) -> export.Proof:
    learner = work.learner
    return export.proof(
        learner.family,
        learner.parts,
        learner.objective,
        learner.texts,
        shape=learner.latents.shape,
        side=learner.resolution,
        guidance=learner.guidance,
    )


def _let_go(work: Work) -> None:
    """Free the trained model before a fresh one is loaded beside it."""
    from torch import nn

    learner = work.learner
    learner.parts.denoiser = learner.parts.vae = nn.Module()
    learner.model = learner.optimizer = None
    learner.weights = ()
    learner.accelerator.free_memory()


def _verdict(work: Work, history: History) -> Iterator[str]:
    """What the held-out pictures say, in a sentence or two."""
    steps, best = work.plan.config.steps, history.best_step
    found = history.difference(steps)
    if best is None or found is None:
        yield "no held-out pairs: which step is the best cannot be told"
        return
    yield f"held-out loss {history.base_mean:.4f} (base) -> {history.mean(steps):.4f} (LoRA): {found.sentence()}"
    if best != steps:
        yield f"it was lowest after step {best} ({history.mean(best):.4f}); that checkpoint is kept as {work.plan.config.name}@step-{best}"


def _facts(work: Work, history: History, name: str, seconds: float) -> list[tuple[str, str]]:
    plan = work.plan
    rows = [
        ("adapter", name),
        ("base", f"{plan.base.name} ({plan.base.family.title})"),
        ("pictures", f"{len(plan.train)} trained, {len(plan.heldout)} held out"),
        ("steps", f"{plan.config.steps} of {plan.config.pictures_a_step} pictures, {human_seconds(seconds)} in all"),
        ("rank, alpha", f"{plan.config.lora.rank}, {plan.config.alpha:g} on {plan.layers} layers ({plan.parameters:,} weights)"),
    ]
    return rows + [("held out", line) for line in _verdict(work, history)]


def register(work: Work, path: Path, hashes: Hashes, store: Store) -> str:
    """Put dataset, run and adapter into the index with their lineage; gives the adapter's name there."""
    plan, inputs = work.plan, work.inputs
    config = to_plain(plan.config)
    base = {"role": "base", "ref": plan.base.name, "sha256": inputs["base"]["sha256"]}
    dataset = {"role": "dataset", "ref": _dataset_name(plan, store), "sha256": plan.dataset.sha256}
    store.add_run(work.folder, name=str(plan.config.name), parents=[base, dataset], recipe=config)
    record = store.add(
        path,
        name=plan.config.name,
        kind="adapter",
        family=plan.base.family.name,
        parents=[base, dataset, {"role": "run", "ref": str(work.folder), "sha256": None}],
        recipe=config,
        triggers=[plan.config.data.trigger] if plan.config.data.trigger else [],
    )
    log.info("registered %s, sha256 %s", record.name, hashes.sha256)
    return record.name



def _dataset_name(plan: Plan, store: Store) -> str:
    """The set's name in the index; one that lies on no disk of ours is only named."""
    place = Path(plan.dataset.path)
    if not place.exists():
        return plan.dataset.path
    held_out = sum(1 for sample in plan.heldout if sample not in plan.dataset.samples)
    metadata = {"pictures": len(plan.dataset.samples), "heldout_pictures": held_out}
    return store.add_dataset(place, name=safe_name(place.stem), sha256=plan.dataset.sha256, metadata=metadata).name
