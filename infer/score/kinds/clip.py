"""How well an image goes with its own prompt."""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Any

from infer.score.models.embedder import cut_prompts
from infer.score.models.shared import TwoSided, embedding_model
from infer.score.scorer import SCORES, Found, Scene, Scorer, Subject, Value
from registry.home import pocket_clip_dir
from registry.options import Meaning

Prefix = Annotated[str, Meaning('what stands before each prompt; "A photo depicts " is that of the paper')]
OWN = (
    "score clip is computed by pocket's own CLIP, which knows the emoji that pocket draws and nothing else. For other images give a CLIP:"
    " {clip: FOLDER}."
)


@SCORES.add("clip")
def clip(scene: Scene, *, model: TwoSided = None, prefix: Prefix = "") -> Scorer:
    """CLIP-T: 100 x cosine of image and prompt, by CLIP, SigLIP or another model with both sides; without one by pocket's own."""
    shared = embedding_model(scene, str(pocket_clip_dir()) if model is None else model, texts=True)
    assert shared.tokens is not None

    def opened() -> Value:
        embedder = shared.open()

        @lru_cache(maxsize=4096)
        def text(prompt: str) -> Any:
            return embedder.texts([prompt])[0]

        return lambda subject: Found(100 * float(embedder.images([subject.image()])[0] @ text(prefix + str(subject.prompt))))

    return Scorer(
        definition="100 x cosine of the embeddings of the image and of its prompt as it was typed (CLIP-T). CLIPScore (Hessel et al. 2021)"
        f" is max(0, this) x 0.025 with the prefix 'A photo depicts '; here the prefix is {prefix!r}.",
        unit="-100 to 100; CLIP's own are about 15 to 40, those of pocket's CLIP about 70, with another prompt 10",
        better="higher",
        open=opened,
        identity={"prefix": prefix},
        inputs=_prompt,
        lacks="the cell has no prompt",
        model=shared.facts,
        notes=(
            *((OWN,) if model is None else ()),
            *(f"score clip: {note}" for note in cut_prompts(shared.tokens, [prefix + prompt for prompt in scene.prompts])),
        ),
    )


def _prompt(subject: Subject) -> dict[str, Any] | None:
    return {"prompt": subject.prompt} if subject.prompt and subject.prompt.strip() else None
