"""Migrations of the index: modules m001_..., each with `up(connection)`, run once, in order."""

from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType


def migrations() -> list[tuple[int, ModuleType]]:
    """(number, module) of every step, in order."""
    names = sorted(module.name for module in iter_modules(__path__) if module.name.startswith("m"))
    return [(int(name[1:4]), import_module(f"{__name__}.{name}")) for name in names]
