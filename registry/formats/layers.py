"""The layers of a denoiser in both spellings: diffusers' modules, and the original implementation's names that kohya's files use.

One table a family, read both ways. `*` stands for a block's number, in the same order on both sides.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property


@dataclass(frozen=True)
class Layer:
    """A layer that can carry an adapter: its original name, and the diffusers modules whose rows it holds, top to bottom.

    `widths` are the rows of each module in units of the layer's input (3 x 1 for q, k, v; 1, 1/3, 1/3 where k and v are
    shared by three heads); () is one module, or modules that are all as wide as their input.
    """

    original: str
    modules: tuple[str, ...]
    swapped: bool = False  # its two halves of rows are in the other order in the original implementation: see `swaps`
    widths: tuple[int | Fraction, ...] = ()
    swapped_height: int | None = None  # they do so only where there are so many rows an input (SD3's last block); None: always

    def rows(self, inputs: int) -> tuple[int, ...]:
        """Rows of each module, top to bottom, for a layer of so many inputs."""
        return tuple(int(width * inputs) for width in self.widths or (1,) * len(self.modules))

    def swaps(self, rows: int, inputs: int) -> bool:
        """Whether the halves of a layer of this size are in the other order in the original implementation."""
        return self.swapped and self.swapped_height in (None, rows / inputs)

    def numbered(self, numbers: Iterable[str]) -> Layer:
        """The layer of one block: every `*` replaced, in order."""
        given = list(numbers)
        return replace(self, original=_fill(self.original, given), modules=tuple(_fill(module, given) for module in self.modules))


def same_names(*modules: str) -> tuple[Layer, ...]:
    """Layers that the original implementation, or kohya's files, call as diffusers does."""
    return tuple(Layer(module, (module,)) for module in modules)


def every(*parts: str | Iterable[str]) -> tuple[str, ...]:
    """All names that can be put together: every("blocks.*.", ("q", "k")) is blocks.*.q and blocks.*.k."""
    names = [""]
    for part in parts:
        choices = (part,) if isinstance(part, str) else tuple(part)
        names = [name + choice for name in names for choice in choices]
    return tuple(names)


TEXT_LAYERS = same_names(
    *every("text_model.encoder.layers.*.self_attn.", ("q_proj", "k_proj", "v_proj", "out_proj")),
    *every("text_model.encoder.layers.*.mlp.", ("fc1", "fc2")),
    *every("text_model.encoder.layers.*.", ("layer_norm1", "layer_norm2")),
    *every("text_model.", ("embeddings.token_embedding", "embeddings.position_embedding", "final_layer_norm")),
    "text_projection",
    *every("encoder.block.*.layer.0.SelfAttention.", ("q", "k", "v", "o", "relative_attention_bias")),
    *every("encoder.block.*.layer.1.DenseReluDense.", ("wi", "wi_0", "wi_1", "wo")),
)
"""Of CLIP's text models, with the `text_model.` that newer classes dropped and every other tool expects; and of T5's encoder."""


@dataclass(frozen=True, kw_only=True)
class AdapterNames:
    """How a family's adapters are spelled by kohya's sd-scripts, ComfyUI and A1111. Of a Family: `adapter_names`."""

    layers: tuple[Layer, ...]  # of the denoiser; every layer an adapter may carry, fused ones as the original implementation has them
    encoders: Mapping[str, str] = field(default_factory=dict)  # text encoder component -> its prefix in kohya's files
    base_version: str | None = None  # `ss_base_model_version` as sd-scripts writes it: A1111 identifies families by it
    metadata: Mapping[str, str] = field(default_factory=dict)  # other metadata that identify it, such as ss_v2
    original: Callable[[Mapping[str, int]], bool] | None = None
    """Whether a build with these modules (name -> in-width) is the published one, whose original names the table has. Where it
    is not, files are written with diffusers' names, dots as underscores. None: the names fit every build."""

    @cached_property
    def denoiser(self) -> Spellings:
        """The denoiser's layers by any name."""
        return Spellings(self.layers)

    @cached_property
    def text(self) -> Spellings:
        """A text encoder's layers by any name."""
        return Spellings(TEXT_LAYERS)


@dataclass(frozen=True)
class Found:
    """A layer under the name that was looked up: the whole of it (`part` None), or one of its modules."""

    layer: Layer
    part: int | None


class Spellings:
    """Layers found by any of their names, dotted or with dots as underscores."""

    def __init__(self, layers: Iterable[Layer]) -> None:
        self._known: dict[str, list[tuple[re.Pattern[str], Layer, int | None]]] = {}
        for layer in layers:
            for part, module in enumerate(layer.modules):  # diffusers' names first: where both codes share one, it means the module
                self._add(module, layer, part)
            if layer.original not in layer.modules:
                self._add(layer.original, layer, None)

    def _add(self, name: str, layer: Layer, part: int | None) -> None:
        flat = name.replace(".", "_")
        pattern = re.compile(re.escape(flat).replace(r"\*", r"(\d+)"))
        self._known.setdefault(_skeleton(flat), []).append((pattern, layer, part))

    def find(self, name: str) -> Found | None:
        """The layer of this name with its block numbers filled in; None where the family has none."""
        flat = name.replace(".", "_")
        for pattern, layer, part in self._known.get(_skeleton(flat), ()):
            found = pattern.fullmatch(flat)
            if found:
                return Found(layer.numbered(found.groups()), part)
        return None


def originals(layers: Iterable[Layer], modules: Iterable[str]) -> dict[str, Layer]:
    """Original name -> layer, of every layer at least one of whose modules is among these (dotted, diffusers' names)."""
    spellings = Spellings(layers)
    found = [place.layer for module in modules if (place := spellings.find(module)) is not None and place.part is not None]
    return {layer.original: layer for layer in found}


def _fill(pattern: str, numbers: list[str]) -> str:
    parts = pattern.split("*")
    return "".join(part + number for part, number in zip(parts, [*numbers, ""], strict=True))


def _skeleton(flat: str) -> str:
    """A name without its numbers: what a pattern and the names it stands for have in common."""
    return re.sub(r"\d+|\*", "#", flat)
