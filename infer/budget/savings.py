"""The settings of an image that save memory, with what they cost, in the order in which a search tries them.

A swapped block changes no bit of an image, so it comes before everything that does: tiles of the VAE change pixels a little, and a
quantised base or text encoder is another one, which draws another image under another key. The costs put the settings in an order and
are no forecast of seconds.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from infer.budget.need import Drawing
from registry.budget.costs import DEQUANTISED, ERRORS
from registry.budget.search import Setting, Value

SEARCHED = ("swap_blocks", "vae_tiling", "text_encoder_dtype", "base_dtype")
LEAST_SWAPPED = 3  # two slots take what two blocks took
SWAPPED = 0.5  # of a call's time, more, with every block swapped: a call has one forward pass to copy beside, where a step has four for two
ANOTHER = 0.1  # beside it, so that all that is exact is cheaper: as much as twice the time
TILE = 512  # pixels a side, as ComfyUI's and A1111's tiled decoders begin with
TILED = 0.02  # as a weight error: after every block swapped, and before a quantised base


def settings_of(given: Mapping[str, Any], drawing: Drawing, free: Collection[str], *, swaps: bool) -> list[Setting]:
    """Every setting with its values, what is given first; those that are not `free` have no other."""
    return [Setting(name, _values(name, given[name], drawing, swaps) if name in free else (Value(given[name]),)) for name in SEARCHED]


def _values(name: str, own: Any, drawing: Drawing, swaps: bool) -> tuple[Value, ...]:
    if name == "swap_blocks":
        return (Value(own), *(_swapped(drawing) if swaps else ()))
    if name == "vae_tiling":
        return (Value(own), *(_tiled(drawing) if own is None else ()))
    if name == "text_encoder_dtype" and not drawing.parts.text_encoders:
        return (Value(own),)
    time = DEQUANTISED if name == "base_dtype" else {}
    return (Value(own), *(_quantised(dtype, error, time.get(dtype, 1.0)) for dtype, error in ERRORS.items()))


def _tiled(drawing: Drawing) -> list[Value]:
    if max(drawing.largest.width, drawing.largest.height) <= TILE:
        return []
    return [Value(TILE, 1.05, TILED, f"images are decoded in tiles of {TILE} pixels: pixels differ a little")]


def _quantised(dtype: str, error: float, time: float) -> Value:
    slower = f", about {time - 1:.0%} more time" if time > 1 else ""
    return Value(dtype, time, ANOTHER + error, f"another image: a relative weight error of about {error:.1%}{slower}")


def _swapped(drawing: Drawing) -> list[Value]:
    total = len(drawing.swap({"base_dtype": None, "swap_blocks": 0}).sizes)
    words = "of {total} blocks in main memory, copied for each call: up to about {more:.0%} more time, and the same image"
    costs = {count: SWAPPED * count / total for count in range(LEAST_SWAPPED, total + 1)}
    return [Value(count, 1 + cost, words=words.format(total=total, more=cost)) for count, cost in costs.items()]


def weight_error(values: Mapping[str, Any]) -> float:
    """Relative weight errors of the dtypes, added."""
    return sum(ERRORS.get(values[name] or "", 0.0) for name in ("base_dtype", "text_encoder_dtype"))
