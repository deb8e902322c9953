"""The families we load: every module beside this one registers itself, so dropping a file in is enough."""

from importlib import import_module
from pkgutil import iter_modules

from registry.family import FAMILIES, Family

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__all__ = ["FAMILIES", "Family"]
