"""A class named by its import path, such as `torch.optim.SGD`, with the options of its constructor."""

from __future__ import annotations

import inspect
from collections.abc import Collection
from dataclasses import replace
from importlib import import_module
from typing import Any, get_type_hints

from registry.errors import Refused
from registry.names import suggest
from registry.options import Option, option_of


def is_dotted(name: str) -> bool:
    """Whether a name is an import path and no entry of a table."""
    return "." in name


def find_class(path: str, base: type, setting: str) -> type:
    """The class at an import path. Raises Refused, naming the setting, for one that is not there or not a subclass of `base`."""
    module_name, _, name = path.rpartition(".")
    try:
        module = import_module(module_name)
    except (ImportError, ValueError) as error:
        raise Refused(f"{setting}={path} cannot be imported: {error}. Give the path of an installed class.") from error
    found = getattr(module, name, None)
    wanted = f"{base.__module__}.{base.__name__}"
    if found is None:
        known = [key for key, value in vars(module).items() if isinstance(value, type) and issubclass(value, base) and value is not base]
        raise Refused(f"{setting}={path}: {module_name} has no class {name!r}. {suggest(name, known)}")
    if not (isinstance(found, type) and issubclass(found, base)) or found is base:
        raise Refused(f"{setting}={path} is not a subclass of {wanted}.")
    return found


def constructor_options(cls: Any, *, besides: Collection[str]) -> dict[str, Option]:
    """The parameters of a class's constructor but for `besides`; types that are not plain are left to the constructor to check."""
    constructor = cls.__init__
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = list(inspect.signature(constructor).parameters.values())[1:]
    try:
        hints = get_type_hints(constructor, include_extras=True)
    except (NameError, TypeError):
        hints = {}
    return {
        one.name: _option(one.name, hints.get(one.name, object), one.default)
        for one in parameters
        if one.kind in kinds and one.name not in besides
    }


def _option(name: str, hint: Any, default: Any) -> Option:
    """The option of a parameter; without a plain annotation its default's type is the type."""
    option = option_of(name, hint, default)
    if option.kind is not object or isinstance(default, type) or default is None:
        return option
    kind = type(default) if isinstance(default, (bool, str)) else float if isinstance(default, (int, float)) else object
    return replace(option, kind=kind)
