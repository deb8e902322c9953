"""A job behind a command: its settings' dataclass, its plan, its run."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from loraloom.hydra.aliases import Aliases

C = TypeVar("C")


class Plan(Protocol):
    """What a dry run shows."""

    def to_text(self) -> str: ...

    def to_json(self) -> Any: ...


@dataclass(frozen=True)
class Request(Generic[C]):
    """One accepted command line: the whole config, and of it what was given explicitly, by dotted name."""

    config: C
    given: Mapping[str, Any]
    typed: frozenset[str] = frozenset()  # of `given`, what the command line sets itself, and no preset


@dataclass(frozen=True)
class Finished:
    """A run that left its folder; `exit_code` 1 is one whose result holds something that failed."""

    folder: Path
    exit_code: int = 0
    reference: str | None = None  # what it made, as the registry and a grid's axes name it
    value: float | None = None  # what a search optimizes


def no_value(_plan: Any) -> str:
    """Why a search cannot run over a job that measures nothing."""
    return "it measures no value that could be optimized; only loraloom train does (its held-out loss)"


def no_summary(_runs: Sequence[Mapping[str, Any]]) -> Sequence[str]:
    """Nothing beside the runs themselves."""
    return ()


@dataclass(frozen=True, kw_only=True)
class Job(Generic[C]):
    """A job with many settings. `plan` checks everything that can be known before the costly part, and makes nothing."""

    name: str  # conf/<name>.yaml
    help: str
    schema: type[C]
    plan: Callable[[Request[C]], Plan]
    run: Callable[[Request[C]], Finished]
    examples: tuple[str, ...] = ()
    unmeasured: Callable[[Any], str | None] = no_value  # a plan -> why its run would give no value; None where it gives one
    aliases: Aliases = field(default_factory=dict)  # the names that other tools have for its settings
    synonyms: Mapping[str, str] = field(default_factory=dict)  # names that are taken for a setting's own
    exclusive: tuple[tuple[str, str], ...] = ()  # settings of which one takes the place of the other
    sources: frozenset[str] = frozenset()  # settings of which one must be there: without it there is no plan
    summary: Callable[[Sequence[Mapping[str, Any]]], Sequence[str]] = no_summary  # what the runs of a sweep show together, in lines
    labelled: Callable[[C, str], C] | None = None  # the config with a sweep's override in its name; None: runs are not named
