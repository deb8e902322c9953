"""The end of a run: the adapter written, verified on a fresh base and registered; curves, report and result.json."""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.budget.freed import give_back
from registry.errors import JobFailed, Refused
from registry.formats.atomic_file import write_json
from registry.formats.dialects import writing_of
from registry.formats.image_file import decode
from registry.printable import shell_line
from registry.progress import Tick
from registry.record import Hashes
from registry.swapping.swap import BlockSwap
from train.data.images import fit
from train.loop import checkpoint
from train.loop.history import History
from train.loop.prepare import Work
from train.loop.trackers import read_metrics
from train.lora import kind_of, scales, set_lora_tensors
from train.measures.early_stop import Stopped
from train.measures.facts import facts_of
from train.output import export, folder
from train.output.curves import draw_curves
from train.output.embeddings import Embedding, put_back, with_embeddings, write_embeddings
from train.output.few_step_test import run_few_step_test, sentences
from train.output.header import write_adapter
from train.output.judgement import judge, judgement_json
from train.output.register import register
from train.output.style import StyleCurve, style_curve
from train.output.verdict import Verdict, losses_of, verdict_json, verdict_of
from train.plan.base import load, precision_dtype
from train.plan.plan import Plan
from train.preference.learned import Learned, judged_by, learned_of
from train.run_report.page import NAME, write_page
from train.run_report.read import preview_files
from train.run_report.report import make_report
from train.slider.measure import measure
from train.tokens.wording import trained_of

if TYPE_CHECKING:
    from registry.store import Store

KOHYA = "kohya"
OWN = "loraloom"  # the file of a kind that diffusers does not read
STYLE_IMAGES = 64  # held-out images that the previews' style is compared with


def finish(
    work: Work, history: History, store: Store, *, stopped: Stopped | None = None, seconds_before: float, begun: float
) -> dict[str, Any]:
    """Export, verify and register the adapter, draw the curves, and write result.json last."""
    plan, place = work.plan, work.folder
    steps = stopped.step if stopped else plan.config.steps
    path = place / f"{plan.config.name}.safetensors"
    report = work.report
    verdict = verdict_of(history, steps)
    report(Tick("save and prove", 0, 3, "write"))
    with _weights_to_use(work, verdict) as used:
        hashes = write_adapter(work, path, used) if plan.layers else None
        written = write_embeddings(work, used)
        kept = _proof(work)
        speed = run_few_step_test(work)
        reach = None if work.slider is None else measure(work.state, work.slider)
    report(Tick("save and prove", 1, 3, "load on a fresh base"))
    difference = _verified(work, path, kept, written)
    saved = [path] * bool(hashes) + [one.path for one in written]
    work.out(f"saved {' and '.join(map(str, saved))}; verified on {_fresh_base(plan)} (largest difference {difference:.2g})")
    report(Tick("save and prove", 2, 3, "register"))
    files = _files(work, path, hashes, written)
    name, embeddings = register(work, path if hashes else None, written, store)
    trained, learned = trained_of(plan.config), learned_of(plan, history)
    draw_curves(
        read_metrics(place), place / "curves.png", title=f"{plan.config.name} on {plan.base.name}", label=f"with the {trained.name}"
    )
    judged, judgement = _judged(work, history, learned)
    facts = facts_of(plan, history, work.probe.image_names if work.probe else ())
    early = [stopped.sentence()] if stopped else []
    voted = learned.sentences()[1:] if learned else []
    held = _verdict(plan, verdict, used)
    lines = [*judged, *voted, *early, *held, *sentences(speed), *([reach.sentence()] if reach else []), *facts.sentences(trained)]
    seconds = seconds_before + time.perf_counter() - begun
    result = {
        "adapter": name,
        "files": files,
        "embeddings": embeddings,
        "base": plan.base.name,
        "quantised": quantised_json(work),
        "memory": plan.memory.to_json() if plan.memory else None,
        "steps": steps,
        "stopped_early": stopped.to_json() if stopped else None,
        "seconds": round(seconds, 3),
        "heldout": verdict_json(verdict, losses_of(history, steps, [sample.name for sample in plan.heldout])),
        "verdict": None if judgement is None else judgement | facts.verdict_json(),
        "outliers": [found.to_json() for found in facts.outliers],
        "sentences": lines,
        "slider": reach.to_json() if reach else None,
        "preferences": learned.to_json() if learned else None,
        "few_step": speed.to_json() if speed else None,
        "best_step": history.best_step,
        "adapter_step": used,
        "previews": [str(file) for file in preview_files(place).values()],
        "report": str(place / NAME),
    }
    write_page(make_report(place, result=result, report=report))
    write_json(place / folder.RESULT, result)
    report(Tick("save and prove", 3, 3))
    for line in lines:
        work.out(line)
    return result


def quantised_json(work: Work) -> dict[str, Any] | None:
    """What the base was quantised to, the weight error of each component, and what the adapter was proven on; None: it was not."""
    config = work.plan.config
    if not work.plan.quantised:
        return None
    return {
        "base_dtype": config.base_dtype,
        "text_encoder_dtype": config.text_encoder_dtype,
        "layers": {name: dict(kept) for name, kept in work.plan.quantised.items()},
        "compute": config.compute,
        "components": {name: error.to_json() for name, error in work.quantised.items()},
        "proven_on": _fresh_base(work.plan),
    }


def _fresh_base(plan: Plan) -> str:
    """The base that the adapter is proven on, in words."""
    dtype = plan.config.base_dtype
    return f"a fresh base, quantised to {dtype} again" if dtype else "a fresh base"


@contextlib.contextmanager
def _weights_to_use(work: Work, verdict: Verdict | None) -> Iterator[int]:
    """The model with the weights that get the run's name, ready to be used; gives their step."""
    last = work.plan.config.steps if verdict is None else verdict.last
    step = last if verdict is None else verdict.step_to_use(work.plan.config.checkpoint.load_best_at_end)
    if step == last:
        with work.state.evaluating():
            yield last
        return
    found = _best_checkpoint(work, step)  # its adapter has the weights to use
    up, scale = writing_of(export.DIALECT).up, scales(work.state.modules)  # the file's factors hold the scale the model multiplies by
    read = export.read_adapter(found.adapter)
    set_lora_tensors(work.state.modules, {name: t / scale[name.removesuffix(up)] if name.endswith(up) else t for name, t in read.items()})
    put_back(work, found)
    for module in work.state.modules.values():
        module.train(False)
    with work.state.without_training_adapter():
        yield step


def _best_checkpoint(work: Work, step: int) -> checkpoint.Checkpoint:
    """The checkpoint that was kept as the best. Raises JobFailed where it is gone or damaged by now."""
    place = work.folder / "checkpoints" / checkpoint.folder_name(step)
    try:
        return checkpoint.read(place)
    except checkpoint.Damaged as error:
        again = shell_line("loraloom", "train", f"resume={work.folder}", "checkpoint.load_best_at_end=false")
        raise JobFailed(
            f"Step {step} is better than the last one, but its checkpoint cannot be used. {error} The last step is registered by: {again}"
        ) from error


def _files(work: Work, path: Path, hashes: Hashes | None, written: list[Embedding]) -> dict[str, str]:
    """The run's files: {dialect: path} of the adapter, {"embedding TOKEN": path} of the new tokens."""
    tokens = {f"embedding {one.token.token}": str(one.path) for one in written}
    if hashes is None:
        return tokens
    main = export.DIALECT if kind_of(work.plan.config.lora).factors else OWN  # diffusers reads no other kind
    return {main: str(path)} | _for_other_tools(work, path, hashes) | tokens


def _verified(work: Work, path: Path, kept: export.Proof, written: list[Embedding]) -> float:
    """Largest difference between the trained model's predictions and those of the files on a fresh base.

    Raises JobFailed for another adapter or other vectors than were trained; the files are then renamed to .refused.
    """
    _free_model(work)
    fresh = load(work.plan.base, work.plan.config, dtype=precision_dtype(work.plan.config.precision))
    swapped = work.plan.config.swap_blocks
    if swapped:
        BlockSwap(work.plan.base.family, fresh.denoiser, swapped).begin(work.state.device)
    for module in (*([] if swapped else [fresh.denoiser]), *fresh.text_encoders.values()):
        module.to(work.state.device)
    try:
        fresh = with_embeddings(fresh, written)
        return export.verify(path, work.plan.base.family, fresh, kept) if work.plan.layers else export.verify_predictions(fresh, kept)
    except JobFailed:
        for file in [path] * bool(work.plan.layers) + [one.path for one in written]:
            file.rename(file.with_suffix(".refused"))
        raise


def _for_other_tools(work: Work, path: Path, hashes: Hashes) -> dict[str, str]:
    """The same adapter in the keys of ComfyUI, A1111 and sd-scripts, its products verified: {dialect: path}.

    Layers that those tools have no key for are reported, and then no such file is written: a part would be another adapter.
    """
    from registry.converting.adapters import plan_adapter, write_planned

    base, target = work.plan.base, path.with_name(f"{path.stem}-{KOHYA}.safetensors")
    try:
        plan = plan_adapter(path, target, target=KOHYA, family=base.family.name, base=base.path, dtype=None)
        write_planned(plan, parents=[{"role": "source", "ref": path.name, "sha256": hashes.sha256}])
    except (Refused, JobFailed) as error:  # a build without such names; a file that its proof found to be another adapter
        work.out(f"not written with {KOHYA} keys: {error}")
        return {}
    work.out(f"saved {target}: the same adapter in the keys of ComfyUI and A1111")
    return {KOHYA: str(target)}


def _proof(work: Work) -> export.Proof:
    state = work.state
    return export.proof(
        state.family,
        state.parts,
        state.modules,
        state.objective,
        state.texts.texts,
        shape=max(state.latents.shapes, key=lambda shape: (shape[1] * shape[2], shape)),
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
    state.fused = state.vectors = state.swap = None
    state.accelerator.free_memory()
    gc.collect()  # hooks and the modules that they are on hold one another
    give_back()


def _verdict(plan: Plan, found: Verdict | None, used: int) -> list[str]:
    """The held-out result in a few sentences."""
    if found is None and plan.slider is not None:
        return []
    if found is None:
        return ["no held-out images: the best step is unknown"]
    return list(found.sentences(str(plan.config.name), used, trained=trained_of(plan.config).name))


def _judged(work: Work, history: History, learned: Learned | None) -> tuple[list[str], dict[str, Any] | None]:
    """The judgement in words and as plain values. Votes have no images that previews should come near to."""
    style = _style(work) if work.plan.preference is None else None
    found = judged_by(judge(history, trained=trained_of(work.plan.config), style=style), learned)
    return [found.sentence] if found else [], judgement_json(found, history, style)


def _style(work: Work) -> StyleCurve | None:
    """How near each step's previews are to the held-out images."""
    from PIL import Image

    drawn: dict[int, list[Image.Image]] = {}
    for (step, _), file in preview_files(work.folder).items():
        with Image.open(file) as image:
            drawn.setdefault(step, []).append(image.convert("RGB"))
    heldout = [fit(decode(item.sample.read())[0], item.bucket.width, item.bucket.height) for item in work.plan.heldout_items[:STYLE_IMAGES]]
    return style_curve(heldout, drawn)
