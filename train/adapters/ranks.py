"""Rank and alpha of each layer, by the patterns of `lora.ranks` and `lora.alphas`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from registry.errors import Faults
from registry.printable import counted
from train.settings.lora import LoraConfig

Ranks = dict[str, tuple[int, float]]  # layer -> (rank, alpha)


def ranks_of(names: Iterable[str], lora: LoraConfig) -> Ranks:
    """Rank and alpha of these layers. Without an alpha for it, a layer's alpha is `lora.alpha`, else its rank."""
    found: Ranks = {}
    for name in names:
        rank = int(_first(name, lora.ranks, lora.rank))
        common = rank if lora.alpha is None else lora.alpha
        found[name] = (rank, float(_first(name, lora.alphas, common)))
    return found


def matches(pattern: str, name: str) -> bool:
    """Whether a pattern is for a layer: a regular expression for the whole name or its last parts, as peft's rank_pattern."""
    return re.fullmatch(rf"(.*\.)?({pattern})", name) is not None


def _first(name: str, patterns: Mapping[str, float] | None, otherwise: float) -> float:
    """The value of the first pattern that is for the layer."""
    return next((value for pattern, value in (patterns or {}).items() if matches(pattern, name)), otherwise)


def check_patterns(lora: LoraConfig, names: Sequence[str]) -> None:
    """Raise Faults for patterns that are for none of the layers that learn, or whose layers another pattern before them takes."""
    faults = []
    for setting in ("ranks", "alphas"):
        patterns: Mapping[str, float] = getattr(lora, setting) or {}
        firsts = {next((pattern for pattern in patterns if matches(pattern, name)), None) for name in names}
        for pattern in patterns:
            if not any(matches(pattern, name) for name in names):
                faults.append(f"lora.{setting}: {pattern!r} matches none of the {counted(len(names), 'layer')} that learn.")
            elif pattern not in firsts:
                faults.append(f"lora.{setting}: an earlier pattern has every layer of {pattern!r}. Put the narrower one first.")
    if faults:
        raise Faults("These patterns act on nothing:", [*faults, f"Layers are named like {names[0]}."])


def ranks_in_words(ranks: Ranks) -> str:
    """16; or 4 on 12 layers, 16 on 20 layers."""
    counts: dict[int, int] = {}
    for rank, _ in ranks.values():
        counts[rank] = counts.get(rank, 0) + 1
    if len(counts) == 1:
        return str(next(iter(counts)))
    return ", ".join(f"{rank} on {counted(count, 'layer')}" for rank, count in sorted(counts.items()))
