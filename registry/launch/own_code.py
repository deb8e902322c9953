"""A digest of the code behind what is kept from one process to the next: with any other code it is found anew."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path


def code_digest(folders: Iterable[Path], libraries: Iterable[str]) -> str:
    """A digest of Python, the versions of these packages, and every Python file below these folders."""
    digest = hashlib.sha256(sys.version.encode())
    for name in libraries:
        digest.update(f"{name} {version_of(name)}\n".encode())
    for folder in folders:
        for file in sorted(folder.rglob("*.py")):
            data = file.read_bytes()
            digest.update(f"{file} {len(data)} ".encode())
            digest.update(data)
    return digest.hexdigest()


def version_of(package: str) -> str:
    """The version of a package that is installed; `-` for one that is not."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "-"
