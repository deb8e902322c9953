"""The scores: every module beside this one registers its function in SCORES, so dropping a file in is enough."""

from importlib import import_module
from pkgutil import iter_modules

from infer.score.scorer import SCORES

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__all__ = ["SCORES"]
