"""Progress reports: jobs call the Report they are given; only loraloom/console prints."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Tick:
    """One progress update: `done` of `total` units of `stage`; `values` are numbers to show (loss, rate)."""

    stage: str
    done: int
    total: int
    note: str = ""
    values: Mapping[str, float] = field(default_factory=dict)


Report = Callable[[Tick], None]


def silent(_tick: Tick) -> None:
    """A Report that does nothing."""
