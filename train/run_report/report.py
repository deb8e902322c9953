"""The report of a run: everything that its folder shows, as plain values for --json and for the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from registry.errors import BadFile, Refused
from registry.images.image_hash import BITS
from registry.printable import counted
from registry.progress import Report, silent
from registry.typed_values import is_of
from train.loop.probes import probed
from train.output.judgement import judge
from train.output.style import StyleCurve
from train.output.verdict import verdict_of
from train.run_report.charts import Chart, ImageLoss, charts_of, image_losses, training_losses
from train.run_report.previews import PreviewRow, preview_rows, rows_json, style_of
from train.run_report.read import RunFiles, read_run
from train.run_report.set_images import SetImage, heldout_images, training_images
from train.run_report.settings import changed_settings, command_of
from train.run_report.spectrum import AdapterSpectrum, spectrum_of
from train.tokens.wording import trained_of


@dataclass(frozen=True, kw_only=True)
class RunVerdict:
    """The sentence that judges a run, and the steps between which a checkpoint is to be chosen."""

    sentence: str
    steps: tuple[int, int] | None
    kind: str | None
    final: bool  # False: of a run that is not finished, so far


@dataclass(frozen=True, kw_only=True)
class RunReport:
    """What a run came to. `missing`: what its folder has no data for, in words."""

    run: RunFiles
    verdict: RunVerdict | None
    sentences: tuple[str, ...]
    charts: tuple[Chart, ...]
    style: StyleCurve | None
    rows: tuple[PreviewRow, ...]
    trained: tuple[SetImage, ...]
    losses: tuple[ImageLoss, ...]
    spectrum: AdapterSpectrum | None
    missing: tuple[str, ...]

    @property
    def title(self) -> str:
        return f"{self.run.config.name} on {self.run.inputs['base'].get('name', 'its base')}"

    @property
    def copies(self) -> list[dict[str, Any]]:
        """Of each step, the mean distance of its previews to the nearest training image: [{"step", "distance"}], step 0 the base's."""
        by_step: dict[int, list[int]] = {}
        for row in self.rows:
            for one in row.images:
                if one.nearest is not None:
                    by_step.setdefault(one.step, []).append(one.nearest.bits)
        return [{"step": step, "distance": sum(bits) / len(bits) / BITS} for step, bits in sorted(by_step.items())]

    def to_json(self) -> dict[str, Any]:
        """Plain values with stable keys."""
        run, verdict = self.run, self.verdict
        return {
            "run": str(run.folder),
            "name": run.config.name,
            "finished": run.result is not None,
            "step": run.last_step,
            "verdict": None
            if verdict is None
            else {
                "kind": verdict.kind,
                "sentence": verdict.sentence,
                "steps": None if verdict.steps is None else list(verdict.steps),
                "final": verdict.final,
            },
            "sentences": list(self.sentences),
            "curves": [chart.to_json() for chart in self.charts],
            "previews": rows_json(self.rows, self.trained),
            "nearest_by_step": self.copies,
            "image_losses": [loss.to_json() for loss in self.losses],
            "spectrum": None if self.spectrum is None else self.spectrum.to_json(),
            "settings": changed_settings(run.config),
            "plan": run.plan,
            "inputs": dict(run.inputs),
            "command": command_of(run.config),
            "judgement": run.judgement,
            "missing": list(self.missing),
        }


def make_report(folder: Path, *, result: Mapping[str, Any] | None = None, report: Report = silent) -> RunReport:
    """The report of a run folder; `result` is that of a run that is about to write its own. Raises NotFound, or Refused."""
    run = read_run(folder, result=result)
    missing = list(run.missing)
    images = (
        bool(run.previews) and run.config.objective.name == "denoise"
    )  # a slider's previews are three in a row; votes have no image to come near to
    trained, notes = training_images(run.config, run.trained, report=report) if images else ([], [])
    missing += notes
    rows = preview_rows(run, trained)
    heldout, notes = heldout_images(run.config, run.heldout, report=report) if images else ([], [])
    missing += notes
    style = style_of(rows, heldout)
    if style is None and images:
        missing.append("the style curve: it needs two held-out images, and previews of the base that are unlike them")
    probes = [run.trained[place] for place in probed(len(run.trained))]
    losses = image_losses(run.history, run.heldout, [] if run.images else probes) if run.history else []
    losses += training_losses(run.images, run.trained, _outliers(run))
    losses.sort(key=lambda loss: loss.remark is None)
    if run.history is not None and not losses:
        missing.append("the loss of each image: no held-out images were measured")
    return RunReport(
        run=run,
        verdict=_verdict(run, style),
        sentences=tuple(_sentences(run)),
        charts=tuple(charts_of(run.metrics, run.history, style)),
        style=style,
        rows=tuple(rows),
        trained=tuple(trained),
        losses=tuple(losses),
        spectrum=_spectrum(run, missing),
        missing=tuple(missing),
    )


def _verdict(run: RunFiles, style: StyleCurve | None) -> RunVerdict | None:
    """The verdict of the result; of a run without one, what its measurements come to so far."""
    said: Any = (run.result or {}).get("verdict")
    if isinstance(said, dict) and isinstance(said.get("sentence"), str):
        steps = said.get("steps")
        span = (steps[0], steps[1]) if isinstance(steps, list) and is_of(steps, list[int]) and len(steps) == 2 else None
        return RunVerdict(sentence=said["sentence"], steps=span, kind=str(said.get("kind")), final=True)
    if run.history is None or not run.history.heldout:
        return None
    found = judge(run.history, trained=trained_of(run.config), style=style)
    if found is None:
        return None
    return RunVerdict(sentence=found.sentence, steps=found.steps, kind=found.kind, final=run.result is not None)


def _sentences(run: RunFiles) -> Sequence[str]:
    """What the run said at its end; of one that did not keep it, the held-out result."""
    result: Mapping[str, Any] = run.result or {}
    if isinstance(result.get("sentences"), list):
        return [str(sentence) for sentence in result["sentences"]]
    if run.history is None:
        return []
    last = max((int(row["step"]) for row in run.history.heldout), default=0)
    found = verdict_of(run.history, last)
    used = result.get("adapter_step")
    if found is None:
        return []
    return list(found.sentences(str(run.config.name), used if isinstance(used, int) else last, trained=trained_of(run.config).name))


def _outliers(run: RunFiles) -> list[Mapping[str, Any]]:
    """What the run's result names as unlike the other images."""
    found = (run.result or {}).get("outliers")
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _spectrum(run: RunFiles, missing: list[str]) -> AdapterSpectrum | None:
    path = run.adapter
    if path is None:
        alone = run.config.lora.kind == "none"
        missing.append(f"the spectrum: {'tokens alone were trained' if alone else 'there is neither an adapter nor a checkpoint'}")
        return None
    try:
        found = spectrum_of(path)
    except Refused as error:
        raise BadFile(path, "damaged", f"the adapter cannot be read ({error})") from error
    if found is None:
        missing.append("the spectrum: this kind of adapter has no delta without its base")
    return found


def facts_of(found: RunReport) -> list[tuple[str, str]]:
    """What the run was, in a few rows."""
    run, config = found.run, found.run.config
    base, result, plan = run.inputs["base"], run.result or {}, run.plan or {}
    rows = [("adapter", str(result["adapter"]))] if result.get("adapter") else []
    rows += [("embeddings", ", ".join(str(one["name"]) for one in result["embeddings"]))] if result.get("embeddings") else []
    rows += [("base", f"{base.get('name')} ({base.get('family')}), sha256 {str(base['sha256'])[:12]}")]
    rows += [("images", f"{counted(len(run.trained), 'image')} trained, {len(run.heldout)} held out")]
    seconds, count = result.get("seconds"), plan.get("parameters")
    took = f" in {seconds / 60:.1f} min" if isinstance(seconds, (int, float)) else ""
    rows += [("steps", f"{run.last_step} of {config.steps}, {config.batch_size} x {config.accumulate} images each{took}")]
    layers = f" on {counted(plan.get('layers'), 'layer')}, {count:,} weights" if isinstance(count, int) else ""
    if config.lora.kind != "none":
        rows += [("adapter's kind", f"{config.lora.kind}, rank {config.lora.rank}, alpha {config.alpha:g}{layers}")]
    return [*rows, ("learning rate", f"{config.optim.lr:g}, {config.optim.name}, {config.schedule.name}"), ("folder", str(run.folder))]
