"""How different two images look."""

from __future__ import annotations

from typing import Annotated, Any

from infer.score.against_first import AxisOption, against_first_images
from infer.score.models.pairs import pair_model, signed
from infer.score.references import Comparison, Take, against_references
from infer.score.scorer import SCORES, Scene, Scorer
from registry.errors import Refused
from registry.options import Meaning

PairModel = Annotated[str, Meaning("a TorchScript or ONNX file that takes two images in -1..1, such as a traced lpips.LPIPS")]
References = Annotated[str | None, Meaning("a folder of images, one image, or init; null: it is held against the first image of its row")]
DEFINITION = (
    "Learned perceptual distance of two images (LPIPS, Zhang et al. 2018); a reference of another size has the image scaled to its own."
)


@SCORES.add("lpips")
def lpips(scene: Scene, *, model: PairModel, references: References = None, take: Take = "mean", axis: AxisOption = None) -> Scorer:
    """LPIPS (Zhang et al. 2018) to reference images, or to the image of the same prompt and seed at the first value of the other axes."""
    facts, opened = pair_model(scene, model)
    if references is None:
        return against_first_images(
            DEFINITION,
            unit="0 and up; 0: equal",
            better=None,
            scene=scene,
            axis=axis,
            open=lambda: _of_images(opened()),
            model=facts,
        )
    if axis is not None:
        raise Refused("references and axis are both given: an image is held against references, or against the first one of an axis.")
    distance: list[Any] = []

    def features() -> Any:
        distance[:] = [opened()]
        return lambda image: image

    return against_references(
        DEFINITION,
        unit="0 and up; 0: equal",
        better="lower",
        references=references,
        take=take,
        comparison=Comparison(open=features, distance=lambda one, other: _of_images(distance[0])(one, other)),
        model=facts,
    )


def _of_images(distance: Any) -> Any:
    """The distance of two images, the first scaled to the second's size."""
    from PIL import Image

    def of(one: Any, other: Any) -> float:
        scaled = one if one.size == other.size else one.resize(other.size, Image.Resampling.LANCZOS)
        return float(distance(signed(scaled), signed(other)))

    return of
