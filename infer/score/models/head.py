"""A head over an embedding that gives one number: the aesthetic predictors of LAION.

- improved-aesthetic-predictor's state dict (`layers.0.weight`, `layers.2.weight`, ...: linear layers with dropout between them and no
  other function; Schuhmann 2022, for CLIP ViT-L/14)
- aesthetic-predictor's linear layer (`weight`, `bias`)

A chain of linear layers is read from its shapes, so that heads over other embeddings are read too. Files are .pth of torch (tensors alone,
never code) or safetensors.
"""

# D numbers of an embedding, W of a layer

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from infer.score.models.embedder import hash_of
from registry.detect.transformers_folder import reason
from registry.errors import NotFound, Refused
from registry.home import expanded

LAYER = re.compile(r"(?:(?:layers|mlp|linear|model)\.)?(?:(\d+)\.)?(weight|bias)")
LARGEST = 1 << 28  # bytes


def read_head(path: str) -> tuple[dict[str, str], int, Callable[[Any], float]]:
    """(path and sha256, D, an embedding (D,) of length 1 -> its number). Raises NotFound, Refused."""
    place = Path(expanded(path)).absolute()
    if not place.is_file():
        raise NotFound(f"head {path}: there is no such file. Expected the weights of an aesthetic predictor, .pth or .safetensors.")
    if place.stat().st_size > LARGEST:
        raise Refused(f"head {path}: has more than {LARGEST:,} bytes.")
    layers = _layers(_tensors(place), place)

    def number(embedding: Any) -> float:
        value = embedding
        for weight, bias in layers:
            value = weight @ value + bias
        return float(value[0])

    return {"path": str(place), "sha256": hash_of([place])}, int(layers[0][0].shape[1]), number


def _tensors(place: Path) -> dict[str, Any]:
    """Name -> array, float64."""
    try:
        if place.suffix.lower() == ".safetensors":
            from safetensors.torch import load_file

            found = load_file(str(place))
        else:
            import torch

            found = torch.load(place, map_location="cpu", weights_only=True)
        return {str(name): value.detach().double().numpy() for name, value in found.items()}
    except Exception as error:  # of torch, of safetensors, of what is no dict of tensors
        raise Refused(f"head {place} cannot be read as weights ({reason(error)}). Expected a state dict, .pth or .safetensors.") from error


def _layers(tensors: dict[str, Any], place: Path) -> list[tuple[Any, Any]]:
    """(weight (W', W), bias (W',)) of each layer, in order."""
    import numpy

    names = {name: match for name in tensors if (match := LAYER.fullmatch(name)) is not None}
    if set(names) != set(tensors) or not names:
        other = next(iter(set(tensors) - set(names)), "nothing")
        raise Refused(f"head {place} has {other!r}. Expected linear layers alone: layers.0.weight, layers.0.bias, ... or weight, bias.")
    places = sorted({int(match[1] or 0) for match in names.values()})
    by_place = {(int(match[1] or 0), match[2]): tensors[name] for name, match in names.items()}
    layers = []
    for at in places:
        weight = by_place.get((at, "weight"))
        if weight is None or weight.ndim != 2:
            raise Refused(f"head {place}: layer {at} has no matrix. Expected linear layers alone.")
        layers.append((weight, by_place.get((at, "bias"), numpy.zeros(len(weight)))))
    widths = [weight.shape for weight, _ in layers]
    if widths[-1][0] != 1 or any(before[0] != after[1] for before, after in pairwise(widths)):
        raise Refused(f"head {place} has layers of shapes {widths}. Expected a chain that ends in one number.")
    return layers
