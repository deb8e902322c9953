"""What transformers and diffusers search the installation for when they are imported, found in less time, with the same answers.

transformers reads each of its 1,600 model files for the names in `__all__`, line by line in Python, and does so twice: it keeps the answer
for 128 folders, and has 550. diffusers asks for the distribution of every package there is, parses the metadata of all of them, and
looks up three names of packages that are seldom installed. Together that is 0.4 of the 4.0 CPU seconds of these imports.
"""

from __future__ import annotations

import functools
import importlib.metadata
from collections.abc import Callable, Iterator, Mapping
from importlib.machinery import SourceFileLoader
from types import ModuleType

STRUCTURES = "transformers.utils.import_utils"  # the module whose functions read the files
BREAKS = frozenset("\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029")  # where str.splitlines begins a line

packages_distributions = importlib.metadata.packages_distributions


class LatePackages(Mapping[str, list[str]]):
    """The answer of importlib.metadata.packages_distributions, which is found at the first look."""

    @functools.cached_property
    def _found(self) -> Mapping[str, list[str]]:
        return packages_distributions()

    def __getitem__(self, name: str) -> list[str]:
        return self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)


class StructuresLoader(SourceFileLoader):
    """Runs the module, and makes its functions quick. One that has other functions stays as it is."""

    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        names_of = getattr(module, "fetch__all__", None)
        if callable(names_of):
            module.fetch__all__ = from_last_line(names_of)  # type: ignore[attr-defined]
        structure_of = getattr(getattr(module, "create_import_structure_from_path", None), "__wrapped__", None)
        if callable(structure_of):
            module.create_import_structure_from_path = functools.cache(structure_of)  # type: ignore[attr-defined]


def from_last_line(names_of: Callable[[str], list[str]]) -> Callable[[str], list[str]]:
    """transformers' `fetch__all__` on the rest of a file from the last line that begins with `__all__`, the one that it reads."""

    @functools.wraps(names_of)
    def names(content: str) -> list[str]:
        place = content.rfind("__all__")
        while place > 0 and content[place - 1] not in BREAKS:
            place = content.rfind("__all__", 0, place)
        return names_of(content[place:]) if place >= 0 else []

    return names
