"""The family of what is converted: the one that is told or was detected, if it is one that we load."""

from __future__ import annotations

from pathlib import Path

from registry.detect.other_families import DETECT_ONLY
from registry.errors import Refused
from registry.families import FAMILIES, Family


def known_family(name: str | None, path: Path) -> Family:
    """The family of this name. Raises Refused where none is known or it is not one we load, UnknownName for a typing error."""
    if name is None:
        raise Refused(f"It is not known which family {path.name} is of. Say it: --family NAME ({', '.join(sorted(FAMILIES))}).")
    if name not in FAMILIES and any(row.family == name for row in DETECT_ONLY):
        raise Refused(f"Models of {name} are recognised but not converted; families are {', '.join(sorted(FAMILIES))}.")
    return FAMILIES[name]
