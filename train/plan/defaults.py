"""Resolved settings: every default as a value, every path absolute, so that config.yaml records what was done."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from registry.detect.few_step import few_step_of
from registry.detect.loading import prediction_override
from registry.errors import Faults, Refused
from registry.home import expanded
from train.choices import BESIDE_PARAMS, choose_objective, choose_optimizer, choose_schedule
from train.config import TrainConfig, changed, get
from train.dotted import is_dotted
from train.lora import kind_of
from train.plan.base import Base
from train.settings.preferences import places

PREVIEWS = 4  # prompts drawn when preview.prompts is not given
PREVIEW_STEPS = 20
DRAW_STEPS = 20  # of what a slider without images learns from


def defaults_of(
    config: TrainConfig,
    base: Base,
    resolution: int | list[int],
    shift: float | None,
    precision: Any,
    captions: Sequence[str],
    generic: list[str],
    lasting: Callable[[str], str],
) -> dict[str, Any]:
    """The value of every setting that has a computed default, by dotted name. `lasting` gives a model's reference for any folder."""
    family = base.family
    timesteps = config.objective.timesteps or family.timestep_sampling
    few_step = few_step_of(family.few_steps, base.record)
    guidance = few_step.kind.guidance if few_step else family.guidance
    few = few_step.kind.steps if few_step else None
    draws = {"objective.params.draw_steps": config.objective.params.draw_steps or few or DRAW_STEPS}
    return {
        **defaults_of_settings(config, timesteps),
        **(draws if config.objective.name == "slider" else {}),
        "name": name_of(config),
        "base": lasting(config.base),
        "base_config": _absolute(config.base_config),
        "prediction": config.prediction or prediction_override(base.record),
        "adapter.training": config.adapter.training and lasting(config.adapter.training),
        "data.path": _absolute(config.data.path),
        "data.sets": None if config.data.sets is None else [{**one, "path": _absolute(str(one["path"]))} for one in config.data.sets],
        "data.preferences": _each_absolute(config.data.preferences),
        "data.prior": _absolute(config.data.prior),
        "heldout.path": _absolute(config.heldout.path),
        "out": str(expanded(config.out).absolute()),
        "resolution": resolution,
        "clip_skip": config.clip_skip or None,  # 0 leaves out no layer either
        "precision": precision,
        "lora.start": config.lora.start and lasting(config.lora.start),
        "objective.timesteps": timesteps,
        "objective.shift": config.objective.shift if config.objective.shift is not None else shift,
        "objective.guidance": config.objective.guidance if config.objective.guidance is not None else family.training_guidance,
        "heldout.generic": generic,
        "preview.prompts": list(dict.fromkeys(captions))[:PREVIEWS] if config.preview.prompts is None else config.preview.prompts,
        "preview.steps": config.preview.steps or (few_step.kind.steps if few_step else min(PREVIEW_STEPS, family.steps)),
        "preview.guidance": guidance if config.preview.guidance is None else config.preview.guidance,
    }


def defaults_of_settings(config: TrainConfig, timesteps: str) -> dict[str, Any]:
    """The computed defaults that follow from other settings alone, whatever the base and the images. Raises Faults, Refused for options."""
    every = config.checkpoint.every or max(1, math.ceil(config.steps / 5))
    return {
        **_options(config, timesteps),
        "lora.alpha": config.lora.alpha if config.lora.ranks or not kind_of(config.lora).alpha else config.alpha,
        "checkpoint.every": every,
        "heldout.every": config.heldout.every or max(1, math.ceil(config.steps / 10)),
        "preview.every": config.preview.every or every,
    }


def computed_again(config: TrainConfig) -> set[str]:
    """Of a run's settings those that its other settings give again when they are left out: whoever changes these wants new ones."""
    plain, timesteps = TrainConfig(), config.objective.timesteps or "uniform"

    def left_out(names: Collection[str]) -> dict[str, Any]:
        try:
            return defaults_of_settings(changed(config, {name: get(plain, name) for name in names}), timesteps)
        except (Faults, Refused):  # one of them has to be given
            return {}

    def is_same(name: str, computed: Mapping[str, Any]) -> bool:
        return name in computed and computed[name] == _listed(get(config, name)) != _listed(get(plain, name))

    found = {name for name in left_out(()) if is_same(name, left_out([name]))}
    together = left_out(found)
    return found if all(is_same(name, together) for name in found) else set()


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _options(config: TrainConfig, timesteps: str) -> dict[str, Any]:
    """Every option of the optimizer, the schedule and the objective that are entries of a table."""
    chosen = {} if is_dotted(config.optim.name) else dict(choose_optimizer(config.optim).values)
    found = {f"optim.{name}" if name in BESIDE_PARAMS else f"optim.params.{name}": value for name, value in chosen.items()}
    if not is_dotted(config.schedule.name):
        found |= {f"schedule.params.{name}": value for name, value in choose_schedule(config.schedule).values.items()}
    for choice in choose_objective(config.objective, timesteps).values():
        found |= {f"objective.params.{name}": value for name, value in choice.values.items()}
    return {name: _listed(value) for name, value in found.items()}


def name_of(config: TrainConfig) -> str:
    """The name given, else the last part of data.path (of the first set to learn) with what a name cannot hold made `_`."""
    if config.name is not None:
        return config.name
    if config.data.path is None and config.data.sets is None and config.objective.name == "slider":
        params = config.objective.params
        return safe_name(f"{params.positive or params.target or params.negative} slider")
    if config.data.preferences is not None:
        place = expanded(places(config.data.preferences)[0]).absolute()
        return safe_name(f"{place.parent.name if place.is_dir() else place.stem} dpo")
    path = config.data.path if config.data.sets is None else next(one["path"] for one in config.data.sets if not one.get("prior"))
    return safe_name(expanded(str(path)).name)


def safe_name(text: str) -> str:
    """The text with what a name cannot hold made `_`."""
    name = re.sub(r"[^\w .-]+", "_", text).strip(" .-")
    return name if name and name.lower() not in ("none", "pocket") else f"{name or 'my'}-lora"


def _each_absolute(given: Any) -> Any:
    return _absolute(given) if given is None or isinstance(given, str) else [_absolute(one) for one in given]


def _absolute(path: str | None) -> str | None:
    """Existing paths made absolute, so that a resume finds them from any folder; other texts unchanged."""
    if path is None or not expanded(path).exists():
        return path
    return str(expanded(path).absolute())
