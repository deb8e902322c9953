"""The header of a model on the disk: names and shapes of tensors, configs, metadata. No tensor is read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar, cast

from registry.formats.adapter_keys import AdapterKey, denoiser_keys, keys_by_name, modules_of, needs_shapes, numbered
from registry.formats.adapter_shapes import LayerSize, Part, layer_parts, layer_size
from registry.formats.dialects import DIALECTS
from registry.formats.safetensors_header import TensorInfo

T = TypeVar("T")
# the header's metadata in which trainers declare the base model; detection by tensors looks at no others
DECLARED_KEYS = ("modelspec.architecture", "ss_base_model_version", "modelspec.prediction_type", "modelspec.predict_key")


def declared_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    """The entries of a header's metadata that declare the base model, in the order of DECLARED_KEYS."""
    return {key: metadata[key] for key in DECLARED_KEYS if key in metadata}


class TensorNames:
    """The names of a file's tensors, and what they show without the shapes: one object for all files with the same names."""

    def __init__(self, names: tuple[str, ...], keys: dict[str, AdapterKey] | None) -> None:
        self.names = names
        self.keys = keys  # of an adapter, parsed; None where the file is none
        self._results: dict[Hashable, Any] = {}

    @cached_property
    def modules(self) -> tuple[str, ...]:
        """The denoiser's layers that an adapter touches, in the file's order."""
        return tuple(modules_of(denoiser_keys(self.keys or {})))

    @cached_property
    def layers(self) -> dict[str, list[str]]:
        """Module -> the names of its tensors, of the denoiser's layers that an adapter touches, in the file's order."""
        places: dict[tuple[str, str], list[str]] = {}
        for name, key in denoiser_keys(self.keys or {}).items():
            places.setdefault((key.component, key.module), []).append(name)
        return {module: tensors for (_, module), tensors in places.items()}

    def parts(self, module: str) -> tuple[Part, ...]:
        """The tensors of one of these layers with what each is."""
        keys, names = self.keys or {}, self.layers[module]
        return next(iter(layer_parts({name: keys[name] for name in names}, self._all).values()))

    @cached_property
    def _all(self) -> frozenset[str]:
        return frozenset(self.names)

    def cached(self, function: Callable[..., T], *arguments: Hashable) -> T:
        """The result of a function of these names and what else it takes, computed once."""
        key = (function, *arguments)
        if key not in self._results:
            self._results[key] = function(self, *arguments)
        return cast(T, self._results[key])


class _Kept:
    """The TensorNames that are kept, the oldest of which make room for new ones."""

    def __init__(self, most: int) -> None:
        self.most = most  # names, of all together
        self._room = most
        self._found: dict[tuple[tuple[str, ...], tuple[str, ...]], TensorNames] = {}

    def of(self, names: tuple[str, ...]) -> TensorNames:
        """The TensorNames of these names in this order."""
        place = (names, tuple(DIALECTS))
        found = self._found.get(place)
        if found is None:
            found = TensorNames(names, keys_by_name(names))
            if len(names) <= self.most // 16:
                self._room -= len(names)
                while self._room < 0:
                    oldest = next(iter(self._found))
                    self._room += len(oldest[0])
                    del self._found[oldest]
                self._found[place] = found
        return found


KEPT = _Kept(100_000)  # some 20 MB


@dataclass(frozen=True, kw_only=True)
class ModelHeader:
    """What detection sees of a model, without reading a tensor.

    A diffusers folder has `index` (model_index.json) and `configs` (component -> config.json); `tensors` are those of the
    denoiser. A single file has `tensors` and `metadata` from its header.
    """

    path: Path
    index: Mapping[str, Any] = field(default_factory=dict)
    configs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    tensors: Mapping[str, TensorInfo] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    counts: Mapping[TensorInfo, int] | None = field(default=None, repr=False, compare=False)  # see `infos`, where they are at hand

    @property
    def is_folder(self) -> bool:
        return bool(self.index)

    def class_of(self, component: str) -> str | None:
        """The class that model_index.json names for a component; None where there is none, or it is null."""
        entry = self.index.get(component)
        return entry[1] if isinstance(entry, (list, tuple)) and len(entry) == 2 else None

    @cached_property
    def names(self) -> TensorNames:
        """The names of its tensors, and what they show without the shapes."""
        found = KEPT.of(tuple(self.tensors))
        if found.keys is not None and found.cached(_are_numbers):
            return TensorNames(found.names, numbered(found.keys, self.tensors))
        return found

    @cached_property
    def infos(self) -> Mapping[TensorInfo, int]:
        """Dtype and shape -> how many tensors have them."""
        return self.counts if self.counts is not None else Counter(self.tensors.values())

    @property
    def adapter_keys(self) -> dict[str, AdapterKey] | None:
        """The parsed keys of an adapter; None where the file is none."""
        return self.names.keys

    def layer_size(self, module: str) -> LayerSize:
        """The size of a layer of the denoiser that an adapter touches."""
        sizes = self._sizes
        if module not in sizes:
            sizes[module] = layer_size(self.names.cached(TensorNames.parts, module), self.tensors)
        return sizes[module]

    def cached(self, function: Callable[[ModelHeader], T]) -> T:
        """The result of a function of this header, computed once."""
        if function not in self._results:
            self._results[function] = function(self)
        answer: T = self._results[function]
        return answer

    @cached_property
    def _results(self) -> dict[Callable[[ModelHeader], Any], Any]:
        return {}

    @cached_property
    def _sizes(self) -> dict[str, LayerSize]:
        return {}


def _are_numbers(names: TensorNames) -> bool:
    return needs_shapes(names.keys or {})
