"""What is asked of a conversion, and what every way of converting answers with."""

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
    """What is asked for: a reference, the form it shall have, and where."""

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
class Written:
    """What was written: the file or folder to register, its hashes where they were taken, more facts and notes."""

    file: Path
    hashes: Hashes | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()


class ConversionPlan(Protocol):
    """A conversion that was planned: everything is checked, nothing written."""

    @property
    def family(self) -> str | None:
        """What the result is of; None: it is looked at when it is registered."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """The plan in plain values."""

    @property
    def notes(self) -> Sequence[str]:
        """What should be said before."""

    def write(self, *, parents: Sequence[Mapping[str, Any]], report: Report) -> Written:
        """The output, whole and proven, or not there."""
