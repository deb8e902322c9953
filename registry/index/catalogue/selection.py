"""What a listing keeps of the index, and how it sorts it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from registry.errors import Faults
from registry.names import suggest
from registry.record import KINDS

if TYPE_CHECKING:
    from registry.index.catalogue.summary import Summary

NONE = "none"  # in place of a family, rank or licence: those without one
FACETS = ("kind", "family", "rank", "tag", "licence", "warning")
SORTS: Mapping[str, tuple[str, Callable[[Summary], Any], bool]] = {  # name -> (about, key, whether the largest comes first)
    "oldest": ("in the order in which they were registered", lambda one: (one.created, one.name), False),
    "newest": ("the last registered first", lambda one: (one.created, one.name), True),
    "name": ("by name", lambda one: (one.name.casefold(), one.name), False),
    "size": ("the largest first", lambda one: (one.bytes, one.name), True),
}


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The records that have all of these. `words` are those of `registry find`; a record needs every tag."""

    words: tuple[str, ...] = ()
    kind: str | None = None
    family: str | None = None  # or NONE, as rank and licence
    rank: str | None = None
    tags: tuple[str, ...] = ()
    licence: str | None = None
    warning: str | None = None  # a code
    missing: bool = False  # only those whose file is gone

    def check(self, sort: str | None) -> None:
        """Raise Faults for an unknown kind, family or order, and a rank that is no number."""
        from registry.index.overrides import families  # not at the top: help needs no database

        faults = []
        if self.kind is not None and self.kind not in KINDS:
            faults.append(f"Unknown kind {self.kind!r}. {suggest(self.kind, KINDS, whole=True)}")
        if self.family not in (None, NONE) and self.family not in (known := families()):
            faults.append(f"Unknown family {self.family!r}. {suggest(str(self.family), known)}")
        if self.rank not in (None, NONE) and not (str(self.rank).isascii() and str(self.rank).isdigit()):
            faults.append(f"Unknown rank {self.rank!r}: expected a whole number, or {NONE} for records without one.")
        if sort is not None and sort not in SORTS:
            faults.append(f"Unknown order {sort!r}. {suggest(sort, SORTS, whole=True)}")
        if faults:
            raise Faults("These records cannot be selected:", faults)

    def keeps(self, one: Summary, *, but: str = "") -> bool:
        """Whether a record has all of these, `words` aside; `but` is a facet that is not looked at."""
        return (
            (but == "kind" or self.kind in (None, one.kind))
            and (but == "family" or _is(self.family, one.family))
            and (but == "rank" or _is(self.rank, None if one.rank is None else str(one.rank)))
            and (but == "licence" or _is(self.licence, one.licence))
            and (but == "warning" or self.warning is None or self.warning in one.warnings)
            and (not self.missing or one.missing)
            and all(tag in one.tags for tag in self.tags)
        )


def _is(wanted: str | None, value: str | None) -> bool:
    return wanted is None or wanted == value or (wanted == NONE and value is None)
