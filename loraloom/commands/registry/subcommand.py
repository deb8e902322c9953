"""What every subcommand of `registry` is made with: a parser with --json, and the store behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from registry.store import Store

REFERENCE = "name, name@alias, name@step-300, sha256:<prefix>, hf:owner/repo, or a path"


def add_command(words: Any, name: str, run: Any, about: str) -> Any:
    """The parser of one subcommand, which `run` answers."""
    parser = words.add_parser(name, help=about, description=about)
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.set_defaults(run=run)
    return parser


def open_store() -> Store:
    """The store of this machine, imported when it is asked for."""
    from registry.store import Store

    return Store()
