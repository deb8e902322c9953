"""Licences by how much they forbid, and what a derived model inherits: one policy for merging, adapters and training.

The strictest licence of all sources is the derived file's; of several equally strict ones all hold (SPDX's AND). A source whose licence is
not known, or not understood, is named: it may be stricter than all that are. Every source's licence is listed in the derived file.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from registry.plain_values import from_json
from registry.record import Warn

# beginnings or parts of licence ids and names, from free to strict; the strictest that matches counts
LEVELS: tuple[tuple[int, str], ...] = (
    (0, r"\bcc0|unlicense|public.domain"),
    (1, r"\bmit\b|apache|\bbsd|\bisc\b|cc-by(-\d|$)|cc by(?! ?-?(sa|nc|nd))"),
    (2, r"gpl|\bmpl|share.?alike|by-sa"),
    (3, r"openrail|\brail\b|community|llama|gemma"),
    (4, r"non.?commercial|-nc\b|by-nc|research"),
    (5, r"no.?deriv|-nd\b|by-nd|proprietary|all rights reserved"),
)
CLOSED = 4  # non-commercial and stricter
ENTRY = "loraloom.licences"  # in a derived file's metadata: {name of a source: its licence or null}


@dataclass(frozen=True)
class Terms:
    """What follows from all sources: the licence that holds (None: none is known), each source's, the sources without one."""

    licence: str | None
    sources: Mapping[str, str | None]
    unknown: tuple[str, ...]

    def warnings(self) -> tuple[Warn, ...]:
        """What to know before the derived file is shared."""
        found = []
        if self.unknown:
            message = f"the licence of {', '.join(self.unknown)} is not known: it may forbid more than {self.licence or 'anything'}."
            message = message if self.licence else f"the licence of {', '.join(self.unknown)} is not known, and so the result's is not."
            found.append(Warn(code="licence-unknown", message=message))
        closed = [name for name, licence in self.sources.items() if licence and (strictness(licence) or 0) >= CLOSED]
        if closed:
            message = f"the licence of {', '.join(closed)} forbids commercial use or derived works; look at it before you share."
            found.append(Warn(code="licence-closed", message=message))
        return tuple(found)

    def notes(self) -> list[str]:
        """The warnings as sentences."""
        return [warning.message for warning in self.warnings()]

    def entries(self) -> dict[str, str]:
        """A derived file's metadata: ModelSpec's licence where one is known, and every source's own."""
        spec = {"modelspec.license": self.licence} if self.licence else {}
        declared = json.dumps(dict(self.sources), ensure_ascii=False, sort_keys=True)
        return {**spec, ENTRY: declared} if any(self.sources.values()) else {}


def strictness(licence: str) -> int | None:
    """How much a licence forbids, 0 to 5; None for an unknown one."""
    levels = [level for level, pattern in LEVELS if re.search(pattern, licence.lower())]
    return max(levels, default=None)


def inherited(sources: Iterable[tuple[str, str | None]]) -> Terms:
    """The Terms that follow from (name, licence) of all sources."""
    given = list(dict.fromkeys(sources))
    single = [part.strip() for _, licence in given for part in (licence or "").split(" AND ") if part.strip()]
    known = {part: level for part in single if (level := strictness(part)) is not None}
    strictest = [part for part, level in known.items() if level == max(known.values())]
    unknown = tuple(dict.fromkeys(name for name, licence in given if not licence or strictness(licence) is None))
    return Terms(" AND ".join(strictest) or None, dict(given), unknown)


def declared_terms(metadata: Mapping[str, str]) -> Terms | None:
    """The Terms in a derived file's metadata; None where they are missing or damaged."""
    if ENTRY not in metadata:
        return None
    try:
        declared = from_json(metadata[ENTRY])
    except ValueError:
        return None
    if not isinstance(declared, dict) or not all(value is None or isinstance(value, str) for value in declared.values()):
        return None
    return inherited(declared.items())
