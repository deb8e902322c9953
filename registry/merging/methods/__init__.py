"""The merge methods: every module beside this one registers its functions in METHODS, so dropping a file in is enough."""

from importlib import import_module
from pkgutil import iter_modules

from registry.merging.method import METHODS

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__all__ = ["METHODS"]
