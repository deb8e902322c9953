"""What the measures beside the held-out loss come to at the end of a run: sentences, and the keys of result.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from train.data.dataset import triggers_of
from train.loop.history import History
from train.measures.delta_norm import sentence as delta_sentence
from train.measures.drift import Drift, drift_json, drift_of
from train.measures.outliers import Outlier, outliers_of
from train.measures.outliers import sentences as outlier_sentences
from train.measures.trigger import Binding, binding_json, binding_of
from train.plan.plan import Plan
from train.tokens.wording import Trained


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Of the last measurement. None or empty: not measured."""

    binding: Binding | None
    triggers: Sequence[str]
    drift: Drift | None
    change: Mapping[str, Any]  # "delta" and "delta_layers"
    outliers: Sequence[Outlier]

    def sentences(self, trained: Trained) -> list[str]:
        """In words, the most useful first."""
        change = delta_sentence(self.change)
        trigger = [self.binding.sentence(self.triggers, trained)] if self.binding else []
        drift = [self.drift.sentence()] if self.drift else []
        return [*trigger, *drift, *outlier_sentences(self.outliers), *([change] if change else [])]

    def verdict_json(self) -> dict[str, Any]:
        """Keys of `verdict` in result.json."""
        change = {"share": self.change["delta"], "layers": dict(self.change["delta_layers"])} if self.change else None
        return {"trigger": binding_json(self.binding, self.triggers), "drift": drift_json(self.drift), "delta_norm": change}


def facts_of(plan: Plan, history: History, images: Sequence[str]) -> Facts:
    """The facts of a finished run; `images` are the names of the training images that are measured."""
    last: Mapping[str, Any] = max(history.heldout, key=lambda row: int(row["step"]), default={})
    return Facts(
        binding=binding_of(history.before, last),
        triggers=triggers_of(plan.heldout, plan.config.data),
        drift=drift_of(history.before, last),
        change={name: last[name] for name in ("delta", "delta_layers") if "delta" in last},
        outliers=outliers_of(history, images),
    )
