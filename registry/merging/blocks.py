"""Weights by block: which block of a model a key belongs to, and the presets that give each block its weight.

UNets have the blocks of merge-block-weighted (MBW): IN00.., M00, OUT00.. (25 in SD 1 and 2, 19 in SDXL); time embedding counts
to the first, the output layers to the last. Transformers have one block a layer, in the order of the depth. Everything else
(text encoders, VAE) is of no block and keeps the recipe's own value.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from registry.architectures.unet.ldm_names import unet_name
from registry.names import Table, suggest
from registry.printable import counted
from registry.tensors.layout import Layout
from registry.typed_values import is_number

LDM = re.compile(r"(input_blocks|output_blocks)\.(\d+)\.|(middle_block)\.")
LEVEL, LAYER = re.compile(r"down_blocks\.(\d+)\."), re.compile(r"down_blocks\.0\.resnets\.(\d+)\.")
FIRST, LAST = ("time_embed.", "label_emb."), ("out.",)
DEPTH = re.compile(  # kinds of layers in the order in which they are run
    r"(?:^|\.)(double_blocks|transformer_blocks|joint_blocks|single_blocks|single_transformer_blocks|layers|blocks)\.(\d+)\."
)
KINDS = ("double_blocks", "transformer_blocks", "joint_blocks", "layers", "blocks", "single_blocks", "single_transformer_blocks")
PREFIXES = ("model.diffusion_model.", "diffusion_model.", "unet.", "transformer.", "net.")


def block_names(layout: Layout) -> dict[str, str]:
    """Key -> block, of the denoiser's keys that are in one."""
    names = {key: _bare(layout, key) for key in layout.tensors if layout.component(key) == "denoiser"}
    to_ldm = _ldm_namer(names.values())
    found: dict[str, str] = {}
    for key, name in names.items():
        block = _unet_block(to_ldm(name)) if to_ldm else _depth_block(name)
        if block:
            found[key] = block
    if to_ldm:
        last = max((block for block in found.values() if block.startswith("OUT")), default="M00")
        found |= {key: last for key, name in names.items() if to_ldm(name).startswith(LAST)}
    return found


def blocks_in_order(names: Iterable[str]) -> list[str]:
    """The blocks of a model from its first to its last: IN, M, OUT, or by depth."""
    unique = set(names)
    order = {"I": 0, "M": 1, "O": 2}
    if any(name.startswith("IN") or name == "M00" for name in unique):
        return sorted(unique, key=lambda name: (order[name[0]], name))
    return sorted(unique, key=lambda name: (KINDS.index(name.rpartition(".")[0]), int(name.rpartition(".")[2])))


def _bare(layout: Layout, key: str) -> str:
    name = key.partition("/")[2] if layout.diffusers else key
    for prefix in PREFIXES:
        if name.startswith(prefix) and not layout.diffusers:
            return name[len(prefix) :]
    return name


def _ldm_namer(names: Iterable[str]) -> Callable[[str], str] | None:
    """A function that gives the LDM name of a UNet's parameter; None for what is no UNet."""
    names = list(names)
    if any(LDM.match(name) for name in names):
        return lambda name: name
    levels, layers = (1 + max((int(found[1]) for name in names if (found := kind.match(name))), default=-1) for kind in (LEVEL, LAYER))
    if not levels or not layers:
        return None
    sides = {
        side: tuple(
            "Attn" if any(name.startswith(f"{side}_blocks.{level}.attentions.") for name in names) else "" for level in range(levels)
        )
        for side in ("down", "up")
    }
    config = {"down_block_types": sides["down"], "up_block_types": sides["up"], "layers_per_block": layers}
    return lambda name: unet_name(config, name) or name


def _unet_block(name: str) -> str | None:
    found = LDM.match(name)
    if found:
        return "M00" if found[3] else f"{'IN' if found[1] == 'input_blocks' else 'OUT'}{int(found[2]):02d}"
    return "IN00" if name.startswith(FIRST) else None


def _depth_block(name: str) -> str | None:
    found = DEPTH.search(name)
    return f"{found[1]}.{found[2]}" if found else None


# --- presets: share of the way from the first block (0) to the last (1) -> weight


PRESETS: Table[Callable[[float], float]] = Table("block preset")


def _smooth(x: float) -> float:
    return x * x * (3 - 2 * x)


def _within(*spans: tuple[float, float], weight: float = 1.0) -> Callable[[float], float]:
    """A weight inside these spans of the 25 MBW blocks (counted from 0, both ends in), 0 elsewhere; scaled to the model's number."""
    return lambda x: weight if any(low - 0.5 <= x * 24 <= high + 0.5 for low, high in spans) else 0.0


PRESETS.update(
    {
        "grad_v": lambda x: abs(2 * x - 1),
        "grad_a": lambda x: 1 - abs(2 * x - 1),
        "flat_25": lambda x: 0.25,
        "flat_50": lambda x: 0.5,
        "flat_75": lambda x: 0.75,
        "ramp": lambda x: x,
        "reverse_ramp": lambda x: 1 - x,
        "smoothstep": _smooth,
        "reverse_smoothstep": lambda x: 1 - _smooth(x),
        "cosine": lambda x: (1 + math.cos(math.pi * x)) / 2,
        "reverse_cosine": lambda x: (1 - math.cos(math.pi * x)) / 2,
        "wrap08": _within((0, 3), (21, 24)),
        "wrap12": _within((0, 5), (19, 24)),
        "wrap14": _within((0, 6), (18, 24)),
        "wrap16": _within((0, 7), (17, 24)),
        "mid12_50": _within((6, 18), weight=0.5),
        "out07": _within((18, 24)),
        "out12": _within((13, 24)),
    }
)


def with_base(given: Any, blocks: list[str]) -> tuple[Any, float | None]:
    """(the list of the blocks, BASE) of a list with one number more than a UNet has blocks: supermerger's 26, and 20 of SDXL."""
    if _numbers(given) and "M00" in blocks and len(given) == len(blocks) + 1:
        return list(given[1:]), float(given[0])
    return given, None


def block_weights(given: Any, blocks: list[str]) -> Mapping[str, float] | str:
    """Block -> weight of a preset's name, a list with a number a block, or {gradient: [...]}; a text describes the fault."""
    if not blocks:
        return "weights: this model has no blocks that could be weighted. Use rules with regular expressions."
    count = len(blocks)
    if isinstance(given, str):
        if given.lower() not in PRESETS:
            return f"weights={given}: unknown block preset. {suggest(given.lower(), PRESETS)}"
        preset = PRESETS[given.lower()]
        return {block: preset(index / (count - 1) if count > 1 else 0.0) for index, block in enumerate(blocks)}
    if isinstance(given, Mapping) and set(given) == {"gradient"} and _numbers(given["gradient"]) and len(given["gradient"]) >= 2:
        return {block: _interpolated(given["gradient"], index / (count - 1) if count > 1 else 0.0) for index, block in enumerate(blocks)}
    if _numbers(given) and len(given) == count:
        return dict(zip(blocks, map(float, given), strict=True))
    if _numbers(given):
        span = f"{blocks[0]} .. {blocks[-1]}"
        base = f" {count + 1} begin with BASE, the alpha of all that is in no block (params.alpha)." if "M00" in blocks else ""
        return (
            f"weights has {len(given)} numbers, this model has {counted(count, 'block')} "
            f"({span}).{base} For fewer give {{gradient: [...]}}."
        )
    return (
        f"weights must be a preset ({', '.join(sorted(PRESETS))}), a list of {count} numbers, or {{gradient: [0, 0.5, 1]}}, got {given!r}."
    )


def _numbers(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) > 0 and all(map(is_number, value))


def _interpolated(anchors: list[float], share: float) -> float:
    """The value at this share of the way along anchors at equal distances, straight between them."""
    place = share * (len(anchors) - 1)
    left = min(int(place), len(anchors) - 2)
    return anchors[left] + (anchors[left + 1] - anchors[left]) * (place - left)
