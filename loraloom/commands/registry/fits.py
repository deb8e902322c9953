"""`registry fits`: whether an adapter fits a base."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from loraloom import console
from loraloom.commands.registry.subcommand import REFERENCE, add_command, open_store
from registry.errors import Refused

PLACE = 40


def add_parsers(words: Any) -> None:
    """Add the subcommands."""
    parser = add_command(words, "fits", fit, "whether an adapter fits a base, by modules and shapes; exit code 2 when it does not")
    parser.add_argument("adapter", metavar="ADAPTER", help=REFERENCE)
    parser.add_argument("base", metavar="BASE", help=REFERENCE)
    parser.add_argument("--threshold", type=float, default=100.0, metavar="PERCENT", help="modules that must fit; default 100")


def fit(arguments: argparse.Namespace) -> int:
    """Compare an adapter with a base."""
    from registry.detect.inspect import fits

    if not 0 <= arguments.threshold <= 100:
        raise Refused(f"--threshold must be from 0 to 100, got {arguments.threshold:g}.")
    store = open_store()
    adapter, base = store.find(arguments.adapter, kind="adapter"), store.find(arguments.base, kind="checkpoint")
    found = fits(Path(str(adapter.path)), Path(str(base.path)))
    good = found.share * 100 >= arguments.threshold and found.share > 0 and not found.refused
    if arguments.json:
        console.answer_json({**found.to_json(), "adapter": adapter.name, "base": base.name})
    else:
        console.answer(f"{adapter.name} {'fits' if good else 'does not fit'} {base.name}: {found.explain()}")
    return 0 if good else 2
