"""Whether a module's change has the shape of the weight it is for, from headers alone: its own definition is run without numbers."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from registry.adapters.delta import changes_weight, delta, magnitude_axis, scaled_axis, tensor_fault
from registry.adapters.reader import Module
from registry.adapters.rotations import ROTATIONS, turn_fault
from registry.formats.atomic_file import torch_dtype
from registry.formats.dialects import DENOISER
from registry.formats.safetensors_header import TensorInfo
from registry.tensors.layout import FLOATS
from registry.tensors.role_form import BIASES

if TYPE_CHECKING:
    from torch import Tensor

    from registry.tensors.layout import Stored


FLAT = {"loha", "lokr"}
CONVOLUTION = re.compile(r"conv|patch_?embed|pos_embed_proj")  # in a module's name, in any family
SQUARE = re.compile(r"(^conv_in|^conv_out|_conv[12]|samplers_\d+_conv)$")  # 3 x 3 in every UNet2DConditionModel
POINTWISE = re.compile(r"_conv_shortcut$")  # 1 x 1 in them
NO_KERNEL = (
    "is a convolution without a Tucker core: its file has the kernel's columns, not the kernel's shape, which is known of UNets of a "
    "known family alone. Name the family (loraloom registry set REF --family NAME), or fuse it into its base and extract the difference."
)


class _Outline:
    """Stands for a module's files: tensors of the right shape without numbers (torch's meta device)."""

    def tensor(self, stored: Stored, begin: int, count: int) -> Tensor:
        import torch

        return torch.empty(count, dtype=torch_dtype(stored.info.dtype), device="meta")


def misshape(module: Module, shape: tuple[int, ...]) -> str | None:
    """What keeps a module's change from being added to a weight of this shape; None when nothing does."""
    if fault := tensor_fault(module):
        return fault.rstrip(".")
    lengths = {module.stored[role].info.elements for role in BIASES if role in module.stored}
    if wrong := lengths - {shape[0]}:
        return f"a bias of {min(wrong)} where the base has {shape[0]} rows"
    if not changes_weight(module):
        return None
    if module.algorithm in ROTATIONS:
        return turn_fault(module, shape)
    return _scale_fault(module, shape) if module.algorithm == "ia3" else _delta_fault(module, shape)


def _scale_fault(module: Module, shape: tuple[int, ...]) -> str | None:
    """What keeps an IA3 from scaling a weight of this shape."""
    count, axis = module.stored["weight_scale"].info.elements, scaled_axis(module)
    if len(shape) > axis and count == shape[axis]:
        return None
    return f"{count} scales of {('rows', 'columns')[axis]} where the base has {list(shape)}"


def _delta_fault(module: Module, shape: tuple[int, ...]) -> str | None:
    """What keeps a delta from being added to a weight of this shape, or a magnitude from being its length."""
    expected = f"the base has {list(shape)}"
    found = outline_shape(module, shape if module.needs_base else None)
    if found is None:
        return f"factors that do not fit where {expected}"
    vectors = (len(found) == 1) == (len(shape) == 1)
    if not vectors or found[0] != shape[0] or TensorInfo("F32", found).elements != TensorInfo("F32", shape).elements:
        return f"{list(found)} where {expected}"
    if "dora" not in module.stored:
        return None
    axis, count = magnitude_axis(module, shape), module.stored["dora"].info.elements
    return None if count == shape[axis] else f"a DoRA magnitude of {count} where {expected}"


def outline_shape(module: Module, base: tuple[int, ...] | None = None) -> tuple[int, ...] | None:
    """The shape of a module's delta; None where its factors do not fit each other or the base."""
    if base is None and (known := _product_shape(module)) is not None:
        return known
    return run_without_numbers(module, base)


def run_without_numbers(module: Module, base: tuple[int, ...] | None = None) -> tuple[int, ...] | None:
    """The same of any module, by its own definition: torch imports a second of modules at the first product on the meta device."""
    import torch

    hollow = replace(module, maps=cast(Any, _Outline()))
    weight = None if base is None else torch.empty(base, device="meta")
    try:
        return tuple(delta(hollow, weight).shape)
    except (RuntimeError, ValueError, IndexError):  # torch's, of shapes
        return None


def _product_shape(module: Module) -> tuple[int, ...] | None:
    """The shape of a LoRA's or LoKr's delta, from its factors' where they fit; None: to be asked of its definition."""
    if tensor_fault(module) or any(one.info.dtype not in FLOATS or not one.info.elements for one in module.stored.values()):
        return None
    if module.is_product and not module.roles & {"mid", "singular"}:
        up, down = (module.stored[role].info.shape for role in ("up", "down"))
        fits = len(up) > 1 and len(down) > 1 and math.prod(up[1:]) == down[0]
        return (up[0], *down[1:]) if fits else None
    if module.algorithm == "lokr" and not module.roles & {"t2", "dora"}:
        one, two = _side_shape(module, "w1"), _side_shape(module, "w2")
        return (one[0] * two[0], one[1] * two[1], *two[2:]) if one and two and len(one) == 2 and len(two) > 1 else None
    return None


def _side_shape(module: Module, side: str) -> tuple[int, ...] | None:
    """The shape of one side of a Kronecker product; None where it is a product of factors that do not fit."""
    if side in module.stored:
        return module.stored[side].info.shape
    a, b = (module.stored[role].info.shape if role in module.stored else () for role in (f"{side}_a", f"{side}_b"))
    return (a[0], b[1]) if len(a) == len(b) == 2 and a[1] == b[0] else None


def layer_shape(module: Module, shape: tuple[int, ...], *, unet: bool) -> tuple[int, ...] | None:
    """The shape of the layer, of the shape of a module's change; None where it is a convolution whose kernel is not known.

    LoHa and LoKr without a Tucker core store a convolution's change as a matrix, (O, I h w).
    """
    name = module.place[1]
    if module.algorithm not in FLAT or len(shape) > 2 or not CONVOLUTION.search(name):
        return shape
    if unet and module.place[0] in (DENOISER, "") and POINTWISE.search(name):
        return *shape, 1, 1
    if unet and module.place[0] in (DENOISER, "") and SQUARE.search(name) and shape[1] % 9 == 0:
        return shape[0], shape[1] // 9, 3, 3
    return None
