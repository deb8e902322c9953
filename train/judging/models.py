"""The models by path that a judgement measures with: found in the plan, opened again when the images are drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from infer.score.intervals import Resamples
from infer.score.models.embedder import Definition, Embedder, cut_prompts
from infer.score.models.open import faults_of, open_embedder
from registry.errors import Refused
from registry.progress import Report, silent
from train.judging.likeness import Drawn, Likenesses, likenesses, vectors_of
from train.judging.prompt_following import Following, PromptFollowing, following
from train.plan.base import resolve_device
from train.plan.checks import Attempts
from train.run_report.set_images import SetImage

if TYPE_CHECKING:
    from PIL.Image import Image

SIDES = (16, 2048)  # pixels of --embed-size


@dataclass(frozen=True, kw_only=True)
class GivenModels:
    """What a person gives: paths, and the size for files that name none."""

    embed: tuple[str, ...] = ()
    clip: str | None = None
    side: int | None = None
    faces: str | None = None  # a face embedding
    face_detector: str | None = None


@dataclass(frozen=True, kw_only=True)
class JudgingModels:
    """The models that were found, each tried on a few images; their weights are not kept."""

    given: GivenModels = GivenModels()
    embed: tuple[Definition, ...] = ()
    clip: Definition | None = None
    device: str = "cpu"
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {"embed": [model.to_json() for model in self.embed], "clip": None if self.clip is None else self.clip.to_json()}

    def lines(self) -> list[str]:
        """For a person."""
        every = [("embedding", model) for model in self.embed] + ([("prompt following", self.clip)] if self.clip else [])
        return [f"{use}: {model.path} ({model.words()})" for use, model in every]


def find_models(given: GivenModels, device: str, prompts: Sequence[str], attempts: Attempts) -> JudgingModels:
    """The models, each opened and tried once; what is wrong is in `attempts`. `prompts`: that a text side is to read."""
    if given.side is not None and not SIDES[0] <= given.side <= SIDES[1]:
        attempts.faults.append(f"--embed-size must be from {SIDES[0]} to {SIDES[1]} pixels, got {given.side}.")
    for path in sorted({path for path in given.embed if given.embed.count(path) > 1}):
        attempts.faults.append(f"--embed {path} is given twice.")
    static = {path: faults_of(path, option="--embed") for path in dict.fromkeys(given.embed)}
    texts = faults_of(given.clip, option="--clip", texts=True) if given.clip else []
    attempts.faults += [*(fault for faults in static.values() for fault in faults), *texts]
    if not given.embed and given.clip is None:
        return JudgingModels(given=given)
    place = attempts(lambda: resolve_device(device))
    if place is None or attempts.faults:
        return JudgingModels(given=given)
    found = [attempts(lambda path=path: open_embedder(path, device=place, side=given.side)) for path in static]  # type: ignore[misc]
    clip = attempts(lambda: open_embedder(str(given.clip), device=place, texts=True)) if given.clip else None
    notes = cut_prompts(clip.tokens, prompts) if clip is not None and clip.tokens is not None else []
    definitions = tuple(model.definition for model in found if model is not None)
    return JudgingModels(
        given=given, embed=definitions, clip=None if clip is None else clip.definition, device=str(place), notes=tuple(notes)
    )


@dataclass(frozen=True, kw_only=True)
class DrawnImages:
    """The images of a judgement by step, 0 the base's, and their prompts."""

    own: Mapping[int, Drawn]
    prompts: Sequence[str]
    generic: Mapping[int, Drawn]  # empty without generic prompts
    generic_prompts: Sequence[str]


def measured(
    models: JudgingModels, drawn: DrawnImages, heldout: Sequence[SetImage], trained: Sequence[SetImage], *, report: Report = silent
) -> tuple[tuple[Likenesses, ...], PromptFollowing | None]:
    """(likenesses by each embedding model, how far prompts are followed)."""
    resamples = Resamples(len(drawn.prompts), len(drawn.own[0][0]))
    found = []
    for definition, path in zip(models.embed, models.given.embed, strict=True):
        model = _reopened(models, path, definition, texts=False)
        vectors = vectors_of(model, drawn.own, _images(heldout), _images(trained), report=report)
        texts = [image.prompt for image in heldout]
        found.append(likenesses(definition, vectors, prompts=drawn.prompts, heldout_prompts=texts, resamples=resamples))
    return tuple(found), _followed(models, drawn, resamples, report)


def _followed(models: JudgingModels, drawn: DrawnImages, resamples: Resamples, report: Report) -> PromptFollowing | None:
    if models.clip is None:
        return None
    model = _reopened(models, str(models.given.clip), models.clip, texts=True)
    own = following(vectors_of(model, drawn.own, [], [], report=report).own, model.texts(drawn.prompts), resamples)
    other: tuple[Following, ...] = ()
    if drawn.generic and len(drawn.generic_prompts) > 1:
        vectors = vectors_of(model, drawn.generic, [], [], report=report).own
        of = Resamples(len(drawn.generic_prompts), len(drawn.generic[0][0]))
        other = following(vectors, model.texts(drawn.generic_prompts), of)
    return PromptFollowing(model=models.clip, heldout=own, generic=other)


def _reopened(models: JudgingModels, path: str, planned: Definition, *, texts: bool) -> Embedder:
    """The model again. Raises Refused where its files have changed since the plan."""
    model = open_embedder(path, device=resolve_device(models.device), texts=texts, side=models.given.side)
    if model.definition != planned:
        raise Refused(f"{path} has changed since the plan was made. Judge the run again.")
    return model


def _images(found: Sequence[SetImage]) -> list[Image]:
    return [image.image for image in found]
