"""ONNX files that take one image: opened on the CPU, and given numbers as ImageNet's networks take them."""

# h w pixels

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.errors import Refused, understood

if TYPE_CHECKING:
    from PIL.Image import Image

NEED = "runs with onnxruntime: pip install 'loraloom[hints]'"
MEAN, SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, RGB from 0 to 1


@dataclass(frozen=True)
class OnnxFile:
    """A network of one image (1, 3, h, w): its size in pixels where it is fixed, and the call."""

    size: tuple[int, int] | None  # width, height
    run: Callable[[Any], list[Any]]


def faults_of_onnx(path: Path) -> list[str]:
    """Why an ONNX file cannot be run on an image."""
    if find_spec("onnxruntime") is None:
        return [f"{path} {NEED}"]
    try:
        open_onnx(path)
    except Refused as error:
        return [str(error)]
    return []


def open_onnx(path: Path) -> OnnxFile:
    """The network on the CPU. Raises BadFile, and Refused for one that does not take an image."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors alone
    with understood(path):
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    inputs = session.get_inputs()
    if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].shape[1] != 3:
        listed = "; ".join("x".join(map(str, one.shape)) for one in inputs)
        raise Refused(f"{path} has inputs of shape {listed}. Expected one image, 1 x 3 x h x w.")
    height, width = (side if isinstance(side, int) else None for side in inputs[0].shape[2:])
    size = (width, height) if width and height else None

    def run(pixels: Any) -> list[Any]:
        with understood(path):
            return list(session.run(None, {inputs[0].name: pixels}))

    return OnnxFile(size, run)


def numbers_of(image: Image) -> Any:
    """The image (1, 3, h, w) as float32, by ImageNet's mean and deviation."""
    import numpy

    shares = numpy.asarray(image.convert("RGB"), dtype=numpy.float32) / 255
    mean, spread = (numpy.array(values, dtype=numpy.float32) for values in (MEAN, SPREAD))
    return ((shares - mean) / spread).transpose(2, 0, 1)[None]
