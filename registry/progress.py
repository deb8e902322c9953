"""How long work tells where it stands: it calls the Report it was given; only loraloom/console draws."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Tick:
    """One sign of life: `done` of `total` units of `stage`; `values` are numbers worth showing (loss, rate)."""

    stage: str
    done: int
    total: int
    note: str = ""
    values: Mapping[str, float] = field(default_factory=dict)


Report = Callable[[Tick], None]


def silent(_tick: Tick) -> None:
    """The Report of those who do not listen."""
