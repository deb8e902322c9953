"""How like reference images an image is, in DINO's eyes, which see the subject more than the scene."""

from __future__ import annotations

from infer.score.models.shared import ModelOption, SizeOption, cosine, embedding_model, vectors
from infer.score.references import Comparison, References, Take, against_references
from infer.score.scorer import SCORES, Scene, Scorer


@SCORES.add("dino")
def dino(scene: Scene, *, model: ModelOption, references: References, take: Take = "mean", size: SizeOption = None) -> Scorer:
    """DINO score: 100 x cosine to reference images (Ruiz et al. 2023, with DINO ViT-S/16; DINOv2 as well)."""
    shared = embedding_model(scene, model, size=size)
    return against_references(
        "100 x cosine of the embeddings of two images by a self-supervised model (DINO score, Ruiz et al. 2023).",
        unit="-100 to 100",
        better="higher",
        references=references,
        take=take,
        comparison=Comparison(open=vectors(shared), distance=lambda one, other: 100 * cosine(one, other)),
        model=shared.facts,
    )
