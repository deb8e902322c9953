"""The parts that every subcommand of `registry` shares: its parser with --json, and the store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from registry.store import Store

REFERENCE = "name, name@alias, name@step-300, sha256:<prefix>, hf:owner/repo, or a path"


def add_command(words: Any, name: str, run: Any, about: str, *, hidden_alias: str | None = None) -> Any:
    """The parser of one subcommand, which `run` answers. A hidden alias is an older name that `--help` does not list."""
    parser = words.add_parser(name, help=about, description=about)
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.set_defaults(run=run)
    if hidden_alias is not None:
        words.choices[hidden_alias] = parser
    return parser


def open_store() -> Store:
    """The store of this machine, imported when it is asked for."""
    from registry.store import Store

    return Store()
