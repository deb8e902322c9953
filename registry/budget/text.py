"""A memory budget as it is typed: 12GiB, 12GB, 11.5 GiB, auto. GB is 1e9 bytes, GiB 2^30."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from registry.budget.free import free_bytes
from registry.errors import Refused

if TYPE_CHECKING:
    import torch

AUTO = "auto"
UNITS = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}
LARGEST = 2**60  # bytes; more is a slip of the pen
SIZE = re.compile(r"(\d+(?:\.\d+)?|\.\d+) ?((?:[kmgt]i?)?b)", re.IGNORECASE)
BARE = re.compile(r"(\d+(?:\.\d+)?|\.\d+) ?([kmgt]?)", re.IGNORECASE)
EXPECTED = "Expected a size with its unit, such as 12GiB (GiB is 2^30 bytes) or 12GB (1e9 bytes), or auto for what the device has free"


@dataclass(frozen=True)
class Budget:
    """Bytes that a job may take of its device; `is_auto`: what the device had free."""

    bytes: int
    is_auto: bool = False

    def __str__(self) -> str:
        return f"{both_units(self.bytes)}{', what is free' if self.is_auto else ''}"


def budget_fault(text: str) -> str | None:
    """What is wrong with the text as a sentence's end; None for a budget."""
    found = SIZE.fullmatch(text.strip())
    if text.strip().lower() == AUTO or (found and 1 <= _bytes(found) < LARGEST):
        return None
    bare = BARE.fullmatch(text.strip())
    if bare and float(bare[1]):
        unit = bare[2].upper() or "G"
        return f"needs a unit: {bare[1]}{unit}iB ({int(float(bare[1]) * UNITS[unit.lower() + 'ib']):,} bytes) or {bare[1]}{unit}B"
    return f"is no amount of memory. {EXPECTED}"


def bytes_of(text: str) -> int | None:
    """Bytes of a size with its unit (2GiB); None for any other text."""
    found = SIZE.fullmatch(text.strip())
    return _bytes(found) if found and 1 <= _bytes(found) < LARGEST else None


def read_budget(text: str, device: torch.device) -> Budget:
    """The budget that a text means for a device. Raises Refused for what is none, and for `auto` where the system does not tell."""
    fault = budget_fault(text)
    if fault is not None:
        raise Refused(f"memory={text} {fault}.")
    found = SIZE.fullmatch(text.strip())
    if found:
        return Budget(_bytes(found))
    free = free_bytes(device)
    if free is None:
        raise Refused(f"memory={AUTO}: this system does not tell what memory is free on {device}. Give a size, such as 12GiB.")
    return Budget(free, is_auto=True)


def both_units(count: int) -> str:
    """Bytes in both units, as cards are sold and as tools print them: 11.2 GiB (12.0 GB). Smaller ones in MiB, KiB, bytes."""
    for binary, decimal in (("GiB", "GB"), ("MiB", "MB"), ("KiB", "kB")):
        if count >= UNITS[binary.lower()]:
            return f"{_digits(count / UNITS[binary.lower()])} {binary} ({_digits(count / UNITS[decimal.lower()])} {decimal})"
    return f"{count} bytes"


def size_to_give(count: int) -> str:
    """The least size with three decimals of its unit that is at least so many bytes, as it can be typed: 9.813GiB."""
    unit = next((unit for unit in ("GiB", "MiB") if count >= UNITS[unit.lower()]), "KiB")
    thousandths = -(-count * 1000 // UNITS[unit.lower()])
    return f"{thousandths / 1000:.3f}".rstrip("0").rstrip(".") + unit


def _bytes(found: re.Match[str]) -> int:
    """Whole bytes, exactly: no float in between."""
    whole, _, part = found[1].partition(".")
    parts: int = 10 ** len(part)
    return int(f"{whole}{part}") * UNITS[found[2].lower()] // parts


def _digits(value: float) -> str:
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"
