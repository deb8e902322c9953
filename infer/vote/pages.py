"""The templates of this folder's pages, with those that they share with the report of a grid."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any


def environment(*others: Path) -> tuple[Any, Callable[[str], Any]]:
    """A jinja2 environment that escapes whatever is put in, and a reader of our own files, which hold no text that a person gave.

    `others`: folders of templates beside them.
    """
    from jinja2 import ChoiceLoader, Environment, FileSystemLoader, PackageLoader, StrictUndefined
    from markupsafe import Markup

    loader = ChoiceLoader([FileSystemLoader([*others, Path(__file__).parent / "templates"]), PackageLoader("infer.output")])
    templates = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    return templates, lambda name: Markup(loader.get_source(templates, name)[0])
