"""The rows of a judgement, and the steps that they make good."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from infer.score.intervals import Interval
from registry.images.image_hash import BITS
from train.judging.faces.likeness import FaceLikeness
from train.judging.likeness import Likenesses
from train.judging.prompt_following import PromptFollowing
from train.output.judgement import GIVEN_BACK
from train.output.style import REACHED

NO_LOSSES = " (there are no held-out losses for the content)"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One checkpoint. `style`, `near`: differences to the base, below 0 is nearer to the held-out and to the training images."""

    step: int
    style_distance: float
    style: Interval
    drift: Interval | None  # None without generic prompts
    near_bits: float  # mean over the images, of 63
    near: Interval
    copies: int  # images that are nearer to a training image than any held-out image and any of the base's images is
    copying: bool  # near is below the base's, and below what held-out images have among themselves, beyond chance
    loss: float | None  # held-out, at this step

    def to_json(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "style_distance": self.style_distance,
            "style_to_base": self.style.to_json(),
            "drift": None if self.drift is None else self.drift.to_json(),
            "nearest": self.near_bits / BITS,
            "nearest_to_base": self.near.to_json(),
            "copies": self.copies,
            "copying": self.copying,
            "heldout_loss": self.loss,
        }


@dataclass(frozen=True, kw_only=True)
class ImageTable:
    """Every checkpoint, and what they are held against."""

    rows: tuple[Row, ...]
    images: int  # of the held-out prompts, at each checkpoint
    base_style: float
    base_near: float  # bits, of the base's images
    heldout_near: float | None  # bits from a held-out image to its nearest training image; None without training images
    base_loss: float | None
    likenesses: tuple[Likenesses, ...] = ()  # one for each embedding model
    prompts: PromptFollowing | None = None
    faces: FaceLikeness | None = None  # shown beside the others: no step is left out by it

    def content(self) -> list[int] | None:
        """The steps that keep more than half of the best step's gain in held-out loss; None where there are no losses to tell by."""
        losses = {row.step: row.loss for row in self.rows if row.loss is not None}
        if not losses or self.base_loss is None:
            return None
        gains = {step: self.base_loss - loss for step, loss in losses.items()}
        best = max(gains.values())
        return [step for step, gain in gains.items() if gain > 0 and gain >= (1 - GIVEN_BACK) * best]

    def styled(self) -> list[int]:
        """The steps that are nearer to the held-out images than the base beyond chance, and almost as near as the nearest.

        By the style; where it cannot tell, by the first embedding model that can.
        """
        gains = {row.step: -row.style.value for row in self.rows if row.style.side == "below"}
        return _almost_best(gains or next(iter(self._gains()), {}), REACHED)

    def _gains(self) -> Iterator[Mapping[int, float]]:
        """By step what is gained in similarity to the held-out images beyond chance, of each embedding model that can tell."""
        for model in self.likenesses:
            if gains := {row.step: row.heldout_to_base.value for row in model.rows if row.heldout_to_base.side == "above"}:
                yield gains

    def similar(self) -> list[int] | None:
        """The steps that keep more than half of the best gain in similarity, by every embedding model that can tell; None: none can."""
        kept = [set(_almost_best(gains, 1 - GIVEN_BACK)) for gains in self._gains()]
        return sorted(set.intersection(*kept)) if kept else None

    def following(self) -> list[int] | None:
        """The steps that follow held-out and generic prompts no less than the base does, beyond chance; None without a model to tell by."""
        if self.prompts is None:
            return None
        every = [row for row in (*self.prompts.heldout, *self.prompts.generic) if row.to_base is not None]
        lost = {row.step for row in every if row.to_base is not None and row.to_base.side == "below"}
        return [row.step for row in self.rows if row.step not in lost]

    def copying(self) -> list[int]:
        """The steps whose images are copies more than chance makes them, by the hash or by an embedding model."""
        found = {row.step for row in self.rows if row.copying}
        return sorted(found | {row.step for model in self.likenesses for row in model.rows if row.copying})

    def good(self) -> list[int]:
        """The steps that are good on all that is measured, and copy nothing."""
        asked = [steps for steps in (self.content(), self.similar(), self.following()) if steps is not None]
        copying = self.copying()
        return [step for step in self.styled() if step not in copying and all(step in steps for steps in asked)]

    def sentence(self) -> str:
        """What the images come to."""
        content, styled, good, copying = self.content(), self.styled(), self.good(), self.copying()
        copies = f"; from step {min(copying)} on images are copies of training images more than chance makes them" if copying else ""
        more = {"similarity": self.similar(), "prompts": self.following()}
        given = {name: steps for name, steps in more.items() if steps is not None}
        if good:
            steps = f"step {good[0]}" if len(good) == 1 else f"step {good[0]} to step {good[-1]}"
            kept = _and(["content", "style", *given] if content is not None else ["style", *given])
            return f"by images: {steps}, good on {kept}{'' if content is not None else NO_LOSSES}{copies}"
        if not styled:
            return f"these images cannot tell: no checkpoint is nearer to the held-out images than the base beyond chance{copies}"
        if content is None and not given:
            return f"by images: the style is there at {_steps(styled)}, where images are copies{copies}"
        named = {**({} if content is None else {"content": content}), "style": styled, **given}
        where = ", ".join(f"{name} at {_steps(steps)}" if steps else f"{name} nowhere" for name, steps in named.items())
        return f"by images: no kept checkpoint is good on {'both' if len(named) == 2 else 'all'}: {where}{copies}"

    def to_json(self) -> dict[str, Any]:
        return {
            "sentence": self.sentence(),
            "steps": self.good(),
            "content": self.content(),
            "style": self.styled(),
            "similarity": self.similar(),
            "following": self.following(),
            "copying": self.copying(),
            "images": self.images,
            "base": {"style_distance": self.base_style, "nearest": self.base_near / BITS, "heldout_loss": self.base_loss},
            "heldout_nearest": None if self.heldout_near is None else self.heldout_near / BITS,
            "checkpoints": [row.to_json() for row in self.rows],
            "embeddings": [model.to_json() for model in self.likenesses],
            "prompt_following": None if self.prompts is None else self.prompts.to_json(),
            "faces": None if self.faces is None else self.faces.to_json(),
        }


def _almost_best(gains: Mapping[int, float], share: float) -> list[int]:
    """The steps that have at least this share of the largest gain."""
    return [step for step, gain in gains.items() if gain >= share * max(gains.values())]


def _and(words: Sequence[str]) -> str:
    """'style', 'content and style', 'content, style and similarity'."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _steps(steps: Sequence[int]) -> str:
    """'step 50', or 'steps 50, 100'."""
    return f"step {steps[0]}" if len(steps) == 1 else f"steps {', '.join(map(str, steps))}"
