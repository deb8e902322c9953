"""Modules that diffusers, transformers and accelerate import for what a command seldom uses: they run when they are first used.

diffusers' schedulers import scipy.stats and scipy.integrate for beta sigmas and for LMS, transformers' losses scipy.optimize for detecting
objects: 490 modules and half a CPU second. accelerate imports boto3 for its questions about SageMaker, diffusers requests for images by
their address. What is left of them after the import is a module that imports the real one at the first look.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType
from typing import Any

from registry.launch.searches import STRUCTURES, StructuresLoader

LATE: dict[str, tuple[str, ...]] = {  # and the functions that are imported from them by name
    "boto3": (),
    "requests": (),
    "scipy.integrate": (),
    "scipy.optimize": ("linear_sum_assignment",),
    "scipy.stats": (),
}


class LateModule(ModuleType):
    """The place of a module that was imported and not run yet; all that is asked of it is asked of the real one."""

    def __getattr__(self, name: str) -> Any:
        if name in LATE[self.__name__]:
            return _calling(self, name)
        if name.startswith("__") and name not in ("__all__", "__version__"):  # what the import system and inspect ask of every module
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return getattr(self.real(), name)

    def __dir__(self) -> list[str]:
        return dir(self.real())

    def real(self) -> ModuleType:
        """The module itself, which is run by the import system the first time."""
        if sys.modules.get(self.__name__) is self:
            _asked.add(self.__name__)
            sys.modules.pop(self.__name__, None)  # another thread may have been faster
        return importlib.import_module(self.__name__)


class LateFinder(MetaPathFinder):
    """While an import of ours is under way, finds the modules of LATE as late ones, and what reads transformers' files as quick."""

    def __init__(self) -> None:
        self.active = 0  # blocks of importing() that are open

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        parent = sys.modules.get(fullname.rpartition(".")[0])
        if isinstance(parent, LateModule):  # a module inside: its package runs first, and may have imported it
            parent.real()
            return _made(fullname)
        if not self.active or (fullname not in LATE and fullname != STRUCTURES) or fullname in _asked:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and fullname == STRUCTURES:
            if type(spec.loader) is SourceFileLoader:
                spec.loader = StructuresLoader(spec.loader.name, spec.loader.path)
            return spec
        if spec is not None:
            spec.loader = _Late()
        return spec


class _Late(Loader):
    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return LateModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing is run."""


class _Made(Loader):
    """Gives the module that is there already, as it is."""

    def __init__(self, module: ModuleType, spec: ModuleSpec) -> None:
        self.module, self.spec = module, spec

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self.module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self.spec


def _made(name: str) -> ModuleSpec | None:
    """A spec of a module that its package has imported; None where it has not."""
    module = sys.modules.get(name)
    if module is None or module.__spec__ is None:
        return None
    module.__spec__ = ModuleSpec(
        name, _Made(module, module.__spec__)
    )  # of a module that is there, Python takes its own: it would run twice
    return module.__spec__


def _calling(late: LateModule, name: str) -> Callable[..., Any]:
    def call(*args: Any, **options: Any) -> Any:
        return getattr(late.real(), name)(*args, **options)

    call.__name__ = call.__qualname__ = name
    return call


_asked: set[str] = set()  # of LATE: they are imported as they are
finder = LateFinder()
