"""Settings of the checkpoints."""

from collections.abc import Iterator
from dataclasses import dataclass

from registry.settings import setting
from train.settings.rules import Rule, counts, optional_counts


@dataclass(kw_only=True)
class CheckpointConfig:
    every: int | None = setting(None, "steps between checkpoints (default: a fifth of the steps); there is always one of the last step")
    keep: int = setting(3, "number of newest checkpoints to keep, beside the one with the lowest held-out loss")
    load_best_at_end: bool | None = setting(
        None,
        "register the checkpoint with the lowest held-out loss under the run's name where it is better than the last step beyond chance: "
        "true, false (always the last step), or null: only where the last step is not better than the base either",
    )

    def rules(self) -> Iterator[Rule]:
        """Ranges."""
        yield from counts(self, "keep")
        yield from optional_counts(self, "every")
