"""An embedding model by path: a folder of transformers, a TorchScript file, an ONNX file. Nothing is downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from infer.score.models.embedder import Embedder
from infer.score.models.files import ENDINGS, faults_of_file, open_file
from infer.score.models.vision_model import faults_of_model, open_model
from registry.home import expanded

if TYPE_CHECKING:
    import torch

EXPECTED = f"Expected a folder with a model of transformers (config.json, weights), or a file {', '.join(ENDINGS)}"


def faults_of(path: str, *, option: str, texts: bool = False) -> list[str]:
    """Why there is no embedding model at a path, or with `texts` none that has a text side; no weights are read."""
    place = expanded(path)
    if not place.exists():
        return [f"{option} {path}: there is no such file or folder. {EXPECTED}."]
    if place.is_dir():
        return [f"{option} {fault}" for fault in faults_of_model(place, texts=texts)]
    if texts:
        return [f"{option} {path}: it is a file. Expected a folder of transformers with both sides, such as CLIP's or SigLIP's."]
    if place.suffix.lower() not in ENDINGS:
        return [f"{option} {path}: it is no model by its ending. {EXPECTED}."]
    return [f"{option} {fault}" for fault in faults_of_file(place)]


def open_embedder(path: str, *, device: torch.device, texts: bool = False, side: int | None = None) -> Embedder:
    """The model, tried on a few images. Raises Refused where that fails. `side`: pixels for a file that names none."""
    place = Path(expanded(path))
    return open_model(place, device=device, texts=texts) if place.is_dir() else open_file(place, device=device, side=side)
