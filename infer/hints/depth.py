"""Depth maps by a network: near is white, far is black, as depth ControlNets were trained (MiDaS)."""

# h w pixels

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from infer.hints.onnx_file import faults_of_onnx, numbers_of, open_onnx
from infer.hints.table import PREPARE, NetworkKind
from infer.hints.transformers_model import faults_of_folder, files_of_folder, loaded
from registry.errors import Refused
from registry.options import Meaning

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE = 518  # pixels of a side that an ONNX file without a size of its own is given: Depth Anything's
EXPECTED = "Expected a folder of transformers with a depth model (Depth Anything, DPT, ZoeDepth, ...) or an ONNX file"
METRIC = ("glpn", "zoedepth", "depth_pro")  # they give metres, where far is large; the others give nearness

Depth = Callable[["Image"], Any]  # an image -> (nearness (h, w), larger is nearer)
Model = Annotated[str, Meaning("a depth network: a folder of transformers, an .onnx file")]
Invert = Annotated[bool, Meaning("the network gives distances, not nearness, and does not say so: ONNX files that do")]


def _types() -> set[str]:
    from transformers.models.auto import modeling_auto as auto

    return set(auto.MODEL_FOR_DEPTH_ESTIMATION_MAPPING_NAMES)


def faults_of_depth(path: Path) -> list[str]:
    """Why a path is no depth network; no weights of a folder are read."""
    if path.suffix.lower() == ".onnx" and path.is_file():
        return faults_of_onnx(path)
    return faults_of_folder(path, _types, "a depth model", EXPECTED)


def open_depth(path: Path, device: str) -> Depth:
    """The network as a function. Raises Refused with the library's reason."""
    return _of_onnx(path) if path.is_file() else _of_folder(path, device)


@PREPARE.add(
    "depth", network=NetworkKind(faults=faults_of_depth, files=files_of_folder, open=open_depth, default=lambda: None, expected=EXPECTED)
)
def depth(image: Image, network: Depth, *, model: Model, invert: Invert = False) -> Image:
    """A depth map by a network: near is white, far is black.

    Distances become 1 / distance; the nearest point of an image is 255, the farthest 0.
    """
    import numpy
    from PIL import Image

    near = numpy.asarray(network(image.convert("RGB")), dtype=numpy.float64)
    if invert:
        near = inverse(near)
    if not numpy.isfinite(near).all():
        raise Refused(f"prepare: depth: {model} gives numbers that are not finite for this image.")
    low, high = near.min(), near.max()
    grey = (near - low) / (high - low) * 255 if high > low else numpy.zeros_like(near)
    made = Image.fromarray(grey.round().astype(numpy.uint8))
    return made.resize(image.size, Image.Resampling.BICUBIC).convert("RGB") if made.size != image.size else made.convert("RGB")


def inverse(distances: Any) -> Any:
    """1 / distance, of a tenth of a millimetre at least."""
    import numpy

    return 1 / numpy.maximum(distances, 1e-4)


def _of_folder(path: Path, device: str) -> Depth:
    import torch
    from transformers import AutoModelForDepthEstimation

    processor, network = loaded(path, AutoModelForDepthEstimation, device)
    metric = network.config.model_type in METRIC or getattr(network.config, "depth_estimation_type", None) == "metric"

    def near(image: Image) -> Any:
        given = processor(images=image, return_tensors="pt").to(device)
        with torch.no_grad():
            found = network(**given).predicted_depth[0].float().cpu().numpy()
        return inverse(found) if metric else found

    return near


def _of_onnx(path: Path) -> Depth:
    network = open_onnx(path)

    def near(image: Image) -> Any:
        from PIL import Image

        size = network.size or (SIDE, SIDE)
        found = network.run(numbers_of(image.resize(size, Image.Resampling.BICUBIC)))[0]
        if found.size != found.shape[-1] * found.shape[-2]:
            raise Refused(f"{path} gives {'x'.join(map(str, found.shape))} numbers. Expected one depth map, 1 x h x w.")
        return found.reshape(found.shape[-2:])

    return near
