"""The aliases of every family, those that load and those that are only detected."""

from __future__ import annotations

from collections.abc import Mapping

from registry.aliases import Aliases
from registry.detect.other_families import DETECT_ONLY
from registry.families import FAMILIES


def all_aliases() -> Mapping[str, Aliases]:
    """Family -> its Aliases."""
    return {**{row.family: row.aliases for row in DETECT_ONLY}, **{name: family.aliases for name, family in FAMILIES.items()}}
