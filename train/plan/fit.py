"""memory=12GiB: the cheapest settings with which a run fits a budget, found on the empty model. What is set by hand stays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from registry.budget.chosen import as_typed
from registry.budget.costs import MAIN_MEMORY, RESERVED
from registry.budget.free import main_memory_bytes
from registry.budget.search import Values, cheapest
from registry.budget.text import AUTO, Budget, read_budget
from registry.errors import Refused
from train.config import TrainConfig, changed, get
from train.plan.estimate import Estimate, Model, Peaks
from train.plan.memory import MemoryPlan, too_little
from train.plan.savings import SEARCHED, Search, settings_of

Adjust = Callable[[TrainConfig, Estimate], Estimate]


def find_settings(config: TrainConfig, model: Model, adjust: Adjust, *, search: Search, processes: int = 1) -> MemoryPlan:
    """The settings for the budget of a config. Raises Refused where none fit, with the least memory that would do."""
    _check_processes(config, model, processes)
    budget = read_budget(str(config.memory), model.device)
    if budget.is_auto and model.process:  # what this process has already is counted in the estimate
        budget = replace(budget, bytes=budget.bytes + model.process)
    main = main_memory_bytes()
    limit = None if main is None else int(main * MAIN_MEMORY / processes)
    return search_settings(config, model, adjust, budget, search=search, reserved=RESERVED if model.on_device else 0, main_memory=limit)


def search_settings(
    config: TrainConfig, model: Model, adjust: Adjust, budget: Budget, *, search: Search, reserved: int, main_memory: int | None
) -> MemoryPlan:
    """The settings for so many bytes, of which `reserved` are no tensor's. Swapped blocks take at most `main_memory` (None: no limit)."""
    settings = settings_of(config, model, search)
    memory = _Memory(config, model, adjust, reserved)

    def allowed(values: Values) -> bool:
        if not values["gradient_checkpointing"] and (values["swap_blocks"] or values["offload_activations"]):
            return False
        return main_memory is None or values["swap_blocks"] == config.swap_blocks or memory.swapped(values) <= main_memory

    try:
        found = cheapest(settings, budget.bytes, peak=memory.peak, floor=memory.floor, allowed=allowed)
    except Refused:
        raise
    except Exception as error:
        raise Refused(
            f"memory={config.memory}: the empty model could not be traced ({type(error).__name__}: {error}), so that no settings can be"
            " found for it. Leave memory out, and give them."
        ) from error
    given = tuple(f"{name}={as_typed(get(config, name))}" for name in SEARCHED if search.leaves(config, name))
    made = MemoryPlan(
        budget=budget,
        reserved=reserved,
        found=found,
        given=given,
        stage=memory.stage(found.chosen.values),
        kept=search.kept,
        images_per_step=config.images_per_step,
    )
    if not found.fits and not search.kept:
        raise too_little(str(config.memory), made, changes_of(config, made), main_memory if model.on_device else None)
    return made


def changes_of(config: TrainConfig, made: MemoryPlan) -> dict[str, Any]:
    """Setting -> value of what was found and is not so already."""
    return {name: value for name, value in _settings_of(config, made.found.chosen.values).items() if get(config, name) != value}


class _Memory:
    """The bytes of candidates, each traced at most once."""

    def __init__(self, config: TrainConfig, model: Model, adjust: Adjust, reserved: int) -> None:
        self.config, self.model, self.adjust, self.reserved = config, model, adjust, reserved
        self._configs: dict[tuple[Any, ...], TrainConfig] = {}
        self._traced: dict[tuple[Any, ...], Peaks] = {}

    def peak(self, values: Values) -> int:
        """Bytes of the device by traces."""
        return self._bytes(values, self._peaks(values))

    def floor(self, values: Values) -> int:
        """At least so many, without a trace more: a smaller batch, and activations that are computed again, take no more."""
        key, config = _key(values), self._config(values)
        known = self._traced.get(key)
        if known is not None:
            return self._bytes(values, known)
        traces, step = self.model.traces, 0
        for other, peaks in self._traced.items():
            like = self._configs[other]
            texts = like.text_encoder_dtype == config.text_encoder_dtype or not self._texts_learn
            again = like.gradient_checkpointing >= config.gradient_checkpointing
            away = like.offload_activations >= config.offload_activations
            if like.base_dtype == config.base_dtype and texts and again and away and like.batch_size <= config.batch_size:
                step = max(step, peaks.step)
        return self._bytes(values, Peaks(encode=traces.encode().peak, prompt=0, decode=traces.decode(config).peak, forward=0, step=step))

    def swapped(self, values: Values) -> int:
        """Bytes of main memory that the swapped blocks take."""
        return self.model.weights.swap(self._config(values), values["swap_blocks"]).host_bytes

    def stage(self, values: Values) -> str:
        """The stage that needs most; none on a CPU, where all is there at once."""
        stages = self._estimate(values, self._peaks(values)).stages
        return max(stages, key=lambda name: stages[name]) if self.model.on_device else ""

    @property
    def _texts_learn(self) -> bool:
        return bool(self.config.lora.text_encoder or self.model.traces.tokens)

    def _bytes(self, values: Values, peaks: Peaks) -> int:
        return self._estimate(values, peaks).total + self.reserved

    def _estimate(self, values: Values, peaks: Peaks) -> Estimate:
        config = self._config(values)
        return self.adjust(config, self.model.in_memory(config, self.model.weights.swap(config, values["swap_blocks"]), peaks))

    def _peaks(self, values: Values) -> Peaks:
        key = _key(values)
        if key not in self._traced:
            self._traced[key] = self.model.peaks(self._config(values))
        return self._traced[key]

    def _config(self, values: Values) -> TrainConfig:
        """The settings but for the swapped blocks, on which no trace depends."""
        key = _key(values)
        if key not in self._configs:
            self._configs[key] = changed(self.config, {**_settings_of(self.config, values), "swap_blocks": 0})
        return self._configs[key]


def _key(values: Values) -> tuple[Any, ...]:
    return tuple(value for name, value in values.items() if name != "swap_blocks")


def _settings_of(config: TrainConfig, values: Values) -> dict[str, Any]:
    """The settings of a candidate: where the batch is smaller, more of them make a step."""
    return {**values, "accumulate": config.images_per_step // values["batch_size"]}


def _check_processes(config: TrainConfig, model: Model, processes: int) -> None:
    """Refuse what could find other settings in each of several processes. Raises Refused."""
    if processes > 1 and (str(config.memory).strip().lower() == AUTO or not model.on_device):
        raise Refused(
            f"memory={config.memory} with {processes} processes: each would measure its own memory, and find settings of its own."
            " Plan with one process, and give the settings that it finds."
        )
