"""The header of a model on the disk: names and shapes of tensors, configs, metadata. No tensor is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from registry.formats.adapter_keys import AdapterKey, adapter_keys
from registry.formats.safetensors_header import TensorInfo

T = TypeVar("T")
# the header's metadata in which trainers declare the base model; detection by tensors looks at no others
DECLARED_KEYS = ("modelspec.architecture", "ss_base_model_version", "modelspec.prediction_type", "modelspec.predict_key")


def declared_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    """The entries of a header's metadata that declare the base model, in the order of DECLARED_KEYS."""
    return {key: metadata[key] for key in DECLARED_KEYS if key in metadata}


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

    @property
    def is_folder(self) -> bool:
        return bool(self.index)

    def class_of(self, component: str) -> str | None:
        """The class that model_index.json names for a component; None where there is none, or it is null."""
        entry = self.index.get(component)
        return entry[1] if isinstance(entry, (list, tuple)) and len(entry) == 2 else None

    @property
    def adapter_keys(self) -> dict[str, AdapterKey] | None:
        """The parsed keys of an adapter; None where the file is none."""
        return self.cached(_adapter_keys)

    def cached(self, function: Callable[[ModelHeader], T]) -> T:
        """The result of a function of this header, computed once."""
        results: dict[Callable[[ModelHeader], Any], Any] = self.__dict__.setdefault("_results", {})
        if function not in results:
            results[function] = function(self)
        answer: T = results[function]
        return answer


def _adapter_keys(look: ModelHeader) -> dict[str, AdapterKey] | None:
    return adapter_keys(look.tensors)
