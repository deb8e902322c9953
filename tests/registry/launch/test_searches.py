"""What transformers and diffusers find of the installation, with and without the quick way."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from typing import Any

import pytest

from registry.launch.importing import importing
from registry.launch.searches import LatePackages, from_last_line

CONTENTS = (
    '__all__ = ["One", "Two"]',
    'import torch\n\n__all__ = [\n    "One",\n    "Two",\n]\n',
    '__all__ = ["Old"]\r\nx = "__all__"\r\n__all__ = ["New"]\r\ny = x.__all__\r\n',
    'x = 1\x0c__all__ = ["BehindAFormFeed"]',
    "names = module.__all__\n",
    "nothing",
    "",
)


def test_the_names_of_a_file_are_those_that_transformers_finds() -> None:
    from transformers.utils import import_utils

    own: Any = import_utils.fetch__all__
    original = getattr(own, "__wrapped__", own)
    found = [from_last_line(original)(content) for content in CONTENTS]
    assert found == [original(content) for content in CONTENTS]
    assert found[:4] == [["One", "Two"], ["One", "Two"], ["New"], ["BehindAFormFeed"]] and not any(found[4:])


@pytest.mark.slow
def test_packages_are_looked_for_at_the_first_look() -> None:
    real = importlib.metadata.packages_distributions
    with importing():
        late: Any = importlib.metadata.packages_distributions()
        with importing():  # a family's loader is called inside others
            pass
        assert isinstance(late, LatePackages) and not vars(late)
        assert isinstance(importlib.metadata.packages_distributions(), LatePackages)
    assert importlib.metadata.packages_distributions is real
    expected = real()
    assert late["torch"] == expected["torch"] and "no_such" not in late
    assert dict(late) == expected and len(late) == len(expected)


CODE = """
import hashlib, sys
from contextlib import nullcontext
from registry.launch.importing import importing
with importing() if sys.argv[1] == "quick" else nullcontext():
    import transformers, transformers.models
def plain(found):
    if isinstance(found, dict):
        return sorted((str(sorted(key) if isinstance(key, frozenset) else key), plain(value)) for key, value in found.items())
    return sorted(map(str, found)) if isinstance(found, (set, frozenset, list, tuple)) else str(found)
NAMES = ("_import_structure", "_class_to_module", "_modules", "_object_missing_backend", "__all__")
found = [plain(vars(module)[name]) for module in (transformers, transformers.models) for name in NAMES]
print(hashlib.sha256(repr(found).encode()).hexdigest(), len(repr(found)))
print(type(transformers.utils.import_utils.__loader__).__name__)
"""


@pytest.mark.slow
def test_transformers_has_the_same_models_in_the_same_modules() -> None:
    def printed(way: str) -> list[str]:
        return subprocess.run([sys.executable, "-c", CODE, way], check=True, capture_output=True, text=True).stdout.split()

    (quick, size, loader), (plain, other, own) = printed("quick"), printed("plain")
    assert (quick, size) == (plain, other) and int(size) > 500_000
    assert (loader, own) == ("StructuresLoader", "SourceFileLoader")
