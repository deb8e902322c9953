"""The aliases of every family, those that load and those that are only detected."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from registry.aliases import KEYS, Aliases, declared_family
from registry.detect.other_families import DETECT_ONLY
from registry.families import FAMILIES

LONGEST = 200  # characters of a text whose family is kept


def all_aliases() -> Mapping[str, Aliases]:
    """Family -> its Aliases."""
    return _aliases_with(tuple(FAMILIES))


@lru_cache(maxsize=4)
def _aliases_with(families: tuple[str, ...]) -> Mapping[str, Aliases]:
    return {**{row.family: row.aliases for row in DETECT_ONLY}, **{name: FAMILIES[name].aliases for name in families}}


def family_declared(metadata: Mapping[str, str]) -> tuple[str, str] | None:
    """(family, the entry that names it) as the metadata of a header declare it, of all families; None where they do not."""
    families = tuple(FAMILIES)
    said = tuple((key, metadata[key]) for key in _declaring(families) if key in metadata)
    if not said or any(len(value) > LONGEST for _, value in said):
        return declared_family(dict(said), all_aliases()) if said else None
    return _declared(said, families)


@lru_cache(maxsize=4)
def _declaring(families: tuple[str, ...]) -> tuple[str, ...]:
    """The entries of a header by which some family is declared."""
    return tuple(dict.fromkeys([*KEYS, *(key for aliases in _aliases_with(families).values() for key in aliases.entries)]))


@lru_cache(maxsize=1024)  # files of one trainer declare the same
def _declared(said: tuple[tuple[str, str], ...], families: tuple[str, ...]) -> tuple[str, str] | None:
    return declared_family(dict(said), _aliases_with(families))
