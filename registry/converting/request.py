"""The request of a conversion, the plan that answers it, and its result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from registry.progress import Report
from registry.record import Hashes

FORMS = ("safetensors", "single-file", "folder")  # targets that are no dialect of adapters


@dataclass(frozen=True, kw_only=True)
class ConvertRequest:
    """The request: a reference, the target form, and the output."""

    reference: str
    target: str
    output: Path
    base: str | None = None
    family: str | None = None
    dtype: str | None = None  # fp32, fp16, ...; None: as it is
    memory_mib: int | None = None  # of unpickling; None: by the file's size
    name: str | None = None
    register: bool = True


@dataclass(frozen=True, kw_only=True)
class ConversionResult:
    """What was written: the file or folder to register, its hashes where they were computed, more facts and notes."""

    file: Path
    hashes: Hashes | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()
    parents: Sequence[Mapping[str, Any]] = ()  # what the source itself records that it was made from
    sha256: str | None = None  # of a folder over all of its files


class ConversionPlan(Protocol):
    """A conversion that was planned: everything is checked, nothing written."""

    @property
    def family(self) -> str | None:
        """What the result is of; None: it is detected when it is registered."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """The plan in plain values."""

    @property
    def notes(self) -> Sequence[str]:
        """Notes for the user before it runs."""

    def write(self, *, parents: Sequence[Mapping[str, Any]], report: Report) -> ConversionResult:
        """Write the output whole and verified, or leave nothing."""
