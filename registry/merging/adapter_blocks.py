"""Weights of an adapter by block of the base: each multiplies what the adapter adds to that block.

Three forms, as people write them: numbers as sd-webui-lora-block-weight takes them in `lbw=` (BASE, then the blocks with attention or
all blocks: 17 or 26 of SD 1, 12 or 20 of SDXL); names or patterns with a weight (`IN04=0,OUT*=0.5`); a preset of `loraloom merge`.
BASE is the text encoders. Blocks are those of merge-block-weighted in UNets and the layers by depth in transformers
(`registry.merging.blocks`); what the denoiser has outside its blocks keeps the adapter's own weight.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import isfinite
from typing import TYPE_CHECKING

from registry.errors import Refused
from registry.merging.blocks import PRESETS, block_names, block_weights, blocks_in_order
from registry.names import suggest
from registry.printable import counted

if TYPE_CHECKING:
    from registry.tensors.layout import Layout

BASE = "BASE"
EXPECTED = "Expected numbers as lbw= has them (1,0,0.5,...), {IN04: 0, OUT*: 0.5}, or a preset of `loraloom merge` (ramp, out07, ...)."
_ATTENTION = re.compile(r"attn|attention")


@dataclass(frozen=True)
class Blocks:
    """The blocks of a denoiser from the first to the last, those with attention, and the block of each module."""

    names: tuple[str, ...]
    attended: tuple[str, ...]
    of_module: Mapping[str, str]


def blocks_of(layout: Layout) -> Blocks:
    """The blocks of a base's layout."""
    of_key = block_names(layout)
    names = blocks_in_order(of_key.values())
    with_attention = {block for key, block in of_key.items() if _ATTENTION.search(key)}
    return Blocks(
        names=tuple(names),
        attended=tuple(name for name in names if name in with_attention),
        of_module={key.partition("/")[2].rpartition(".")[0]: block for key, block in of_key.items()},
    )


def read_block_weights(value: object) -> str | None:
    """Block weights as text, their names not yet held against a base; None of None. Raises Refused."""
    if value is None:
        return None
    if isinstance(value, Mapping) and value:
        return ",".join(f"{_name(name)}={_number(weight)}" for name, weight in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str) and value:
        return ",".join(map(_number, value))
    if isinstance(value, str) and value.strip():
        items = [item.strip() for item in value.split(",")]
        if len(items) == 1 and "=" not in value and not _is_number(items[0]):
            return _preset(items[0])
        pairs = [item.partition("=") for item in items]
        if all(sign for _, sign, _ in pairs):
            return ",".join(f"{_name(name)}={_number(weight)}" for name, _, weight in pairs)
        return ",".join(map(_number, items))
    raise Refused(f"{value!r} are no block weights. {EXPECTED}")


def on_blocks(text: str, names: Sequence[str], attended: Sequence[str]) -> str | None:
    """The same by name, in the order of the base's blocks and without those of weight 1; None where nothing is left.

    Raises Refused for a number of weights that is none of this base's, and for names that it has not.
    """
    known, text = [BASE, *names], str(read_block_weights(text))  # it may come from an image's metadata, which anyone can write
    if "=" in text:
        weights = dict.fromkeys(known, 1.0)
        for name, weight in _pairs(text):
            found = [one for one in known if fnmatchcase(one, name)]
            if not found:
                span = f"{names[0]} to {names[-1]}" if names else "no blocks"
                raise Refused(f"The block {name!r} is none of this base, which has BASE and {span}. {suggest(name, known)}")
            weights |= dict.fromkeys(found, weight)
    elif _is_number(text.split(",")[0]):
        weights = _listed([float(item) for item in text.split(",")], names, attended)
    else:
        preset = block_weights(text, list(names))
        if isinstance(preset, str):
            raise Refused(preset)
        weights = dict(preset)
    return ",".join(f"{name}={_spelt(weights[name])}" for name in known if weights.get(name, 1.0) != 1.0) or None


def factors(text: str | None) -> dict[str, float]:
    """Block -> weight of what `on_blocks` gave; a block that is not named has 1."""
    return dict(_pairs(text)) if text else {}


class Factors:
    """What block weights make of each weight of a loaded base: a factor of what the adapter adds there."""

    def __init__(self, text: str | None, blocks: Blocks) -> None:
        self._weights = factors(text)
        self._blocks = blocks

    def of_denoiser(self, module: str) -> float:
        """That of a module of the denoiser, by its name there."""
        return self._weights.get(self._blocks.of_module.get(module, ""), 1.0)

    @property
    def of_text(self) -> float:
        """That of the text encoders."""
        return self._weights.get(BASE, 1.0)


def as_numbers(text: str, names: Sequence[str]) -> str:
    """The same as `lbw=` takes it: BASE, then all blocks."""
    weights = factors(text)
    return ",".join(_spelt(weights.get(name, 1.0)) for name in (BASE, *names))


def _listed(numbers: list[float], names: Sequence[str], attended: Sequence[str]) -> dict[str, float]:
    forms = {"all blocks": list(names), "BASE and all blocks": [BASE, *names], "BASE and the blocks with attention": [BASE, *attended]}
    fitting = {tuple(form) for form in forms.values() if len(form) == len(numbers)}
    if len(fitting) == 1:
        (form,) = fitting
        return dict.fromkeys(names, 0.0) | dict(zip(form, numbers, strict=True))  # a block that is not named has 0, as there
    if fitting:
        raise Refused(
            f"{counted(len(numbers), 'block weight')} may mean two things for this base. Name the blocks: {{{names[0]}: 0.5, ...}}."
        )
    counts = ", ".join(f"{len(form)} ({what})" for what, form in forms.items())
    raise Refused(
        f"{counted(len(numbers), 'block weight is', 'block weights are')} given; this base takes "
        f"{counts}. Or name the blocks: {{IN04: 0, OUT*: 0.5}}."
    )


def _pairs(text: str) -> list[tuple[str, float]]:
    return [(name, float(weight)) for name, _, weight in (item.rpartition("=") for item in text.split(","))]


def _preset(name: str) -> str:
    if name.lower() not in PRESETS:
        raise Refused(
            f"{name!r} is no preset of block weights here. {suggest(name.lower(), PRESETS)} Presets of sd-webui-lora-block-weight stand in "
            "a file of its own: give their numbers."
        )
    return name.lower()


def _name(name: object) -> str:
    text = str(name).strip()
    if not text or any(sign in text for sign in ",=:<>"):
        raise Refused(f"{name!r} is no name of a block. {EXPECTED}")
    return text


def _is_number(text: str) -> bool:
    try:
        return isfinite(float(text))
    except ValueError:
        return False


def _number(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float | str) or not _is_number(str(value)) or abs(float(value)) >= 1e4:
        raise Refused(f"{value!r} is no block weight. {EXPECTED}")
    return _spelt(float(value))


def _spelt(value: float) -> str:
    return repr(int(value)) if value == int(value) else repr(value)
