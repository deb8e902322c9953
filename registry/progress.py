"""Progress reports: jobs call the Report they are given; only loraloom/console prints."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Tick:
    """One progress update: `done` of `total` units of `stage`; `values` are numbers to show (loss, rate).

    `seconds_left` is what the job itself expects; None: what is left takes as long a unit as what was done.
    """

    stage: str
    done: int
    total: int
    note: str = ""
    values: Mapping[str, float] = field(default_factory=dict)
    seconds_left: float | None = None


Report = Callable[[Tick], None]


def silent(_tick: Tick) -> None:
    """A Report that does nothing."""
