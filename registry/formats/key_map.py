"""The key maps of single files: where a component's parameters are, whatever code wrote the file."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class KeyLocation:
    """A parameter's location in a file: its key, its rows (None: all), whether its halves are swapped, whether it is transposed."""

    key: str
    rows: tuple[int, int] | None = None
    swapped: bool = False
    transposed: bool = False


class EveryKey(Container[str]):
    """Keys of a file that is still to be written: every key will be there."""

    def __contains__(self, key: object) -> bool:
        return True


class FileKeyMap(Protocol):
    """A family's knowledge of its single files."""

    @property
    def published(self) -> Container[str]:
        """The keys to give to `places` for a file as the original implementation writes it."""

    @property
    def implementation(self) -> str | None:
        """The original implementation's address, as ModelSpec wants it; None: none is named."""

    def shape_in_file(self, key: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape that the original implementation gives a parameter of this shape."""

    def places(
        self, component: str, config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], keys: Container[str]
    ) -> dict[str, KeyLocation]:
        """Parameter of a component, in diffusers' or transformers' names, -> its KeyLocation among a file's keys; {} for a component such
        files do not hold. Raises KeyError where the config lacks a setting that the names depend on."""
