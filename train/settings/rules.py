"""What a range rule of a setting is, and the rules that several groups share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Rule = tuple[str, Any, bool, str]  # (name within the group, value, is it good, what it must be)
LARGEST = 2**31


def counts(group: object, *names: str) -> Iterator[Rule]:
    """Whole numbers from 1."""
    for name in names:
        yield name, (value := getattr(group, name)), value >= 1, "must be at least 1"
        yield name, value, value < LARGEST, "must be below 2^31"


def optional_counts(group: object, *names: str) -> Iterator[Rule]:
    """Whole numbers from 1, or null."""
    for name in names:
        value = getattr(group, name)
        yield name, value, value is None or value >= 1, "must be at least 1, or null for the default"
        yield name, value, value is None or value < LARGEST, "must be below 2^31"


def texts(group: object, *names: str) -> Iterator[Rule]:
    """Texts that are not empty, or null."""
    for name in names:
        value = getattr(group, name)
        yield name, value, value is None or bool(value.strip()), "must not be empty"


def mappings(group: object, *names: str) -> Iterator[Rule]:
    """{NAME: VALUE}, or null."""
    for name in names:
        value = getattr(group, name)
        good = value is None or (isinstance(value, dict) and all(isinstance(key, str) for key in value))
        yield name, value, good, "must be {NAME: VALUE}"
