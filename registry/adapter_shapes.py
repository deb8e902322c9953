"""The sizes of the layers an adapter was made for, as its own tensors tell them: products for LoKr, flat kernels for LoHa."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from registry.formats.adapter_keys import AdapterKey
from registry.header import TensorInfo

Place = tuple[str, str]  # component, module
Shapes = Mapping[str, tuple[int, ...]]  # `algorithm.role` -> shape


@dataclass(frozen=True)
class LayerSize:
    """What is known of a layer's weight (out, into, *kernel); `flat` is into times the kernel's area where only that is told."""

    out: int | None = None
    into: int | None = None
    kernel: tuple[int, ...] | None = None
    flat: int | None = None


def layer_sizes(keys: Mapping[str, AdapterKey], tensors: Mapping[str, TensorInfo]) -> dict[Place, LayerSize]:
    """(component, module) -> LayerSize of every layer an adapter touches, in the file's order; bundled embeddings touch none."""
    modules: dict[Place, dict[str, tuple[int, ...]]] = {}
    for name, key in keys.items():
        if key.role != "embedding":
            modules.setdefault((key.component, key.module), {})[f"{key.algorithm}.{key.role}"] = tensors[name].shape
    return {place: _size(shapes) for place, shapes in modules.items()}


def _size(shapes: Shapes) -> LayerSize:
    known = LayerSize()
    for part in (*_lora(shapes), *_hadamard(shapes), *_kronecker(shapes), *_whole(shapes)):
        known = LayerSize(known.out or part.out, known.into or part.into, known.kernel or part.kernel, known.flat or part.flat)
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
    if "lokr.t2" in shapes:
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
