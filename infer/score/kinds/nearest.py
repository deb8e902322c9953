"""The training image that an image is nearest to."""

from __future__ import annotations

from infer.score.references import Comparison, against_references, read_files
from infer.score.scorer import SCORES, Scene, Scorer
from infer.score.training_images import TrainingImages, training_files
from registry.images.image_hash import BITS, hash_bits


@SCORES.add("nearest")
def nearest(scene: Scene, *, data: TrainingImages = None) -> Scorer:
    """Differing bits of the perceptual hash to the nearest training image, and which image that is: few bits are a copy."""
    return against_references(
        f"Differing bits of {BITS} of the perceptual hash (Zauner 2010, section 3.2) to training images; equal images differ in none,"
        " unlike ones in about half.",
        unit=f"0 to {BITS} bits",
        better="higher",
        references=read_files(training_files(scene, data), "training images"),
        take="nearest",
        nearest_is="lower",
        comparison=Comparison(open=lambda: hash_bits, distance=lambda one, other: float((one != other).sum())),
        named=True,
    )
