"""The recipe of `loraloom lora combine`, `resize` or `extract`, checked: a file's header may hold anything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from registry.adapters.factors import Keep
from registry.errors import Faults
from registry.merging.recipe import DTYPES, Source
from registry.printable import counted
from registry.typed_values import is_number

EXTRACT = "lora extract"
COUNTS = ("rank",)  # fields of Keep that are whole numbers


@dataclass(frozen=True, kw_only=True)
class AdapterRecipe:
    """What `lora combine`, `resize` and `extract` are given; weights are of the first two, components, seed and biases of the last."""

    sources: tuple[Source, ...]
    keep: Keep | None  # None: exact
    dtype: str  # fp16, bf16, ...
    weights: tuple[float, ...] = ()
    components: tuple[str, ...] | None = None
    seed: int = 0
    biases: bool = False


def adapter_recipe(plain: Mapping[str, Any], tool: str, *, name: str) -> AdapterRecipe:
    """The recipe of plain values that `name` has. Raises Faults with all that is wrong."""
    faults = list(_faults(plain, tool))
    if faults:
        raise Faults(f"The recipe of {name} cannot be done again:", faults)
    keep, components = plain.get("keep"), plain.get("components")
    return AdapterRecipe(
        sources=tuple(Source(ref=one["ref"], name=one.get("name") or one["ref"], sha256=one["sha256"]) for one in plain["sources"]),
        keep=None if keep is None else Keep(**keep),
        dtype=next(word for word, dtype in DTYPES.items() if dtype == plain["dtype"]),
        weights=tuple(map(float, plain.get("weights", ()))),
        components=tuple(components) if components else None,
        seed=plain.get("seed", 0),
        biases=plain.get("biases", False),
    )


def _faults(plain: Mapping[str, Any], tool: str) -> Iterator[str]:
    sources, keep, components = plain.get("sources"), plain.get("keep"), plain.get("components")
    if not isinstance(sources, list) or not sources or not all(map(_is_source, sources)):
        yield "sources must be a list of {ref, sha256}."
    elif tool == EXTRACT and len(sources) != 2:
        yield f"extract takes two sources, {len(sources)} are given."
    elif tool != EXTRACT:
        yield from weight_faults(plain.get("weights"), len(sources))
    if plain.get("dtype") not in tuple(DTYPES.values()):
        yield f"dtype must be {' or '.join(DTYPES.values())}."
    if not (keep is None and tool != EXTRACT) and not _is_keep(keep):
        yield "keep must be rank, sv_ratio, sv_fro or energy, and a number."
    if not (components is None or (isinstance(components, list) and all(isinstance(one, str) for one in components))):
        yield "components must be a list of names."
    if not isinstance(seed := plain.get("seed", 0), int) or isinstance(seed, bool):
        yield "seed must be a whole number."
    if not isinstance(plain.get("biases", False), bool):
        yield "biases must be true or false."


def weight_faults(weights: object, count: int) -> Iterator[str]:
    """What is wrong with the weights of so many adapters."""
    if not isinstance(weights, (list, tuple)) or len(weights) != count or not all(map(is_number, weights)):
        yield f"weights must be a list of numbers, one for each adapter: {counted(count, 'number')}."


def _is_source(value: object) -> bool:
    texts = isinstance(value, dict) and all(isinstance(value.get(field), str) for field in ("ref", "sha256"))
    return texts and isinstance(value, dict) and isinstance(value.get("name", ""), str)


def _is_keep(value: object) -> bool:
    if not isinstance(value, dict) or not value or not value.keys() <= {"rank", "sv_ratio", "sv_fro", "energy"}:
        return False
    return all(is_number(number) and (field not in COUNTS or isinstance(number, int)) for field, number in value.items())
