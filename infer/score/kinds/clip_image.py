"""How like reference images an image is, in CLIP's eyes."""

from __future__ import annotations

from infer.score.models.shared import ModelOption, SizeOption, cosine, embedding_model, vectors
from infer.score.references import Comparison, References, Take, against_references
from infer.score.scorer import SCORES, Scene, Scorer


@SCORES.add("clip_image")
def clip_image(scene: Scene, *, model: ModelOption, references: References, take: Take = "mean", size: SizeOption = None) -> Scorer:
    """CLIP-I: 100 x cosine to reference images by CLIP's image side (Ruiz et al. 2023), or by any other embedding model."""
    shared = embedding_model(scene, model, size=size)
    return against_references(
        "100 x cosine of the embeddings of two images (CLIP-I, Ruiz et al. 2023).",
        unit="-100 to 100",
        better="higher",
        references=references,
        take=take,
        comparison=Comparison(open=vectors(shared), distance=lambda one, other: 100 * cosine(one, other)),
        model=shared.facts,
    )
