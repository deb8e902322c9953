"""What a run came to, in one sentence: learned, unfinished, over-fitted, wrecked, or not to be told from these images.

From the held-out loss, the loss of training images at the same points, the prompt's share and the style's curve.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum
from typing import Any

from registry.printable import counted
from train.loop.history import History, prompt_share
from train.loop.validation import difference
from train.measures.delta_norm import percent
from train.output.style import StyleCurve
from train.tokens.wording import Trained

SMALLEST = 0.01  # of the base's loss: a smaller change is none
GIVEN_BACK = 0.5  # share of the best step's gain that an over-fitted last step has lost again
UNFINISHED = 0.1  # share of the whole gain that the last third of the steps still brought
UNUSED = 0.4  # share of the base's own prompt share below which captions are not used


@dataclass(frozen=True)
class Judgement:
    """The kind in one word, the sentence, and the steps between which a checkpoint is to be chosen."""

    kind: str  # done, unfinished, over_fitted, rate_too_high, nothing_learned, captions, not_better, cannot_tell
    sentence: str
    steps: tuple[int, int]


@dataclass(frozen=True)
class _Curves:
    """Means by measured step, in order; those of the base under 0."""

    steps: tuple[int, ...]
    rows: dict[int, dict[str, Any]]

    def loss(self, step: int) -> float:
        return _mean(self.rows[step]["losses"])

    def trained(self, step: int) -> float:
        return _mean(self.rows[step]["trained"])

    def gain(self, step: int) -> float:
        return self.loss(0) - self.loss(step)

    @property
    def best(self) -> int:
        return min(self.steps, key=lambda step: (self.loss(step), step))

    @property
    def last(self) -> int:
        return self.steps[-1]


def judge(history: History, *, trained: Trained, style: StyleCurve | None = None) -> Judgement | None:
    """The judgement of a finished run. None without held-out images, or with a history from before training images were measured."""
    rows = {int(row["step"]): row for row in history.heldout}
    if not rows or "trained" not in history.before or any("trained" not in row for row in rows.values()):
        return None
    curves = _Curves(tuple(sorted(rows)), {0: history.before, **rows})
    for rule in (_nothing, _rate, _captions, _not_better, _over_fitted, _unfinished):
        found = rule(curves, trained)
        if found is not None:
            return found
    return _done(curves, style)


def _nothing(curves: _Curves, trained: Trained) -> Judgement | None:
    moved = max(
        max(abs(curves.gain(step)) / curves.loss(0), abs(curves.trained(0) - curves.trained(step)) / curves.trained(0))
        for step in curves.steps
    )
    if moved >= SMALLEST:
        return None
    text = f"nothing learned: neither held-out nor training images changed by {SMALLEST:.0%} of their loss (at most {moved:.2%})."
    return Judgement("nothing_learned", f"{text} {trained.learn_more}", _whole(curves))


def _rate(curves: _Curves, trained: Trained) -> Judgement | None:
    """The held-out loss is above the base's beyond chance and so is that of training images, and it does not recover."""
    base = curves.rows[0]["losses"]
    bad = [
        step
        for step in curves.steps
        if curves.trained(step) > curves.trained(0) * (1 + SMALLEST)
        and difference(curves.rows[step]["losses"], base, comparisons=len(curves.steps)).mean > SMALLEST * curves.loss(0)
    ]
    if not bad or curves.gain(curves.last) > 0 or curves.last not in bad:
        return None
    step = bad[0]
    text = (
        f"the learning rate is too high: at step {step} the loss of held-out images is {curves.loss(step):.4f} and of training images "
        f"{curves.trained(step):.4f}, both above the base's ({curves.loss(0):.4f}, {curves.trained(0):.4f}){_change(curves, step)}"
    )
    return Judgement("rate_too_high", f"{text}. Try a third to a tenth of {trained.rate}", (step, step))


def _change(curves: _Curves, step: int) -> str:
    """How much the adapter changes the weights at a step, and at the one measured before it."""
    if "delta" not in curves.rows[step]:
        return ""
    before = [earlier for earlier in curves.steps if earlier < step and "delta" in curves.rows[earlier]]
    rise = f", up from {percent(curves.rows[before[-1]]['delta'])} at step {before[-1]}" if before else ""
    return f"; the adapter changes the weights by {percent(curves.rows[step]['delta'])} of their norm there{rise}"


def _captions(curves: _Curves, trained: Trained) -> Judgement | None:
    """The base uses captions, and the trained model no longer does although it learned."""
    before, after = curves.rows[0], curves.rows[curves.last]
    if not before["others"] or curves.trained(curves.last) > curves.trained(0) * (1 - SMALLEST):
        return None
    used = difference(before["others"], before["own"])
    if used.verdict != "worse" or prompt_share(after) >= UNUSED * prompt_share(before):
        return None
    text = (
        "the captions do not belong to their images: another image's caption costs "
        f"{prompt_share(after):.4f} of loss, and {prompt_share(before):.4f} with the base"
    )
    return Judgement("captions", f"{text}. {trained.unread_captions}", _whole(curves))


def _not_better(curves: _Curves, trained: Trained) -> Judgement | None:
    found = difference(curves.rows[curves.best]["losses"], curves.rows[0]["losses"], comparisons=len(curves.steps))
    if found.verdict == "better" and curves.gain(curves.best) >= SMALLEST * curves.loss(0):
        return None
    if curves.gain(curves.best) >= SMALLEST * curves.loss(0):
        count = len(curves.rows[0]["losses"])
        text = f"these images cannot tell step {curves.best} from the base ({found.numbers()}): {_more(count)}"
        return Judgement("cannot_tell", text, _whole(curves))
    fell = curves.trained(0) - curves.trained(curves.last)
    text = f"no checkpoint is better than the base on held-out images; the loss of training images fell by {fell:.4f}: they were memorised"
    return Judgement("not_better", f"{text}. {trained.more_images}", (curves.best, curves.best))


def _more(count: int) -> str:
    few = "1 held-out image gives no interval" if count == 1 else f"{counted(count, 'held-out image is', 'held-out images are')} too few"
    return f"{few}; hold out more"


def _over_fitted(curves: _Curves, trained: Trained) -> Judgement | None:
    best, last = curves.best, curves.last
    if best == last:
        return None
    lost = difference(curves.rows[best]["losses"], curves.rows[last]["losses"], comparisons=max(1, len(curves.steps) - 1))
    back = (curves.loss(last) - curves.loss(best)) / curves.gain(best)
    if lost.verdict != "better" or back <= GIVEN_BACK:
        return None
    text = (
        f"over-fitted: the held-out loss is lowest at step {best} ({curves.loss(best):.4f}), and by step {last} {min(back, 1.0):.0%} of "
        f"the gain is lost again ({curves.loss(last):.4f}) while training images go on to {curves.trained(last):.4f}"
    )
    return Judgement("over_fitted", f"{text}. Use a checkpoint from about step {best} on, or fewer steps", (best, _after(curves, best)))


def _after(curves: _Curves, best: int) -> int:
    """The last step that has lost less than half of the best one's gain."""
    kept = [step for step in curves.steps if step >= best and (curves.loss(step) - curves.loss(best)) <= GIVEN_BACK * curves.gain(best)]
    return kept[-1]


def _unfinished(curves: _Curves, trained: Trained) -> Judgement | None:
    earlier = [step for step in curves.steps if step <= curves.last * 2 / 3]
    if not earlier or curves.gain(curves.last) <= 0:
        return None
    before = earlier[-1]
    fell = (curves.loss(before) - curves.loss(curves.last)) / curves.gain(curves.last)
    still = difference(curves.rows[curves.last]["losses"], curves.rows[before]["losses"])
    if still.verdict != "better" or fell < UNFINISHED:
        return None
    text = (
        f"unfinished: the held-out loss is still falling, {curves.loss(before):.4f} at step {before} and {curves.loss(curves.last):.4f} at "
        f"step {curves.last}, {fell:.0%} of the whole gain"
    )
    return Judgement("unfinished", f"{text}. Resume with more steps", (curves.last, curves.last))


def _done(curves: _Curves, style: StyleCurve | None) -> Judgement:
    best = curves.best
    text = f"done: the held-out loss is {curves.loss(best):.4f} at step {best} (the base's is {curves.loss(0):.4f})"
    if style is None:
        return Judgement("done", text, (best, best))
    if style.covered(style.nearest) <= 0:
        return Judgement("done", f"{text}; no step's previews are nearer to the held-out images in style than the base's", (best, best))
    reached = style.reached
    way = f"the previews' style is {style.covered(style.nearest):.0%} of the way to the held-out images at step {style.nearest}"
    low, high = sorted((best, reached))
    if reached > best:
        text += f"; {way}, {style.covered(_at(style, best)):.0%} at step {_at(style, best)}. Choose between step {low} and step {high}"
    else:
        text += f"; {way}"
    return Judgement("done", text, (low, high))


def _at(style: StyleCurve, step: int) -> int:
    """The drawn step nearest to a step."""
    return min(style.distances, key=lambda drawn: (abs(drawn - step), drawn))


def _whole(curves: _Curves) -> tuple[int, int]:
    return curves.steps[0], curves.last


def judgement_json(found: Judgement | None, history: History, style: StyleCurve | None) -> dict[str, Any] | None:
    """`verdict` of result.json."""
    if found is None:
        return None
    shares = [prompt_share(row) if row["others"] else None for row in (history.before, history.heldout[-1])]
    trained = [_mean(row["trained"]) for row in (history.before, history.heldout[-1])]
    return {
        "kind": found.kind,
        "sentence": found.sentence,
        "steps": list(found.steps),
        "prompt_share": {"base": shares[0], "final": shares[1]},
        "trained": {"base": trained[0], "final": trained[1]},
        "style": None if style is None else {"base": style.base, "steps": {str(step): value for step, value in style.distances.items()}},
    }


def _mean(values: Sequence[float]) -> float:
    return fsum(values) / len(values)
