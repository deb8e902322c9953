"""`loraloom registry ...`: scan, add, list, show and trace the models on this machine.

Every module beside this one that has `add_parsers(words)` adds subcommands, so dropping a file in is enough; the lowest PLACE is
listed first. Every one is imported to answer `loraloom --help`: nothing heavy at the top.
"""

from __future__ import annotations

import argparse
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType
from typing import Any

HELP = "what models there are, what they are, and what they were made from"


def add_parser(subparsers: Any) -> None:
    """Add `registry` and what it can do to the command line."""
    parser: argparse.ArgumentParser = subparsers.add_parser("registry", help=HELP, description=HELP)
    words = parser.add_subparsers(metavar="WHAT", required=True)
    for group in _groups():
        group.add_parsers(words)


def _groups() -> list[ModuleType]:
    """The modules with subcommands, in the order in which they are listed."""
    found = [import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__)]
    return sorted((module for module in found if hasattr(module, "add_parsers")), key=lambda module: (module.PLACE, module.__name__))
