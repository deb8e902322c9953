"""`loraloom demo`: the whole journey on the embedded base, in minutes, with no network."""

import argparse
from pathlib import Path
from typing import Any

HELP = "train a style LoRA on the embedded base, register it, draw it beside the base (minutes, CPU, offline)"


def add_parser(subparsers: Any) -> None:
    """Add `demo` to the command line."""
    parser: argparse.ArgumentParser = subparsers.add_parser("demo", help=HELP, description=HELP)
    parser.add_argument("--out", metavar="DIR", type=Path, default=Path("demo"), help="folder for the run and the grid (default: ./demo)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the demo; gives the exit code."""
    from loraloom.demo import main

    return main(arguments.out)
