"""The sizes of the layers an adapter was made for, from its own tensors: products for LoKr, flat kernels for LoHa."""

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from registry.formats.adapter_keys import AdapterKey
from registry.formats.safetensors_header import TensorInfo

ModuleId = tuple[str, str]  # component, module
Shapes = Mapping[str, tuple[int, ...]]  # `algorithm.role` -> shape


@dataclass(frozen=True)
class LayerSize:
    """What is known of a layer's weight (out, into, *kernel).

    `flat` is into times the kernel's area where only that is known, `either` a number that is the one or the other.
    """

    out: int | None = None
    into: int | None = None
    kernel: tuple[int, ...] | None = None
    flat: int | None = None
    either: int | None = None


class Part(NamedTuple):
    """One tensor of a layer: `algorithm.role`, the tensor's name, and whether its shape is read turned or as its number of elements."""

    role: str
    name: str
    turned: bool = False
    counted: bool = False

    def shape_in(self, tensors: Mapping[str, TensorInfo]) -> tuple[int, ...]:
        """The shape as the role has it."""
        info = tensors[self.name]
        return (info.elements,) if self.counted else info.shape[::-1] if self.turned else info.shape


def layer_parts(keys: Mapping[str, AdapterKey], names: Collection[str]) -> dict[ModuleId, tuple[Part, ...]]:
    """(component, module) -> its tensors, of every layer an adapter touches, in the file's order; bundled embeddings touch none."""
    modules: dict[ModuleId, dict[str, Part]] = {}
    for name, key in keys.items():
        if key.role == "on_input" and (scale := f"{name.removesuffix('.on_input')}.weight") in names:
            modules.setdefault((key.component, key.module), {})["ia3.numbers"] = Part("ia3.numbers", scale, counted=True)
        if key.role != "embedding":
            role = "columns" if key.role == "blocks" and key.spelling == "peft" else key.role  # peft turns columns, LyCORIS rows
            turned = ".lora_embedding_" in name  # peft's LoRA of an embedding: the table is (B A)^T
            if turned:
                role = {"down": "up", "up": "down"}.get(role, role)
            word = f"{key.algorithm}.{role}"
            modules.setdefault((key.component, key.module), {})[word] = Part(word, name, turned)
    return {place: tuple(parts.values()) for place, parts in modules.items()}


def layer_size(parts: Iterable[Part], tensors: Mapping[str, TensorInfo]) -> LayerSize:
    """What the shapes of a layer's tensors show of its weight."""
    return _size(tuple([(part.role, part.shape_in(tensors)) for part in parts]))


def layer_sizes(keys: Mapping[str, AdapterKey], tensors: Mapping[str, TensorInfo]) -> dict[ModuleId, LayerSize]:
    """(component, module) -> LayerSize of every layer an adapter touches, in the file's order."""
    return {place: layer_size(parts, tensors) for place, parts in layer_parts(keys, tensors).items()}


@lru_cache(maxsize=8192)  # a file's modules have few sizes, and files share them
def _size(shapes_by_role: tuple[tuple[str, tuple[int, ...]], ...]) -> LayerSize:
    known, shapes = LayerSize(), dict(shapes_by_role)
    for part in (*_lora(shapes), *_hadamard(shapes), *_kronecker(shapes), *_whole(shapes), *_turned(shapes)):
        known = LayerSize(
            known.out or part.out,
            known.into or part.into,
            known.kernel or part.kernel,
            known.flat or part.flat,
            known.either or part.either,
        )
    return known


def _lora(shapes: Shapes) -> Iterator[LayerSize]:
    down, up, mid = shapes.get("lora.down"), shapes.get("lora.up"), shapes.get("lora.mid")
    if down and len(down) > 1:
        kernel = mid[2:] if mid else down[2:]
        yield LayerSize(into=down[1], kernel=tuple(kernel) if len(kernel) == 2 else None)
    if up:
        yield LayerSize(out=up[0])


def _hadamard(shapes: Shapes) -> Iterator[LayerSize]:
    """LoHa: w1_a (out, r) and w1_b (r, into * kernel); Tucker's form has t1 (r, r, *kernel), w1_a (r, out), w1_b (r, into)."""
    first, second, core = shapes.get("loha.w1_a"), shapes.get("loha.w1_b"), shapes.get("loha.t1")
    if not first or not second or len(first) != 2 or len(second) != 2:
        return
    if core is None:
        yield LayerSize(out=first[0], flat=second[1])
    else:
        yield LayerSize(out=first[1], into=second[1], kernel=tuple(core[2:]) if len(core) == 4 else None)


def _kronecker(shapes: Shapes) -> Iterator[LayerSize]:
    """LoKr: the sizes are products of those of its two factors."""
    left = shapes.get("lokr.w1") or shapes.get("lokr.w1_a")
    right = shapes.get("lokr.w2") or shapes.get("lokr.w2_a")
    core, inner = shapes.get("lokr.t2"), shapes.get("lokr.w2_b")
    if core is not None:  # Tucker's form: t2 (r, r, *kernel), w2_a (r, out), w2_b (r, into)
        across = shapes.get("lokr.w1") or shapes.get("lokr.w1_b")
        if left and right and across and inner and min(map(len, (left, right, across, inner))) > 1:
            kernel = tuple(core[2:]) if len(core) == 4 else None
            yield LayerSize(out=left[0] * right[1], into=across[1] * inner[1], kernel=kernel)
        return
    if left and right:
        yield LayerSize(out=left[0] * right[0])
    left, right = shapes.get("lokr.w1") or shapes.get("lokr.w1_b"), shapes.get("lokr.w2")
    if left and right and len(left) > 1 and len(right) > 1:
        yield LayerSize(into=left[1] * right[1], kernel=tuple(right[2:]) if len(right) == 4 else None)
    elif left and (right := shapes.get("lokr.w2_b")) and len(left) > 1 and len(right) == 2:
        yield LayerSize(flat=left[1] * right[1])


def _whole(shapes: Shapes) -> Iterator[LayerSize]:
    whole = shapes.get("full.diff") or shapes.get("full.set")
    if whole and len(whole) > 1:
        yield LayerSize(out=whole[0], into=whole[1], kernel=tuple(whole[2:]) if len(whole) == 4 else None)
    norm = shapes.get("norm.w_norm")
    if norm:
        yield LayerSize(out=norm[0])


def _turned(shapes: Shapes) -> Iterator[LayerSize]:
    """GLoRA, rotations and scales: b1 (out, r), b2 (r, into, *kernel); blocks (.., count, N, N) of rows or of columns; one number a row."""
    first, second = shapes.get("glora.b1"), shapes.get("glora.b2")
    if first and second and len(second) > 1:
        yield LayerSize(out=first[0], into=second[1], kernel=tuple(second[2:]) if len(second) == 4 else None)
    for rows in (shapes.get("oft.blocks"), shapes.get("boft.blocks")):
        if rows and len(rows) > 2:
            yield LayerSize(out=rows[-3] * rows[-1])
    triangles, butterfly = shapes.get("oft.columns"), shapes.get("boft.columns")
    if triangles and len(triangles) == 2 and triangles[0] > 1:  # N (N - 1) / 2 numbers a block; a single block may be shared by all
        yield LayerSize(flat=triangles[0] * (1 + math.isqrt(1 + 8 * triangles[1])) // 2)
    if butterfly and len(butterfly) > 2:
        yield LayerSize(flat=butterfly[-3] * butterfly[-1])
    scale = shapes.get("ia3.scale") or shapes.get("boft.scale") or shapes.get("oft.scale")
    if scale and len(scale) > 1:
        yield LayerSize(out=scale[0]) if set(scale[1:]) == {1} else LayerSize(into=scale[1])
    if numbers := shapes.get("ia3.numbers"):  # whether of inputs or outputs is in a tensor
        yield LayerSize(either=numbers[0])
