"""Settings of the learning rate's schedule."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from registry.settings import params_schema, setting, word
from train.schedule import SCHEDULES
from train.settings.rules import LARGEST, Rule, mappings

if TYPE_CHECKING:  # built from the tables; no type checker can see its fields
    ScheduleParams: TypeAlias = Any
else:
    ScheduleParams = params_schema("ScheduleParams", [SCHEDULES], module=__name__)


@dataclass(kw_only=True)
class ScheduleConfig:
    name: str = word(
        "cosine",
        f"LR schedule after warmup: {', '.join(SCHEDULES)}, or the import path of a class: torch.optim.lr_scheduler.StepLR",
        among=SCHEDULES,
    )
    warmup: float = setting(0.05, "share of the steps in which the learning rate rises from 0")
    warmup_steps: int | None = setting(None, "steps in which the learning rate rises from 0 (default: schedule.warmup of the steps)")
    params: ScheduleParams = setting(ScheduleParams, "options of the schedule")
    args: Any = setting(None, "arguments of a class named by its import path: {step_size: 100}")

    def rules(self) -> Iterator[Rule]:
        """Ranges; the table has those of the options."""
        yield "warmup", self.warmup, 0 <= self.warmup < 1, "is a share of the steps and must be in [0, 1)"
        warm = self.warmup_steps
        yield "warmup_steps", warm, warm is None or 0 <= warm < LARGEST, "must be 0 or more and below 2^31, or null for schedule.warmup"
        yield from mappings(self, "args")
