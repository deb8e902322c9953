"""What a run learned from votes: on how many held-out pairs its adapter agrees with people, or that nobody can tell."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import fsum, log
from typing import Any

from infer.vote.ranking.binomial import design_effect, wilson
from registry.printable import counted
from train.data.dataset import Sample
from train.loop.history import History, accuracy
from train.loop.validation import Difference, difference
from train.output.judgement import Judgement
from train.plan.plan import Plan

NOTHING = 1e-12  # a margin below it is none


@dataclass(frozen=True, kw_only=True)
class Learned:
    """Over the held-out pairs at the last measurement. The interval is Wilson's, widened by the design effect of the prompts."""

    pairs: int
    prompts: int
    accuracy: float
    low: float
    high: float
    margin: Difference
    preferred: Difference  # the preferred images' diffusion loss, against the reference's
    loss: float  # of the reference

    @property
    def verdict(self) -> str:
        """learned, opposite or cannot tell."""
        return "learned" if self.low > 0.5 else "opposite" if self.high < 0.5 else "cannot tell"

    def sentences(self) -> list[str]:
        """In words."""
        span = f"{self.accuracy:.0%} of {counted(self.pairs, 'held-out pair')} on {counted(self.prompts, 'prompt')}"
        span += f", 95% interval {self.low:.0%} .. {self.high:.0%}"
        words = {
            "learned": f"the adapter prefers what people preferred: on {span}",
            "opposite": f"the adapter prefers the opposite of what people preferred: it agrees on {span}",
            "cannot tell": f"nobody can tell whether the votes were learned: the adapter agrees on {span}, which includes 50%",
        }
        share = self.preferred.mean / self.loss
        low, high = self.preferred.low, self.preferred.high
        interval = "" if low is None or high is None else f", 95% interval {low / self.loss:+.1%} .. {high / self.loss:+.1%}"
        return [
            words[self.verdict],
            f"margin (implicit reward of the preferred image above the other's) {self.margin.mean:+.3f}; the diffusion loss of preferred"
            f" images changed by {share:+.1%}{interval}",
            f"held-out losses are those of pairs, -log sigmoid of the margin: {log(2):.4f} is the reference's, the base of these lines",
        ]

    def to_json(self) -> dict[str, Any]:
        """`preferences` of result.json."""
        margin, preferred = ({"mean": one.mean, "low": one.low, "high": one.high} for one in (self.margin, self.preferred))
        return {
            "pairs": self.pairs,
            "prompts": self.prompts,
            "accuracy": self.accuracy,
            "low": self.low,
            "high": self.high,
            "verdict": self.verdict,
            "margin": margin,
            "preferred_loss": {"reference": self.loss, "difference": preferred},
        }


def learned_of(plan: Plan, history: History) -> Learned | None:
    """What the last measurement shows; None for other runs, or without held-out pairs."""
    last: Mapping[str, Any] = max(history.heldout, key=lambda row: int(row["step"]), default={})
    if plan.preference is None or len(last.get("margins", ())) != len(plan.heldout) or not plan.heldout:
        return None
    return learned(plan.heldout, last["margins"], last["preferred"], history.before["preferred"])


def learned(pairs: Sequence[Sample], margins: Sequence[float], preferred: Sequence[float], before: Sequence[float]) -> Learned:
    """By the margin of each pair, and the loss of its preferred image now and with the reference."""
    right: dict[str, float] = defaultdict(float)
    counts: dict[str, int] = defaultdict(int)
    for sample, margin in zip(pairs, margins, strict=True):
        right[str(sample.caption)] += 0.5 if abs(margin) < NOTHING else float(margin > 0)
        counts[str(sample.caption)] += 1
    effect = design_effect(list(right.values()), list(counts.values()))
    low, high = wilson(fsum(right.values()) / effect, len(pairs) / effect)
    return Learned(
        pairs=len(pairs),
        prompts=len(counts),
        accuracy=accuracy(margins),
        low=low,
        high=high,
        margin=difference(margins, [0.0] * len(margins)),
        preferred=difference(preferred, before),
        loss=fsum(before) / len(before),
    )


def judged_by(found: Judgement | None, learned: Learned | None) -> Judgement | None:
    """The judgement of the held-out loss with that of the preferences before it: it cannot be done where nobody can tell."""
    if found is None or learned is None:
        return found
    kind = found.kind
    if learned.verdict == "cannot tell" and kind in ("done", "unfinished", "over_fitted"):
        kind = "cannot_tell"
    elif learned.verdict == "opposite" and kind in ("done", "unfinished"):
        kind = "not_better"
    elif learned.verdict == "learned" and kind == "cannot_tell":
        kind = "done"
    return replace(found, kind=kind, sentence=f"{learned.sentences()[0]}. By the loss of pairs: {found.sentence}")
