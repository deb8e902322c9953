"""Embedding models of scores: checked and hashed without their weights, opened once for all scores that share one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from infer.draw.machine import pick_device
from infer.score.models.embedder import Embedder, hash_of
from infer.score.models.files import processor_folder
from infer.score.models.open import faults_of, open_embedder
from infer.score.models.vision_model import count_tokens, model_sha256
from infer.score.scorer import Plain, Scene
from registry.detect.transformers_folder import PROCESSORS, reason
from registry.errors import Faults, Refused
from registry.home import expanded
from registry.options import Meaning

ModelOption = Annotated[str, Meaning("a folder of transformers (config.json, weights), or a TorchScript or ONNX file")]
TwoSided = Annotated[
    str | None,
    Meaning("a folder of transformers with an image and a text side, such as CLIP's or SigLIP's; null: pocket's own"),
]
SizeOption = Annotated[int | None, Meaning("pixels of the short side, for a file that names none; null: 288", 16, 2048)]


@dataclass(frozen=True, kw_only=True)
class SharedModel:
    """A model that was found at a path, with what it is without its weights being read."""

    facts: dict[str, Plain]  # path, sha256
    open: Callable[[], Embedder]
    tokens: Callable[[str], tuple[int, int]] | None = None


def embedding_model(scene: Scene, path: str, *, texts: bool = False, size: int | None = None) -> SharedModel:
    """The model at a path. Raises Faults with what is wrong with it, as far as that is seen without its weights."""
    if faults := faults_of(path, option="model", texts=texts):
        raise Faults("This model cannot be used:", faults)
    place = Path(expanded(path)).absolute()
    what = f"embedder {place} {texts} {size}"
    if what not in scene.opened:
        scene.opened[what] = SharedModel(
            facts={"path": str(place), "sha256": content_of(place, texts=texts, size=size)},
            open=_once(lambda: _opened(place, scene, texts, size)),
            tokens=_tokens(place) if texts else None,
        )
    found: SharedModel = scene.opened[what]
    return found


def content_of(place: Path, *, texts: bool, size: int | None) -> str:
    """A hash of all that a model's vectors come of: its files, the settings by which images are prepared, the size that is given."""
    if place.is_dir():
        return model_sha256(place, texts=texts)
    folder = processor_folder(place)
    beside = f" {hash_of([folder / PROCESSORS[0]])}" if folder is not None else ""
    return hash_of([place]) + beside + (f" {size} px" if size else "")


def _opened(place: Path, scene: Scene, texts: bool, size: int | None) -> Embedder:
    import torch

    return open_embedder(str(place), device=torch.device(pick_device(scene.device)), texts=texts, side=size)


def _tokens(place: Path) -> Callable[[str], tuple[int, int]]:
    try:
        return count_tokens(place)
    except Exception as error:  # of transformers, which raises what it meets
        raise Refused(f"{place}: its tokenizer cannot be loaded ({reason(error)}).") from error


def _once(make: Callable[[], Embedder]) -> Callable[[], Embedder]:
    kept: list[Embedder] = []

    def opened() -> Embedder:
        if not kept:
            kept.append(make())
        return kept[0]

    return opened


def vectors(model: SharedModel) -> Callable[[], Callable[[Any], Any]]:
    """The `open` of a Comparison: an image's unit vector (D,)."""

    def opened() -> Callable[[Any], Any]:
        embedder = model.open()
        return lambda image: embedder.images([image])[0]

    return opened


def cosine(one: Any, other: Any) -> float:
    """Of two unit vectors."""
    return float(one @ other)
