"""The settings that a search for memory tries, each with its values and what they cost in time and in weight error.

All keep the resolution and the images of a step. The costs put them in an order, which docs/memory.md has with where its numbers are from;
they are no forecast of a run's seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields
from math import log2
from typing import Any, get_type_hints

from registry.architectures.vae.tiles import least_side
from registry.budget.costs import DEQUANTISED, ERRORS
from registry.budget.search import Setting, Value
from registry.errors import Faults
from registry.quantised.codings import CODINGS
from registry.quantised.skeleton import stored_titles
from train.config import TrainConfig, changed, get
from train.plan.estimate import Model

CHECKPOINTED = 4 / 3  # of a step's time: a forward pass more, of what was one forward pass and two of its length backward
SWAPPED = 0.2  # of a step's time, more, with every block swapped: copies go on beside the arithmetic
OFFLOADED = 1.2  # of a step's time: activations are copied out and back beside the arithmetic; as much as all of block swap
TILE = 512  # pixels a side, as grids' search has it
TILED = 1.005  # of a step's time: overlaps are decoded twice, in previews alone; before all that slows a step
HALVED = 0.05  # of a step's time, more, for each halving of the batch: at these sizes one image keeps a card busy


@dataclass(frozen=True)
class Search:
    """What a search leaves alone: `fixed` settings, by default those that differ from their own defaults.

    `kept`: a run goes on with the settings that it has, whatever the budget.
    """

    fixed: Collection[str] | None = None
    kept: bool = False

    def leaves(self, config: TrainConfig, name: str) -> bool:
        """Whether the setting stays as it is."""
        if self.fixed is not None:
            return self.kept or name in self.fixed
        return self.kept or get(config, name) != _default(name)


def _default(name: str) -> Any:
    """A setting's default, by its dotted name."""
    *groups, last = name.split(".")
    kind: Any = TrainConfig
    for group in groups:
        kind = get_type_hints(kind)[group]
    return next(item.default for item in fields(kind) if item.name == last)


ALL = Search()


def settings_of(config: TrainConfig, model: Model, search: Search) -> list[Setting]:
    """Every setting that is searched, with the values that it may have, its own first."""
    return [Setting(name, _values(row, name, config, model, search)) for name, row in ROWS.items()]


def _values(row: Row, name: str, config: TrainConfig, model: Model, search: Search) -> tuple[Value, ...]:
    """The values that a setting may have, its own first."""
    also = ("accumulate",) if name == "batch_size" else ()
    if any(search.leaves(config, one) for one in (name, *also)):
        return (Value(get(config, name)),)
    return row(config, model)


Row = Callable[[TrainConfig, Model], tuple[Value, ...]]


def _checkpointing(config: TrainConfig, _model: Model) -> tuple[Value, ...]:
    again = Value(True, time=CHECKPOINTED, words="activations are computed again: about a third more time")
    return (again,) if config.swap_blocks or config.offload_activations else (Value(False), again)


def _text_encoder_dtypes(config: TrainConfig, model: Model) -> tuple[Value, ...]:
    encoders = model.weights.parts.text_encoders.values()
    if not encoders or any(stored_titles(encoder, rounded=True) for encoder in encoders):  # quantised in its file: not once more
        return (Value(config.text_encoder_dtype),)
    time = DEQUANTISED if config.lora.text_encoder or model.traces.tokens else {}
    return _dtypes("text_encoder_dtype", "in every prompt", config, time)


def _base_dtypes(config: TrainConfig, model: Model) -> tuple[Value, ...]:
    if stored_titles(model.weights.parts.denoiser, rounded=True):
        return (Value(config.base_dtype),)
    return _dtypes("base_dtype", "in every step", config, DEQUANTISED)


def _dtypes(name: str, where: str, config: TrainConfig, time: Mapping[str, float]) -> tuple[Value, ...]:
    """The dtype that is set, and those of fewer bits that go with the other settings."""
    own = get(config, name)
    values = [Value(own)]
    for dtype, error in ERRORS.items():
        if (own is None or CODINGS[dtype].bits < CODINGS[own].bits) and _is_good(config, {name: dtype}):
            slower = f", about {time[dtype] - 1:.0%} more time" if dtype in time else ""
            values.append(Value(dtype, time.get(dtype, 1.0), error, f"a relative weight error of about {error:.1%} {where}{slower}"))
    return tuple(values)


def _is_good(config: TrainConfig, changes: Mapping[str, object]) -> bool:
    """Whether the values go with the other settings."""
    try:
        changed(config, changes)
    except Faults:
        return False
    return True


def _batches(config: TrainConfig, _model: Model) -> tuple[Value, ...]:
    """The batch, and what divides it; `accumulate` keeps the images of a step."""
    own, least = config.batch_size, 2 if config.objective.contrast == "delta_fm" else 1  # which takes another image of the batch
    smaller = [size for size in range(own - 1, least - 1, -1) if own % size == 0]
    words = "with accumulate={accumulate}, as many images a step: about {more:.0%} more time, and another order of images"

    def smaller_batch(size: int) -> Value:
        more = HALVED * log2(own / size)
        return Value(size, 1 + more, words=words.format(accumulate=config.images_per_step // size, more=more))

    return (Value(own), *map(smaller_batch, smaller))


def _swapped_blocks(config: TrainConfig, model: Model) -> tuple[Value, ...]:
    """The blocks that are swapped already, and more. A CPU, and a device that shares its memory, save nothing by it."""
    own, total = config.swap_blocks, len(model.weights.swap(config, 0).sizes)
    goes = _is_good(config, {"swap_blocks": 1, "gradient_checkpointing": True})
    if not goes or not model.on_device or model.device.type == "mps":
        return (Value(own),)
    words = "of {total} blocks in main memory, copied for each pass: up to about {more:.0%} more time, and the same result"
    costs = {count: SWAPPED * count / total for count in range(own + 1, total + 1)}
    return (Value(own), *(Value(count, 1 + cost, words=words.format(total=total, more=cost)) for count, cost in costs.items()))


def _offloaded(config: TrainConfig, model: Model) -> tuple[Value, ...]:
    """A CPU, and a device that shares its memory, save nothing by it."""
    goes = _is_good(config, {"offload_activations": True, "gradient_checkpointing": True})
    if config.offload_activations or not goes or not model.on_device or model.device.type == "mps":
        return (Value(config.offload_activations),)
    return (Value(False), Value(True, OFFLOADED, words="activations lie in main memory between the passes: up to about 20% more time"))


def _preview_tiles(config: TrainConfig, model: Model) -> tuple[Value, ...]:
    """Previews alone are decoded so: nothing of what is learned changes."""
    own, side, least = config.preview.vae_tiling, model.traces.side, least_side(model.weights.parts)
    if own is not None or config.preview.prompts == [] or side <= TILE or least > TILE:
        return (Value(own),)
    return (Value(None), Value(TILE, TILED, words=f"previews are decoded in tiles of {TILE} pixels: their pixels differ a little"))


ROWS: dict[str, Row] = {  # a setting that saves memory is one function here, and a row of docs/memory.md
    "preview.vae_tiling": _preview_tiles,
    "gradient_checkpointing": _checkpointing,
    "text_encoder_dtype": _text_encoder_dtypes,
    "base_dtype": _base_dtypes,
    "batch_size": _batches,
    "offload_activations": _offloaded,
    "swap_blocks": _swapped_blocks,
}
SEARCHED = (*ROWS, "accumulate")
