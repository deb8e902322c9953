"""The header of a run's adapter: ModelSpec's keys, sd-scripts' keys, the licence, and the manifest of what made it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from registry.architectures.text.textual_inversion import TOKEN
from registry.detect.licences import Terms, inherited
from registry.printable import counted
from registry.record import Hashes
from train.config import TrainConfig, changed, get, to_plain
from train.data.dataset import triggers_of
from train.loop.prepare import Work
from train.lora import kind_of
from train.objective.slider import Slider
from train.output import export, inputs
from train.output.kohya_metadata import training_metadata
from train.plan.plan import Plan
from train.settings.preferences import places
from train.settings.sets import short_names
from train.slider.dataset import ENDS
from train.tokens.new_token import NewToken

PACKAGES = ("loraloom", "torch", "diffusers", "transformers", "peft", "accelerate", "safetensors")
WHERE = ("out", "resume", "dry_run", "swap_blocks", "offload_activations")  # settings that make no difference to the adapter
LISTED = 1000  # images that the manifest in the adapter's header names one by one; more are given by their number and hash


def write_adapter(work: Work, path: Path, step: int) -> Hashes:
    """Write the adapter of a step with its manifest in the header."""
    state, plan = work.state, work.plan
    header = export.metadata(
        plan.base.family, state.modules, title=str(plan.config.name), facts=_spec(work), manifest=_manifest(work, step)
    )
    digest = work.inputs.get("base", {}).get("sha256") if plan.base.path.is_file() else None
    return export.write_adapter(
        path, state.modules, {**header, **training_metadata(plan, step, base_sha256=digest), **terms_of(plan).entries()}
    )


def embedding_header(work: Work, token: NewToken, step: int) -> dict[str, str]:
    """The header of a new token's embedding: that of the adapter with the token in place of layers."""
    plan = work.plan
    count = counted(token.vectors, "vector")
    facts = {
        **_spec(work),
        "architecture": f"{plan.base.family.architecture_of(work.state.parts)}/textual-inversion",
        "description": f"textual inversion embedding of {token.token}, {count}, trained with LoRA Loom on {plan.base.name}"
        f"{_quantised(plan.config)}{_average(plan.config)}",
        "trigger_phrase": token.token,
    }
    header = export.metadata(plan.base.family, {}, title=token.file_name, facts=facts, manifest=_manifest(work, step))
    digest = work.inputs.get("base", {}).get("sha256") if plan.base.path.is_file() else None
    return {TOKEN: token.token, **header, **training_metadata(plan, step, base_sha256=digest), **terms_of(plan).entries()}


def _spec(work: Work) -> dict[str, str]:
    """ModelSpec keys of this run beside the fixed ones."""
    config = work.plan.config
    name = work.plan.base.name
    facts = {
        "architecture": f"{work.plan.base.family.architecture_of(work.state.parts)}/lora",
        "date": inputs.started_day(work.inputs),
        "resolution": f"{max(config.sides)}x{max(config.sides)}",
        "description": f"{kind_of(config.lora).title}, rank {config.lora.rank}, trained with LoRA Loom on {name}{_quantised(config)}"
        f"{_average(config)}",
    }
    prediction = export.PREDICTION.get(work.state.parts.prediction)
    facts |= {"prediction_type": prediction} if prediction else {}
    if config.clip_skip:
        facts["encoder_layer"] = str(work.plan.base.family.clip_layer + config.clip_skip)  # of CLIP, counted from the end
    if work.plan.slider is not None:
        found = ends(work.plan.slider)
        facts["usage_hint"] = f"a slider: weights -2 .. 2, above 0 {found['positive'] or 'more'}, below 0 {found['negative'] or 'less'}"
    triggers = triggers_of(work.plan.train, config.data)
    facts |= {"trigger_phrase": ", ".join(triggers)} if triggers else {}
    return {name: fact for name, fact in facts.items() if fact}


def _quantised(config: TrainConfig) -> str:
    return "" if config.base_dtype is None else f" quantised to {config.base_dtype}"


def _average(config: TrainConfig) -> str:
    return "" if config.ema.decay is None else f"; moving average (EMA) of its weights, decay {config.ema.decay:g}"


def _manifest(work: Work, step: int) -> dict[str, Any]:
    """The adapter's manifest: settings, base, every image with its hash and prompt, versions, changes by resumes.

    Nothing of where and when it ran: the same training gives the same bytes, straight or resumed, in any folder.
    """
    data, base = ({**work.inputs.get(part, {})} for part in ("dataset", "base"))
    for entry, place in ((data, _set_names(work.plan.config)), (base, work.plan.base.path)):
        entry["path"] = last_name(str(place))
    used = {key: {**work.inputs[key], "path": last_name(work.inputs[key]["path"])} for key in inputs.ADAPTERS if key in work.inputs}
    if len(data.get("files", ())) > LISTED:
        data["files"] = f"{counted(len(data['files']), 'image')}; inputs.json of the run lists them"
    return {
        "tool": "loraloom",
        "run": str(work.plan.config.name),
        "step": step,
        "config": without_places(work.plan.config),
        "base": base,
        **({} if work.plan.slider is None else {"slider": ends(work.plan.slider)}),
        **used,
        "dataset": data,
        "resumes": _resumes(work.inputs),
        "versions": _versions(),
    }


def _resumes(recorded: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Step and changed settings of each resume, without those that make no difference to the adapter and those that name places."""
    rows = recorded.get("resumes", [])
    changes = [{name: value for name, value in row["changes"].items() if name not in (*WHERE, *inputs.PLACES)} for row in rows]
    return [{"step": row["step"], "changes": made} for row, made in zip(rows, changes, strict=True) if made]


def ends(slider: Slider) -> dict[str, str]:
    """What a slider has at its two ends."""
    if not slider.by_text:
        return {"positive": f"the images of {ENDS[0]}/", "negative": f"the images of {ENDS[1]}/"}
    return {"positive": slider.positive, "negative": slider.negative, "target": slider.target}


def without_places(config: TrainConfig) -> dict[str, Any]:
    """The settings as plain values without folders of this machine: of a path its last name, and nothing of where the run is."""
    names: dict[str, Any] = {name: last_name(str(value)) for name in inputs.PLACES if (value := get(config, name)) is not None}
    if config.data.sets is not None:
        short = short_names([str(one["path"]) for one in config.data.sets])
        names["data.sets"] = [{**one, "path": name} for one, name in zip(config.data.sets, short, strict=True)]
    if config.data.preferences is not None:
        names["data.preferences"] = [last_name(str(Path(one))) for one in places(config.data.preferences)]
    return {name: value for name, value in to_plain(changed(config, names)).items() if name not in WHERE}


def _set_names(config: TrainConfig) -> str:
    """data.path, or the names of data.sets or data.preferences."""
    if config.data.preferences is not None:
        return " + ".join(last_name(one) for one in places(config.data.preferences))
    if config.data.sets is None:
        return str(config.data.path)
    return " + ".join(short_names([str(one["path"]) for one in config.data.sets]))


def last_name(path: str) -> str:
    """The last part of an absolute path; another text as it is."""
    return Path(path).name or path if Path(path).is_absolute() else path


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def terms_of(plan: Plan) -> Terms:
    """The licence terms that an adapter inherits from its base; image sets have none recorded."""
    return inherited([(plan.base.name, plan.base.record.licence)])
