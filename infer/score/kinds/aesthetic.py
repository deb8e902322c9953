"""How beautiful people would call an image, by a head over CLIP's embedding."""

from __future__ import annotations

from typing import Annotated

from infer.score.models.head import read_head
from infer.score.models.shared import ModelOption, embedding_model
from infer.score.scorer import SCORES, Found, Scene, Scorer, Value
from registry.errors import Refused
from registry.options import Meaning

Head = Annotated[str, Meaning("weights of an aesthetic predictor over the model's embedding, .pth or .safetensors")]


@SCORES.add("aesthetic")
def aesthetic(scene: Scene, *, head: Head, model: ModelOption) -> Scorer:
    """LAION's aesthetic predictors: linear layers over CLIP's unit embedding; those of the improved one go from 1 to 10."""
    shared = embedding_model(scene, model)
    facts, width, number = read_head(head)

    def opened() -> Value:
        embedder = shared.open()
        if embedder.definition.width != width:
            raise Refused(f"head {head} is for {width} numbers, and {model} gives {embedder.definition.width}.")
        return lambda subject: Found(number(embedder.images([subject.image()])[0]))

    return Scorer(
        definition="Linear layers over the unit embedding of the image (LAION's aesthetic predictors, Schuhmann 2022): taste of those who"
        " rated photographs and art on the web.",
        unit="1 to 10 for the improved predictor",
        better="higher",
        open=opened,
        identity={"head": facts["sha256"]},
        model=shared.facts,
    )
