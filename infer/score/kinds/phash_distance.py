"""How far an image is from references by a perceptual hash."""

from __future__ import annotations

from infer.score.references import Comparison, References, Take, against_references
from infer.score.scorer import SCORES, Scene, Scorer
from registry.images.image_hash import BITS, hash_bits


@SCORES.add("phash_distance")
def phash_distance(scene: Scene, *, references: References, take: Take = "nearest") -> Scorer:
    """Differing bits of the perceptual hash to reference images: 0 for copies, about half of them for other images."""
    return against_references(
        f"Differing bits of {BITS} of the perceptual hash (signs of low frequencies of a 16 x 16 grey copy; Zauner 2010, section 3.2).",
        unit=f"0 to {BITS} bits",
        better="lower",
        references=references,
        take=take,
        comparison=Comparison(open=lambda: hash_bits, distance=lambda one, other: float((one != other).sum())),
    )
