"""The texts of a step: of each image one of its prompts, or the empty one, drawn from (seed, step, place in the step)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from registry.parts import Conditioning
from train.data.captions import Count
from train.data.dataset import Sample
from train.data.texts.variants import chosen, is_drawn, is_dropped, plain_prompt, variant
from train.loop.encode import Prompts, TextInput, Texts
from train.settings.data import DataConfig


@dataclass(frozen=True)
class CachedTexts:
    """Encoded prompts of the training images, of which each step draws one of an image's."""

    texts: Texts
    choices: tuple[Sequence[int], ...]  # of each image, places in `texts`
    seed: int = 0
    dropout: float = 0.0
    empty: int | None = None  # place of the empty prompt

    def rows(self, images: Sequence[int]) -> Conditioning:
        """The first of the prompts of these images."""
        return self.texts.rows([self.choices[image][0] for image in images])

    def drawn(self, images: Sequence[int], step: int, places: Sequence[int]) -> TextInput:
        """What the images at these places of a step are trained with."""
        return self.texts.rows([self._place(image, step, place) for image, place in zip(images, places, strict=True)])

    def _place(self, image: int, step: int, place: int) -> int:
        if self.empty is not None and is_dropped(self.dropout, self.seed, step, place):
            return self.empty
        return self.choices[image][chosen(self.choices[image], self.seed, step, place)]


@dataclass(frozen=True)
class FreshTexts:
    """Prompts of the training images for text encoders that learn: nothing is cached, each place of each step has its own variant."""

    samples: Sequence[Sample]
    config: DataConfig
    seed: int
    count: Count

    @property
    def texts(self) -> Prompts:
        """The plain prompts."""
        return Prompts(tuple(plain_prompt(sample, self.config, self.count) for sample in self.samples))

    def rows(self, images: Sequence[int]) -> list[str]:
        """The plain prompts of these images."""
        return [plain_prompt(self.samples[image], self.config, self.count) for image in images]

    def drawn(self, images: Sequence[int], step: int, places: Sequence[int]) -> TextInput:
        """What the images at these places of a step are trained with."""
        return [self._prompt(self.samples[image], step, place) for image, place in zip(images, places, strict=True)]

    def _prompt(self, sample: Sample, step: int, place: int) -> str:
        if is_dropped(self.config.caption_dropout, self.seed, step, place):
            return ""
        if not is_drawn(sample, self.config):
            return plain_prompt(sample, self.config, self.count)
        return variant(sample, self.config, self.seed, step, place, count=self.count)


TrainingTexts = CachedTexts | FreshTexts
