"""Whether a module's tensors have the form of their roles: numbers that can be computed with, axes enough, factors that fit each other."""

# R rank, I in-width, O out-width

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from registry.tensors.layout import FLOATS

if TYPE_CHECKING:
    from registry.formats.safetensors_header import TensorInfo

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
ROWS = ("up", "diff", "set", "w_norm")  # roles whose first axis is the layer's rows
BIASES = ("up_bias", "diff_b", "b_norm")  # a number a row
# (role, axis) of two tensors that are multiplied over these axes
INNER = (
    (("up", 1), ("down", 0)),
    (("table_up", 1), ("table_down", 0)),
    (("a1", 1), ("a2", 0)),
    (("b1", 1), ("b2", 0)),
)


def form_fault(tensors: Mapping[str, TensorInfo]) -> str | None:
    """What is wrong with a module's tensors by role, 'has a down of [4], where ...'; None when nothing is."""
    for role, info in tensors.items():
        if role in FLAGS:
            continue
        if info.dtype not in FLOATS:
            return f"has its {role} in {info.dtype}; floating point numbers were expected."
        if not AXES.get(role, 1) <= len(info.shape) <= MOST_AXES:
            return f"has a {role} of {list(info.shape)}, where {AXES.get(role, 1)} axes or more were expected."
        if role in MATRICES and len(info.shape) != 2:
            return f"has a {role} of {list(info.shape)}, where 2 axes were expected."
        if info.elements == 0:
            return f"has a {role} of {list(info.shape)}, which holds no numbers."
    if "mid" in tensors:
        up, mid, down = (tensors[role].shape if role in tensors else () for role in ("up", "mid", "down"))
        fits = not up or not down or (up[1] == mid[0] and mid[1] == down[0] and all(size == 1 for size in down[2:]))
        if not fits:
            return f"has factors that do not fit each other: {list(up)}, {list(mid)} and {list(down)}."
        return _vector_fault(tensors)
    for (one, axis), (other, first) in INNER:
        if one in tensors and other in tensors and tensors[one].shape[axis] != tensors[other].shape[first]:
            shapes = f"{list(tensors[one].shape)} and {list(tensors[other].shape)}"
            return f"has factors that do not fit each other: {shapes}."
    return _vector_fault(tensors)


def _vector_fault(tensors: Mapping[str, TensorInfo]) -> str | None:
    """What is wrong with the length of a bias, a DoRA magnitude or AdaLoRA's singular values beside factors or a whole difference."""
    if {"singular", "down"} <= tensors.keys() and tensors["singular"].elements != tensors["down"].shape[0]:
        return f"has {tensors['singular'].elements} singular values for a rank of {tensors['down'].shape[0]}."
    rows = next((tensors[role].shape[0] for role in ROWS if role in tensors), None)
    for role in BIASES:
        if rows is not None and role in tensors and tensors[role].elements != rows:
            return f"has a {role} of {list(tensors[role].shape)}, where {rows} numbers were expected."
    if rows is not None and "dora" in tensors and "down" in tensors:
        columns = tensors["down"].shape[1]
        if tensors["dora"].elements not in (rows, columns):
            shape = list(tensors["dora"].shape)
            return f"has a DoRA magnitude of {shape}, where {rows} numbers (rows) or {columns} (columns) were expected."
    return None


def hadamard_fault(tensors: Mapping[str, TensorInfo]) -> str | None:
    """What is wrong with a LoHa's two products, which are multiplied element by element; None when they have one shape."""
    pairs = (("w1_a", "w2_a", 1 if "t1" in tensors else 0), ("w1_b", "w2_b", 1))
    for one, other, axis in pairs:
        if tensors[one].shape[axis] != tensors[other].shape[axis]:
            shapes = f"{list(tensors[one].shape)} and {list(tensors[other].shape)}"
            return f"has a {one} and a {other} that do not fit each other: {shapes}."
    return None
