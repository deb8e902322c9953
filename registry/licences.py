"""Licences by how much they forbid, and what a derived model inherits: the strictest of its sources, unknown ones named."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

# beginnings or parts of licence ids and names, from free to strict; the strictest that matches counts
LEVELS: tuple[tuple[int, str], ...] = (
    (0, r"\bcc0|unlicense|public.domain"),
    (1, r"\bmit\b|apache|\bbsd|\bisc\b|cc-by(-\d|$)|cc by(?! ?-?(sa|nc|nd))"),
    (2, r"gpl|\bmpl|share.?alike|by-sa"),
    (3, r"openrail|\brail\b|community|llama|gemma"),
    (4, r"non.?commercial|-nc\b|by-nc|research"),
    (5, r"no.?deriv|-nd\b|by-nd|proprietary|all rights reserved"),
)


@dataclass(frozen=True)
class Inherited:
    """The strictest licence among sources, and the names of those whose licence is not known or not understood."""

    licence: str | None
    unknown: tuple[str, ...]


def strictness(licence: str) -> int | None:
    """How much a licence forbids, 0 to 5; None for one nobody here knows."""
    levels = [level for level, pattern in LEVELS if re.search(pattern, licence.lower())]
    return max(levels, default=None)


def inherited(sources: Sequence[tuple[str, str | None]]) -> Inherited:
    """What follows from (name, licence) of all sources."""
    known = [(level, licence) for _, licence in sources if licence and (level := strictness(licence)) is not None]
    unknown = tuple(name for name, licence in sources if not licence or strictness(licence) is None)
    return Inherited(max(known, key=lambda pair: pair[0])[1] if known else None, unknown)
