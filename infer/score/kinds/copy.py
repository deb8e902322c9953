"""How near an image is to a copy of a training image."""

from __future__ import annotations

from infer.score.models.shared import ModelOption, SizeOption, cosine, embedding_model, vectors
from infer.score.references import Comparison, against_references, read_files
from infer.score.scorer import SCORES, Scene, Scorer
from infer.score.training_images import TrainingImages, training_files


@SCORES.add("copy")
def copy(scene: Scene, *, model: ModelOption, data: TrainingImages = None, size: SizeOption = None) -> Scorer:
    """100 x cosine to the nearest training image, and which that is, by a copy detection model such as SSCD (Pizzi et al. 2022)."""
    shared = embedding_model(scene, model, size=size)
    return against_references(
        "100 x cosine of the embeddings of two images, to training images. With SSCD (Pizzi et al. 2022) above 50 is a copy"
        " (Somepalli et al. 2023).",
        unit="-100 to 100",
        better="lower",
        references=read_files(training_files(scene, data), "training images"),
        take="nearest",
        nearest_is="higher",
        comparison=Comparison(open=vectors(shared), distance=lambda one, other: 100 * cosine(one, other)),
        model=shared.facts,
        named=True,
    )
