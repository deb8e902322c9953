"""A transformer out of a single file in the names of its original implementation (or in diffusers' own, with or without a prefix).

Such files hold nothing else as a rule: text encoders, tokenizers, VAE and scheduler come from a diffusers folder (base_config).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.errors import BadFile, Refused
from registry.formats.key_map import KeyLocation
from registry.formats.layers import Layer, Spellings
from registry.formats.model_folder import read_json
from registry.formats.quantised.loading import load_mapped
from registry.formats.quantised.weights_file import weights_file
from registry.formats.safetensors_header import TensorInfo
from registry.formats.single_file import HINT, empty_module
from registry.formats.state_dict import check_mapped, shapes_of
from registry.printable import counted
from registry.quantised.layers import Choose

if TYPE_CHECKING:
    import torch
    from torch import nn

PREFIXES = ("model.diffusion_model.", "diffusion_model.", "transformer.", "")


@dataclass(frozen=True, kw_only=True)
class FileNames:
    """How single files spell a family's transformer."""

    title: str  # for people: FLUX.1
    class_name: str  # in diffusers
    diffusers_key: str  # a tensor that only files in diffusers' names have
    original_key: str  # a tensor that only files in the original implementation's names have
    layers: tuple[Layer, ...]  # their `.weight` and `.bias`
    others: Mapping[str, str] = field(default_factory=dict)  # any other parameter -> its tensor in the file, `*` for numbers
    vectors: tuple[str, ...] = ()  # endings of the file's keys of tables stored as one vector, row after row
    implementation: str | None = None  # the original implementation's address, as ModelSpec wants it

    @property
    def published(self) -> Container[str]:
        """The original implementation's names, without a prefix (FileKeyMap)."""
        return (self.original_key,)

    def shape_in_file(self, key: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        """As it is, but for tables stored as a vector (FileKeyMap)."""
        return (math.prod(shape),) if self.vectors and key.endswith(self.vectors) else shape

    def prefix(self, keys: Container[str]) -> str | None:
        """The prefix of the transformer's names in a file; None where it holds none."""
        return next((prefix for prefix in PREFIXES if prefix + self.diffusers_key in keys or prefix + self.original_key in keys), None)

    def places(
        self, component: str, config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], keys: Container[str]
    ) -> dict[str, KeyLocation]:
        """The transformer's parameters in a file of either spelling (FileKeyMap)."""
        prefix = self.prefix(keys) if component == "transformer" else None
        if prefix is None:
            return {}
        found = {name: KeyLocation(name) for name in shapes} if prefix + self.diffusers_key in keys else _places(self, shapes)
        return {name: replace(place, key=prefix + place.key) for name, place in found.items()}


def load_transformer(
    path: Path,
    base_config: Path,
    names: FileNames,
    *,
    dtype: torch.dtype,
    empty: bool,
    check: Callable[[Mapping[str, Any], Mapping[str, TensorInfo]], None] | None = None,
    beside: Mapping[str, frozenset[str]] | None = None,
    choose: Choose | None = None,
) -> tuple[nn.Module, tuple[str, ...]]:
    """The transformer with its weights from the file and its config from the folder, and notes for the user.

    `check(config, tensors without prefix)` refuses a file and a folder of different builds; `beside` are components that are taken
    from the file too, with their keys. `choose`: the layers that are quantised as they are read. Raises BadFile.
    """
    import diffusers
    import torch

    file = weights_file(path)
    tensors = file.tensors
    prefix = names.prefix(tensors)
    if prefix is None:
        raise BadFile(
            path,
            "not-a-model",
            f"has no {names.title} transformer: {names.original_key} and {names.diffusers_key} are missing, with any prefix.",
        )
    found = {key.removeprefix(prefix): info for key, info in tensors.items() if key.startswith(prefix)}
    config = read_json(base_config / "transformer" / "config.json")
    if config.get("_class_name") not in (names.class_name, None):
        raise Refused(f"{path.name} is a {names.title} transformer, but base_config={base_config} has a {config['_class_name']}. {HINT}")
    if check is not None:
        check(config, found)
    module = empty_module("diffusers", getattr(diffusers, names.class_name), config, path=path, component="transformer")
    shapes = shapes_of(module)
    key_map = names.places("transformer", config, shapes, tensors)
    check_mapped(path, tensors, key_map, shapes, component="transformer", hint=HINT)
    exact = set(getattr(module, "_keep_in_fp32_modules", None) or ())  # as diffusers' own loading has it
    wide = {name: torch.float32 for name in shapes if set(name.split(".")) & exact}
    load_mapped(module, file, key_map, component="transformer", dtype=dtype, dtypes=wide, choose=choose, empty=empty)
    taken = {location.key for location in key_map.values()}.union(*(beside or {}).values())
    left = [key for key in tensors if key not in taken]
    rest = (f"not used: {counted(len(left), 'tensor')} of {path.name} beside its transformer (first: {left[0]}).",) if left else ()
    if beside:
        source_note = f"{path.name} holds transformer, {', '.join(beside)}; all else is that of {base_config}."
    else:
        source_note = f"{path.name} holds a transformer; text encoders, tokenizers, VAE and scheduler are those of {base_config}."
    return module, (source_note, *rest)


def _places(names: FileNames, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, KeyLocation]:
    """Parameter -> its location under the original implementation's names; one without a name there keeps its own."""
    spellings = Spellings(names.layers)
    places: dict[str, KeyLocation] = {}
    for name in shapes:
        module, _, ending = name.rpartition(".")
        found = spellings.find(module)
        other = _other(names.others, name)
        if other is not None:
            places[name] = KeyLocation(other)
        elif found is None or found.part is None:
            places[name] = KeyLocation(name)
        else:
            heights = [shapes[f"{own}.{ending}"][0] for own in found.layer.modules if f"{own}.{ending}" in shapes]
            begin = sum(heights[: found.part])
            rows = (begin, begin + heights[found.part]) if len(found.layer.modules) > 1 else None
            places[name] = KeyLocation(f"{found.layer.original}.{ending}", rows, found.layer.swaps(*shapes[f"{module}.weight"][:2]))
    return places


def _other(others: Mapping[str, str], name: str) -> str | None:
    """The file's name of a parameter that is no linear layer's."""
    pattern = re.sub(r"(?<=\.)\d+(?=\.)", "*", name)
    if pattern not in others:
        return None
    original = others[pattern]
    for number in re.findall(r"(?<=\.)\d+(?=\.)", name):
        original = original.replace("*", number, 1)
    return original
