"""The end of a run: the adapter written, verified on a fresh base and registered; curves, report and result.json."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.detect.licences import Terms, inherited
from registry.errors import Ambiguous, JobFailed, NotFound, Refused
from registry.files.locks import held
from registry.formats.atomic_file import write_json
from registry.formats.dialects import writing_of
from registry.progress import Tick
from registry.record import Hashes, Record
from train.config import TrainConfig, changed, get, to_plain
from train.loop import checkpoint
from train.loop.loop import History
from train.loop.prepare import Work
from train.loop.trackers import read_metrics
from train.lora import set_lora_tensors
from train.output import export, folder, inputs
from train.output.curves import draw_curves
from train.output.kohya_metadata import training_metadata
from train.output.report import preview_files, write_report
from train.output.verdict import Verdict, verdict_json, verdict_of
from train.plan.base import load, precision_dtype
from train.plan.defaults import safe_name
from train.plan.estimate import human_seconds
from train.plan.plan import Plan

if TYPE_CHECKING:
    from registry.store import Store

log = logging.getLogger(__name__)

PACKAGES = ("loraloom", "torch", "diffusers", "transformers", "peft", "accelerate", "safetensors")
KOHYA = "kohya"
WHERE = ("out", "resume", "dry_run")  # settings that make no difference to the adapter
PLACES = ("base", "base_config", "data.path", "heldout.path")  # settings that may be paths
LISTED = 1000  # images that the manifest in the adapter's header names one by one; more are given by their number and hash


def write_adapter(work: Work, path: Path, step: int) -> Hashes:
    """Write the adapter of a step with its manifest in the header."""
    state, plan = work.state, work.plan
    header = export.metadata(
        plan.base.family, state.modules, title=str(plan.config.name), facts=_spec(work), manifest=_manifest(work, step)
    )
    digest = work.inputs.get("base", {}).get("sha256") if plan.base.path.is_file() else None
    return export.write_adapter(
        path, state.modules, {**header, **training_metadata(plan, step, base_sha256=digest), **_terms(plan).entries()}
    )


def _spec(work: Work) -> dict[str, str]:
    """ModelSpec keys of this run beside the fixed ones."""
    config = work.plan.config
    facts = {
        "architecture": f"{work.plan.base.family.architecture_of(work.state.parts)}/lora",
        "date": inputs.started_day(work.inputs),
        "resolution": f"{config.resolution}x{config.resolution}",
        "description": f"LoRA, rank {config.lora.rank}, trained with LoRA Loom on {work.plan.base.name}",
    }
    prediction = export.PREDICTION.get(work.state.parts.prediction)
    facts |= {"prediction_type": prediction} if prediction else {}
    if config.clip_skip:
        facts["encoder_layer"] = str(work.plan.base.family.clip_layer + config.clip_skip)  # of CLIP, counted from the end
    facts |= {"trigger_phrase": config.data.trigger} if config.data.trigger else {}
    return {name: fact for name, fact in facts.items() if fact}


def _manifest(work: Work, step: int) -> dict[str, Any]:
    """The adapter's manifest: settings, base, every image with its hash and prompt, versions, changes by resumes.

    Nothing of where and when it ran: the same training gives the same bytes, straight or resumed, in any folder.
    """
    data, base = ({**work.inputs.get(part, {})} for part in ("dataset", "base"))
    for entry in (data, base):
        entry["path"] = last_name(str(entry.get("path", "")))
    if len(data.get("files", ())) > LISTED:
        data["files"] = f"{len(data['files'])} images; inputs.json of the run lists them"
    return {
        "tool": "loraloom",
        "run": str(work.plan.config.name),
        "step": step,
        "config": without_places(work.plan.config),
        "base": base,
        "dataset": data,
        "resumes": [{"step": row["step"], "changes": row["changes"]} for row in work.inputs.get("resumes", []) if row["changes"]],
        "versions": _versions(),
    }


def without_places(config: TrainConfig) -> dict[str, Any]:
    """The settings as plain values without folders of this machine: of a path its last name, and nothing of where the run is."""
    names = {name: last_name(str(value)) for name in PLACES if (value := get(config, name)) is not None}
    return {name: value for name, value in to_plain(changed(config, names)).items() if name not in WHERE}


def last_name(path: str) -> str:
    """The last part of an absolute path; another text as it is."""
    return Path(path).name or path if Path(path).is_absolute() else path


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def finish(work: Work, history: History, store: Store, *, seconds_before: float, begun: float) -> dict[str, Any]:
    """Export, verify and register the adapter, draw the curves, and write result.json last."""
    plan, place = work.plan, work.folder
    steps = plan.config.steps
    path = place / f"{plan.config.name}.safetensors"
    report = work.report
    verdict = verdict_of(history, steps)
    report(Tick("save and prove", 0, 3, "write"))
    with _weights_to_use(work, verdict) as used:
        hashes = write_adapter(work, path, used)
        kept = _proof(work)
    report(Tick("save and prove", 1, 3, "load on a fresh base"))
    difference = _verified(work, path, kept)
    work.out(f"saved {path}; verified on a fresh base (largest difference {difference:.2g})")
    report(Tick("save and prove", 2, 3, "register"))
    files = {export.DIALECT: str(path)} | _for_other_tools(work, path, hashes)
    name = register(work, path, hashes, store)
    draw_curves(read_metrics(place), place / "curves.png", title=f"{plan.config.name} on {plan.base.name}")
    lines = _verdict(plan, verdict, used)
    seconds = seconds_before + time.perf_counter() - begun
    page = write_report(
        place,
        title=f"{plan.config.name} on {plan.base.name}",
        facts=_facts(plan, lines, name, seconds),
        prompts=plan.config.preview.prompts or [],
        plan=plan.to_text(),
    )
    result = {
        "adapter": name,
        "files": files,
        "base": plan.base.name,
        "steps": steps,
        "seconds": round(seconds, 3),
        "heldout": verdict_json(verdict),
        "best_step": history.best_step,
        "adapter_step": used,
        "previews": [str(file) for file in preview_files(place).values()],
        "report": str(page),
    }
    write_json(place / folder.RESULT, result)
    report(Tick("save and prove", 3, 3))
    for line in lines:
        work.out(line)
    return result


@contextlib.contextmanager
def _weights_to_use(work: Work, verdict: Verdict | None) -> Iterator[int]:
    """The model with the weights that get the run's name, ready to be used; gives their step."""
    last = work.plan.config.steps
    step = last if verdict is None else verdict.step_to_use(work.plan.config.checkpoint.load_best_at_end)
    if step == last:
        with work.state.evaluating():
            yield last
        return
    found = checkpoint.read(checkpoint.steps_of(work.folder)[step])  # kept, being the best; its adapter has the weights to use
    scale = work.plan.config.alpha / work.plan.config.lora.rank  # which the file's factors hold, and the model multiplies by
    up = writing_of(export.DIALECT).up
    tensors = {name: tensor / scale if name.endswith(up) else tensor for name, tensor in export.read_adapter(found.adapter).items()}
    set_lora_tensors(work.state.modules, tensors)
    for module in work.state.modules.values():
        module.train(False)
    yield step


def _verified(work: Work, path: Path, kept: export.Proof) -> float:
    """Largest difference between the trained model's predictions and those of the file on a fresh base.

    Raises JobFailed for another adapter than was trained; the file is then renamed to .refused.
    """
    _free_model(work)
    fresh = load(work.plan.base, work.plan.config, dtype=precision_dtype(work.plan.config.precision))
    for module in (fresh.denoiser, *fresh.text_encoders.values()):
        module.to(work.state.device)
    try:
        return export.verify(path, work.plan.base.family, fresh, kept)
    except JobFailed:
        path.rename(path.with_suffix(".refused"))
        raise


def _for_other_tools(work: Work, path: Path, hashes: Hashes) -> dict[str, str]:
    """The same adapter in the keys of ComfyUI, A1111 and sd-scripts, its products verified: {dialect: path}.

    Layers that those tools have no key for are reported, and then no such file is written: a part would be another adapter.
    """
    from registry.converting.adapters import plan_adapter, write_planned

    base, target = work.plan.base, path.with_name(f"{path.stem}-{KOHYA}.safetensors")
    try:
        plan = plan_adapter(path, target, target=KOHYA, family=base.family.name, base=base.path, dtype=None)
    except Refused as error:
        work.out(f"not written with {KOHYA} keys: {error}")
        return {}
    write_planned(plan, parents=[{"role": "source", "ref": path.name, "sha256": hashes.sha256}])
    work.out(f"saved {target}: the same adapter in the keys of ComfyUI and A1111")
    return {KOHYA: str(target)}


def _proof(work: Work) -> export.Proof:
    state = work.state
    return export.proof(
        state.family,
        state.parts,
        state.modules,
        state.objective,
        state.texts,
        shape=state.latents.shape,
        side=state.resolution,
        guidance=state.guidance,
        clip_skip=state.config.clip_skip,
    )


def _free_model(work: Work) -> None:
    """Free the trained model before a fresh one is loaded beside it."""
    from torch import nn

    state = work.state
    state.parts.denoiser = state.parts.vae = nn.Module()
    state.parts.text_encoders.clear()
    state.modules = {}
    state.model = state.optimizer = None
    state.weights = ()
    state.accelerator.free_memory()


def _verdict(plan: Plan, found: Verdict | None, used: int) -> list[str]:
    """The held-out result in a few sentences."""
    if found is None:
        return ["no held-out images: the best step is unknown"]
    return list(found.sentences(str(plan.config.name), used))


def _facts(plan: Plan, verdict: Sequence[str], name: str, seconds: float) -> list[tuple[str, str]]:
    rows = [
        ("adapter", name),
        ("base", f"{plan.base.name} ({plan.base.family.title})"),
        ("images", f"{len(plan.train)} trained, {len(plan.heldout)} held out"),
        ("steps", f"{plan.config.steps} of {plan.config.images_per_step} images, {human_seconds(seconds)} in all"),
        ("rank, alpha", f"{plan.config.lora.rank}, {plan.config.alpha:g} on {plan.layers} layers ({plan.parameters:,} weights)"),
    ]
    return rows + [("held out", line) for line in verdict]


def register(work: Work, path: Path, hashes: Hashes, store: Store) -> str:
    """Register dataset, run and adapter with their lineage; gives the adapter's registered name."""
    plan, name = work.plan, str(work.plan.config.name)
    config = to_plain(plan.config)
    base = {"role": "base", "ref": plan.base.name, "sha256": work.inputs["base"]["sha256"]}
    dataset = {"role": "dataset", "ref": _dataset_name(plan, store), "sha256": plan.dataset.sha256}
    with held(store.home / "registering"):  # run and adapter of a name belong together, also when two trainings of it end at once
        before = _named(store, name)
        store.add_run(work.folder, name=name, parents=[base, dataset], recipe=config)
        record = store.add(
            path,
            name=name,
            licence=_terms(plan).licence,
            kind="adapter",
            family=plan.base.family.name,
            parents=[base, dataset, {"role": "run", "ref": str(work.folder), "sha256": None}],
            recipe=config,
            triggers=[plan.config.data.trigger] if plan.config.data.trigger else [],
        )
        if before is not None and before.id != record.id:
            work.out(f"the name {name} was {before.path}'s until now: that adapter is {store.find(before.id, fresh=False).name}")
    log.info("registered %s, sha256 %s", record.name, hashes.sha256)
    return record.name


def _named(store: Store, name: str) -> Record | None:
    """The adapter that has the name so far."""
    try:
        return store.find(name, kind="adapter", fresh=False)
    except (NotFound, Ambiguous, Refused):
        return None


def _terms(plan: Plan) -> Terms:
    """The licence terms that an adapter inherits from its base; image sets have none recorded."""
    return inherited([(plan.base.name, plan.base.record.licence)])


def _dataset_name(plan: Plan, store: Store) -> str:
    """The set's name in the index; a set that is not on this disk is only named."""
    place = Path(plan.dataset.path)
    if not place.exists():
        return plan.dataset.path
    held_out = sum(1 for sample in plan.heldout if sample not in plan.dataset.samples)
    metadata = {"pictures": len(plan.dataset.samples), "heldout_pictures": held_out}
    return store.add_dataset(place, name=safe_name(place.stem), sha256=plan.dataset.sha256, metadata=metadata).name
