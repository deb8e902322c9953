"""Adapters of any kind on a loaded model: W + D in the weights themselves, D as `fuse` adds it, and the originals put back.

peft adds a plain LoRA beside the weights, and has no form for what other trainers write, nor a weight for a rotation or a DoRA.
Every D is computed in fp32 from the original weight, so neither the order nor what was set before has an influence.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from registry.adapters.delta_retention import Part, change_of
from registry.adapters.fuse import misfit, module_parts
from registry.adapters.reader import BIASES, Adapter
from registry.adapters.targets import biases_of, targets_of
from registry.adapters.understood import adapter_faults
from registry.errors import Refused
from registry.family import Family
from registry.formats.safetensors_header import TensorInfo
from registry.merging.adapter_blocks import Factors
from registry.parts import Parts
from registry.printable import counted, some
from registry.tensors.layout import Layout, Stored

if TYPE_CHECKING:
    from torch import Tensor, nn

    from registry.quantised.linear import QuantisedLinear

VERSION = "1"  # counts up when a kind's change of the weights becomes another; part of the keys of the cells that have one
BESIDE = {"down", "up", "alpha", "singular", "up_bias", "diff_b"}  # roles that peft adds beside the weights
PEFT = re.compile(r"\.lora_[A-Za-z_]+(\.|$)")  # a parameter of an adapter that peft attached
SHOWN = 3


def is_beside(adapter: Adapter) -> bool:
    """Whether peft draws it: products of two factors beside the weights, none of which it needs to know, and one bias at most."""
    return all(
        module.algorithm == "lora" and module.roles <= BESIDE and not module.roles >= BIASES and not module.needs_base
        for module in adapter.modules
    )


@dataclass(frozen=True)
class Placed:
    """An adapter on a model: key of a weight -> the parts that change it, at weight 1."""

    parts: Mapping[str, Sequence[Part]]

    @property
    def components(self) -> frozenset[str]:
        """The components it changes."""
        return frozenset(key.partition("/")[0] for key in self.parts)


def placed(adapter: Adapter, family: Family, parts: Parts) -> Placed:
    """The adapter's place on a model, by shapes alone: a model on the meta device will do. Raises Refused where a key has none."""
    if faults := adapter_faults(adapter):
        raise Refused(f"{adapter.path.name} cannot be drawn in full. {' '.join(faults[:SHOWN])}")
    layout = layout_of(family, parts)
    places = targets_of(layout, family.name)
    found: dict[str, list[Part]] = {}
    misfits = [f"{key} (of no module)" for key in adapter.left]
    for module in adapter.modules:
        targets = places.find(module)
        if targets is None:
            misfits.append(f"{module.name} (no such module)")
        elif wrong := misfit(module, targets, layout):
            misfits.append(f"{module.name} ({wrong})")
        elif (biases := biases_of(module, targets, layout)) is None:
            misfits.append(f"{module.name} (it changes a bias, and this layer has none)")
        else:
            for part in module_parts(module, targets, biases, 1.0):
                found.setdefault(part.target.key, []).append(part)
    if misfits or not found:
        total = len(adapter.modules) + len(adapter.left)
        raise Refused(
            f"{adapter.path.name} does not fit this {family.name} model: {total - len(misfits)} of "
            f"its {counted(total, 'module')} have their place, "
            f"{len(misfits)} have not: {some(misfits, SHOWN, between='; ')}. Use an adapter trained for this base."
        )
    return Placed(found)


class WeightChanges:
    """The adapters of a loaded model that are in its weights, at most one kept original of each weight that is changed now.

    The originals lie in main memory, in the model's dtype. Without `originals` none is kept, and what is set once stays.
    """

    def __init__(self, family: Family, parts: Parts, *, originals: bool = True) -> None:
        self._keep = originals
        self._family = family
        self._parts = parts
        self._placed: dict[str, Placed] = {}
        self._factors: dict[str, Factors] = {}  # of the adapters with block weights
        self._active: dict[str, tuple[float, float]] = {}  # weight on the denoiser, on the text encoders
        self._originals: dict[str, Tensor] = {}

    @property
    def names(self) -> Collection[str]:
        """The adapters that are attached."""
        return self._placed.keys()

    def components(self, name: str) -> frozenset[str]:
        """The components that an adapter changes; none for one that is not attached."""
        return self._placed[name].components if name in self._placed else frozenset()

    def attach(self, name: str, adapter: Adapter, *, factors: Factors | None = None) -> None:
        """Find the adapter's place; no weight changes yet. `factors`: its weights by block. Raises Refused."""
        self._placed[name] = placed(adapter, self._family, self._parts)
        if factors is not None:
            self._factors[name] = factors

    def detach(self, names: Iterable[str]) -> None:
        """Forget these adapters, their changes taken out of the weights."""
        gone = set(names)
        self._set({name: weights for name, weights in self._active.items() if name not in gone})
        for name in gone & self._placed.keys():
            del self._placed[name]
            self._factors.pop(name, None)

    def set_weights(self, weights: Mapping[str, float], *, text_weights: Mapping[str, float] | None = None) -> None:
        """Have exactly these adapters in the weights; {} puts every original back, bit for bit. A failure does so too.

        `text_weights`: those on the text encoders, of the adapters that have another weight there.
        """
        self._set({name: (weight, (text_weights or {}).get(name, weight)) for name, weight in weights.items()})

    def _set(self, weights: Mapping[str, tuple[float, float]]) -> None:
        wanted = {name: both for name, both in weights.items() if both != (0.0, 0.0)}
        if list(wanted.items()) == list(self._active.items()):
            return
        changes: dict[str, list[Part]] = {}
        for name, both in wanted.items():
            for key, parts in self._placed[name].parts.items():
                weight = self._weight(name, key, both)
                if weight != 0.0:
                    changes.setdefault(key, []).extend(replace(part, weight=weight) for part in parts)
        own = own_weights(self._family, self._parts)
        self._active = {}
        try:
            self._put_back(own, [key for key in self._originals if key not in changes])
            for key, parts in changes.items():
                self._change(key, own[key], parts)
        except BaseException:
            self._put_back(own, list(self._originals))
            raise
        self._active = wanted

    def _weight(self, name: str, key: str, both: tuple[float, float]) -> float:
        """The weight of an adapter's change of one weight of the model."""
        factors = self._factors.get(name)
        component, _, weight = key.partition("/")
        if component == self._family.denoiser:
            return both[0] * (factors.of_denoiser(weight.rpartition(".")[0]) if factors else 1.0)
        return both[1] * (factors.of_text if factors else 1.0)

    def _change(self, key: str, weight: Tensor | QuantisedLinear, parts: Sequence[Part]) -> None:
        import torch

        from registry.quantised.linear import QuantisedLinear

        if isinstance(weight, QuantisedLinear):
            self._originals[key] = weight.like  # marks it: the codes are kept beside the changed weight
            weight.change(changed(weight.made(torch.float32).cpu(), parts))
            return
        original = self._originals.get(key)
        if original is None:
            original = weight.detach().to("cpu", copy=self._keep)
            if self._keep:
                self._originals[key] = original
        weight.data.copy_(changed(original, parts))

    def _put_back(self, own: Mapping[str, Tensor | QuantisedLinear], keys: Sequence[str]) -> None:
        from registry.quantised.linear import QuantisedLinear

        for key in keys:
            original, weight = self._originals.pop(key), own[key]
            if isinstance(weight, QuantisedLinear):
                weight.change(None)
            else:
                weight.data.copy_(original)


def changed(original: Tensor, parts: Sequence[Part]) -> Tensor:
    """W + D in fp32, of one weight. Raises JobFailed for an adapter's numbers that are none."""
    base, shape = original.float(), tuple(original.shape)
    change = change_of([(base.reshape(-1),)], parts=parts, shape=shape)
    width = max(1, base.numel() // shape[0])
    return base + change.chunk(0, base.numel(), width).reshape(shape)


def _modules(family: Family, parts: Parts) -> dict[str, nn.Module]:
    return {family.denoiser: parts.denoiser, **parts.text_encoders}


def own_weights(family: Family, parts: Parts) -> dict[str, Tensor | QuantisedLinear]:
    """`component/name` -> the model's own parameter, whatever peft has wrapped around its layer; a quantised layer for its weight."""
    from registry.quantised.linear import QuantisedLinear

    found: dict[str, Tensor | QuantisedLinear] = {}
    for component, module in _modules(family, parts).items():
        quantised = {f"{name}.weight": layer for name, layer in module.named_modules() if isinstance(layer, QuantisedLinear)}
        for name, weight in (dict(module.named_parameters()) | quantised).items():
            if not PEFT.search(name):
                found[f"{component}/{name.replace('.base_layer.', '.')}"] = weight
    return found


def layout_of(family: Family, parts: Parts) -> Layout:
    """The loaded model as a diffusers folder would show it: names and shapes."""
    shapes = {key: tuple(weight.shape) for key, weight in own_weights(family, parts).items()}
    tensors = {key: Stored(parts.source, 0, TensorInfo("F32", shape)) for key, shape in shapes.items()}
    return Layout(path=parts.source, is_folder=True, diffusers=True, tensors=tensors, files=())
