"""Traces kept in the home from run to run, so that a run which was planned before is not traced again.

A trace is kept under what it is of (traces.py) and all the code that it comes from: the files of loraloom itself, and the versions of
Python, torch, diffusers, transformers and peft. With any other of these it is made again.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, fields
from functools import cache, partial
from pathlib import Path
from typing import Any

from registry.budget.peak import Trace
from registry.family import Family
from registry.files.write_failure import make_folder
from registry.formats.atomic_file import write_json
from registry.formats.hashing import value_sha256
from registry.home import home_dir
from registry.launch.own_code import code_digest, version_of

LOG = logging.getLogger(__name__)

LIBRARIES = ("torch", "diffusers", "transformers", "peft")
PACKAGES = ("registry", "train")  # a trace runs no other code of loraloom
TYPES = {"int": int, "float": float}
DIGEST = "digest"


@cache
def _code() -> str | None:
    """A digest of the code that a trace comes from; None where a library is a development version, whose code its version does not tell."""
    if any("dev" in version or "git" in version for version in map(version_of, LIBRARIES)):
        return None
    root = Path(__file__).resolve().parents[2]
    return code_digest([root / name for name in PACKAGES], LIBRARIES)


def is_known(family: Family) -> bool:
    """Whether every function of the family is one of the registry's own: another's code has no version here."""
    return all(_is_known(getattr(family, field.name)) for field in fields(family))


def _is_known(value: Any) -> bool:
    if isinstance(value, partial):
        return all(map(_is_known, (value.func, *value.args, *value.keywords.values())))
    return not callable(value) or str(value.__module__).partition(".")[0] == "registry"


def read_trace(key: str) -> Trace | None:
    """The trace that is kept under the key; None where there is none of this code, or a damaged one."""
    path = _path(key)
    if path is None:
        return None
    try:
        kept = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        LOG.warning("%s is traced again: the kept trace cannot be read (%s)", path, error)
        return None
    numbers: dict[str, Any] = {name: kept.get(name) for name in _types()} if isinstance(kept, dict) else {}
    if not isinstance(kept, dict) or kept.get(DIGEST) != _digest(key, numbers):
        LOG.warning("%s is traced again: the kept trace is damaged, its digest is another one", path)
        return None
    return Trace(**numbers)


def keep_traces(traces: Mapping[str, Trace]) -> None:
    """Keep these, by their keys."""
    for key, trace in traces.items():
        path = _path(key)
        if path is not None:
            numbers = asdict(trace)
            make_folder(path.parent)
            write_json(path, {**numbers, DIGEST: _digest(key, numbers)})


def _path(key: str) -> Path | None:
    code = _code()
    if code is None:
        return None
    name = value_sha256([key, code])
    return home_dir() / "cache" / "traces" / name[:2] / f"{name}.json"


def _types() -> dict[str, type]:
    return {field.name: TYPES[str(field.type)] for field in fields(Trace)}


def _digest(key: str, numbers: Mapping[str, Any]) -> str | None:
    """A digest of the numbers and their key; None where one has not its type."""
    if any(type(numbers.get(name)) is not kind for name, kind in _types().items()):
        return None
    return value_sha256([key, dict(numbers)])
