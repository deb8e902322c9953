"""Whether an adapter fits a base: its modules and shapes against that very base's header, per component."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from registry.base_modules import BaseModules, ModuleShape, base_modules
from registry.errors import BadFile
from registry.formats.adapter_keys import AdapterKey, adapter_keys
from registry.header import TensorInfo, read_header

SHOWN = 3  # modules named in an explanation
Place = tuple[str, str]  # component, module


@dataclass(frozen=True)
class ComponentFit:
    """How many of an adapter's modules in one component the base has in the same shape."""

    matched: int
    total: int


@dataclass(frozen=True)
class Fit:
    """How an adapter fits a base. `missing` are modules the base has not, `mismatched` those of another shape, each in words."""

    adapter: str
    base: str
    components: Mapping[str, ComponentFit]
    missing: tuple[str, ...]
    mismatched: tuple[str, ...]

    @property
    def share(self) -> float:
        """Matched modules of all, 0 to 1."""
        total = sum(part.total for part in self.components.values())
        return sum(part.matched for part in self.components.values()) / total if total else 0.0

    @property
    def ok(self) -> bool:
        """Every module of the adapter has its place in the base."""
        return self.share == 1.0

    def explain(self) -> str:
        """One or two sentences: how much fits, and what does not."""
        parts = ", ".join(f"{name} {part.matched} of {part.total}" for name, part in self.components.items())
        text = f"{self.share:.0%} of its modules fit ({parts or 'it has none'})."
        if self.mismatched:
            text += f" Other shapes: {_some(self.mismatched)}."
        if self.missing:
            text += f" Not in the base: {_some(self.missing)}."
        return text

    def to_json(self) -> dict[str, Any]:
        """Plain values with stable keys."""
        return {
            "adapter": self.adapter,
            "base": self.base,
            "ok": self.ok,
            "share": self.share,
            "components": {name: {"matched": part.matched, "total": part.total} for name, part in self.components.items()},
            "missing": list(self.missing),
            "mismatched": list(self.mismatched),
        }


def _some(names: tuple[str, ...]) -> str:
    rest = len(names) - SHOWN
    return "; ".join(names[:SHOWN]) + (f"; and {rest} more" if rest > 0 else "")


def fits(adapter: Path | str, base: Path | str) -> Fit:
    """The Fit of an adapter file and a base (diffusers folder or single file). Reads headers only. Raises BadFile."""
    adapter, base = Path(adapter), Path(base)
    header = read_header(adapter)
    keys = adapter_keys(header.tensors)
    if keys is None:
        raise BadFile(adapter, "not-an-adapter", "has no keys of an adapter. Name a LoRA or LyCORIS file.")
    modules = base_modules(base)
    counts: dict[str, list[int]] = {}
    missing, mismatched = [], []
    for (component, module), tensors in _modules(keys, header.tensors).items():
        found = modules.find(component, module)
        named = found[0] if found else component or modules.denoiser
        if named == "denoiser":
            named = modules.denoiser
        count = counts.setdefault(named, [0, 0])
        count[1] += 1
        if found is None:
            missing.append(f"{named}.{module}")
        elif (wrong := _mismatch(tensors, found[1])) is not None:
            mismatched.append(f"{named}.{module} is {wrong}, the base has {found[1]}")
        else:
            count[0] += 1
    parts = {name: ComponentFit(*count) for name, count in sorted(counts.items())}
    return Fit(str(adapter), str(base), parts, tuple(missing), tuple(mismatched))


def _modules(keys: Mapping[str, AdapterKey], tensors: Mapping[str, TensorInfo]) -> dict[Place, dict[str, TensorInfo]]:
    """(component, module) -> role -> tensor; bundled embeddings touch no module."""
    modules: dict[Place, dict[str, TensorInfo]] = {}
    for name, key in keys.items():
        if key.role != "embedding":
            modules.setdefault((key.component, key.module), {})[f"{key.algorithm}.{key.role}"] = tensors[name]
    return modules


def _mismatch(tensors: Mapping[str, TensorInfo], base: ModuleShape) -> str | None:
    """The shape that a module's tensors make, in words, when it is not the base's; None when they agree."""
    told = _Told()
    for part in _told_shapes({role: info.shape for role, info in tensors.items()}):
        told = _Told(told.out or part.out, told.into or part.into, told.kernel or part.kernel)
    agrees = told.out in (None, base.out) and told.into in (None, base.into) and (base.kernel is None or told.kernel in (None, base.kernel))
    return None if agrees else str(ModuleShape(told.out or base.out, told.into or base.into, told.kernel or base.kernel))


@dataclass(frozen=True)
class _Told:
    out: int | None = None
    into: int | None = None
    kernel: tuple[int, ...] | None = None


def _told_shapes(shapes: Mapping[str, tuple[int, ...]]) -> Iterator[_Told]:
    """What the tensors of one module say of its weight; algorithms without a rule say nothing."""
    down, up, mid = shapes.get("lora.down"), shapes.get("lora.up"), shapes.get("lora.mid")
    if down and len(down) > 1:
        kernel = mid[2:] if mid else down[2:]
        yield _Told(into=down[1], kernel=tuple(kernel) if len(kernel) == 2 else None)
    if up:
        yield _Told(out=up[0])
    first, second = shapes.get("loha.w1_a"), shapes.get("loha.w1_b")
    if first and second and "loha.t1" not in shapes:
        yield _Told(out=first[0])
        yield _Told(into=second[1]) if len(second) == 2 else _Told()
    yield from _kronecker(shapes)
    whole = shapes.get("full.diff") or shapes.get("full.set")
    if whole and len(whole) > 1:
        yield _Told(out=whole[0], into=whole[1], kernel=tuple(whole[2:]) if len(whole) == 4 else None)
    norm = shapes.get("norm.w_norm")
    if norm:
        yield _Told(out=norm[0])


def _kronecker(shapes: Mapping[str, tuple[int, ...]]) -> Iterator[_Told]:
    """LoKr's sizes are products of those of its two factors."""
    left = shapes.get("lokr.w1") or shapes.get("lokr.w1_a")
    right = shapes.get("lokr.w2") or shapes.get("lokr.w2_a")
    if left and right and "lokr.t2" not in shapes:
        yield _Told(out=left[0] * right[0])
    left_in = shapes.get("lokr.w1") or shapes.get("lokr.w1_b")
    right_in = shapes.get("lokr.w2")
    if left_in and right_in and len(left_in) > 1 and len(right_in) > 1:
        yield _Told(into=left_in[1] * right_in[1])


__all__ = ["BaseModules", "ComponentFit", "Fit", "fits"]
