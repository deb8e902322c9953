"""Whether a module's tensors have the form of their roles: numbers that can be computed with, axes enough, factors that fit each other."""

# R rank, I in-width, O out-width

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from registry.formats.safetensors_header import TensorInfo

NUMBERS = frozenset({"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"})
FLAGS = frozenset({"alpha", "on_input"})  # a number each, of any dtype
MOST_AXES = 5  # of a convolution over time
MATRICES = frozenset({"w1", "w1_a", "w1_b", "w2_a", "w2_b"})  # of LoHa and LoKr, whose factors have no kernel
# least axes of a role; one where it is not listed
AXES: Mapping[str, int] = {
    **dict.fromkeys(("down", "up", "table_down", "table_up", "a1", "a2", "b1", "b2"), 2),
    **dict.fromkeys(("w1", "w2", "w1_a", "w1_b", "w2_a", "w2_b"), 2),
    **dict.fromkeys(("mid", "t1", "t2", "bm"), 4),
    "blocks": 2,
}
# (role, axis) of two tensors that are multiplied over these axes
INNER = (
    (("up", 1), ("down", 0)),
    (("table_up", 1), ("table_down", 0)),
    (("a1", 1), ("a2", 0)),
    (("b1", 1), ("b2", 0)),
)


ROWS = ("up_bias", "diff_b")  # beside factors one number a row of `up`


def form_fault(tensors: Mapping[str, TensorInfo]) -> str | None:
    """What is wrong with a module's tensors by role, 'has a down of [4], where ...'; None when nothing is."""
    for role, info in tensors.items():
        if role in FLAGS:
            continue
        if info.dtype not in NUMBERS:
            return f"has its {role} in {info.dtype}; floating point numbers were expected."
        if not AXES.get(role, 1) <= len(info.shape) <= MOST_AXES:
            return f"has a {role} of {list(info.shape)}, where {AXES.get(role, 1)} axes or more were expected."
        if role in MATRICES and len(info.shape) != 2:
            return f"has a {role} of {list(info.shape)}, where 2 axes were expected."
        if info.elements == 0:
            return f"has a {role} of {list(info.shape)}, which holds no numbers."
    return _fit_fault({role: info.shape for role, info in tensors.items() if role not in FLAGS})


def _fit_fault(shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """The same for factors that are multiplied, and what is beside them."""
    up, mid, down = (shapes.get(role, ()) for role in ("up", "mid", "down"))
    if up and (wrong := next((role for role in ROWS if shapes.get(role, up[:1]) != up[:1]), None)):
        return f"has a {wrong} of {list(shapes[wrong])} for {up[0]} rows."
    if down and "singular" in shapes and math.prod(shapes["singular"]) != down[0]:
        return f"has {math.prod(shapes['singular'])} singular values for a rank of {down[0]}."
    if mid:
        fits = not up or not down or (up[1] == mid[0] and mid[1] == down[0])
        return None if fits else f"has factors that do not fit each other: {list(up)}, {list(mid)} and {list(down)}."
    for (one, axis), (other, first) in INNER:
        if one in shapes and other in shapes and shapes[one][axis] != shapes[other][first]:
            return f"has factors that do not fit each other: {list(shapes[one])} and {list(shapes[other])}."
    return None
