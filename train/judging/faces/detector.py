"""A face detector by path: YuNet's ONNX file of 2023 or later (Wu et al. 2023, OpenCV's face detector), run by onnxruntime.

It gives a box and five points of each face: the eyes, the tip of the nose, the corners of the mouth, from the left of the image.
"""

# H W of the model's input, N candidates of one stride, F faces

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infer.score.models.embedder import Definition, hash_of, tried_images
from registry.detect.transformers_folder import reason
from registry.errors import Refused

if TYPE_CHECKING:
    from PIL.Image import Image

STRIDES = (8, 16, 32)
PARTS = ("cls", "obj", "bbox", "kps")
LONG = 640  # pixels of the long side where a file declares none, as YuNet was trained
LEAST_SCORE = 0.6  # of 1; OpenCV's default for photographs is 0.9, and drawn faces score lower
OVERLAP = 0.3  # intersection over union above which two boxes are one face: OpenCV's default


@dataclass(frozen=True)
class Face:
    """A face in pixels of its image."""

    score: float
    box: tuple[float, float, float, float]  # left, top, width, height
    points: Any  # (5, 2)

    @property
    def area(self) -> float:
        return self.box[2] * self.box[3]


@dataclass(frozen=True, kw_only=True)
class Detector:
    """A detector that is open."""

    definition: Definition
    run: Callable[[Any], dict[str, Any]]  # (1, 3, H, W) fp32, blue first, 0 to 255 -> outputs by name
    size: tuple[int, int]  # (W, H)

    def largest(self, image: Image) -> Face | None:
        """The face of the largest box; None where there is none."""
        return max(self.faces(image), key=lambda face: face.area, default=None)

    def faces(self, image: Image) -> list[Face]:
        """All faces, the surest first. The image is scaled until it fits; what is left over is black."""
        import numpy
        from PIL import Image

        wide, high = self.size
        scale = min(wide / image.width, high / image.height)
        small = image.convert("RGB").resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), Image.Resampling.BOX)
        pixels = numpy.zeros((high, wide, 3), dtype=numpy.float32)
        pixels[: small.height, : small.width] = numpy.asarray(small)[..., ::-1]
        return [
            Face(score, (box[0], box[1], box[2], box[3]), points)
            for score, box, points in decoded(self.run(pixels.transpose(2, 0, 1)[None]), self.size, scale)
        ]


def decoded(outputs: dict[str, Any], size: tuple[int, int], scale: float) -> list[tuple[float, tuple[float, ...], Any]]:
    """(score, box, points) of each face in pixels of the image: offsets from a grid of each stride, sizes as logarithms."""
    import numpy

    found = []
    for stride in STRIDES:
        columns, rows = size[0] // stride, size[1] // stride
        cls, obj, bbox, kps = (
            numpy.asarray(outputs[f"{part}_{stride}"], dtype=numpy.float64).reshape(rows * columns, -1) for part in PARTS
        )
        scores = numpy.sqrt(cls[:, 0].clip(0, 1) * obj[:, 0].clip(0, 1))
        for place in numpy.flatnonzero(scores >= LEAST_SCORE):
            corner = numpy.array([place % columns, place // columns], dtype=numpy.float64)
            centre, sides = (corner + bbox[place, :2]) * stride, numpy.exp(bbox[place, 2:].clip(-20, 20)) * stride
            points = (kps[place].reshape(5, 2) + corner) * stride / scale
            box = tuple(float(value) / scale for value in (*(centre - sides / 2), *sides))
            found.append((float(scores[place]), box, points))
    kept: list[tuple[float, tuple[float, ...], Any]] = []
    for one in sorted(found, key=lambda face: -face[0]):
        if all(overlap(one[1], other[1]) <= OVERLAP for other in kept):
            kept.append(one)
    return kept


def overlap(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """Intersection over union of two boxes."""
    sides = [min(one[k] + one[k + 2], other[k] + other[k + 2]) - max(one[k], other[k]) for k in (0, 1)]
    both = max(0.0, sides[0]) * max(0.0, sides[1])
    return both / (one[2] * one[3] + other[2] * other[3] - both)


def open_detector(path: Path) -> Detector:
    """The detector, tried on an image. Raises Refused with the reason."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors alone
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # of onnxruntime
        raise Refused(f"{path} cannot be loaded ({reason(error)}).") from error
    names = [output.name for output in session.get_outputs()]
    wanted = [f"{part}_{stride}" for part in PARTS for stride in STRIDES]
    if missing := [name for name in wanted if name not in names]:
        raise Refused(f"{path} has no outputs {', '.join(missing)}. Expected YuNet's face detector of 2023 or later (OpenCV's model zoo).")
    inputs = session.get_inputs()
    shape = inputs[0].shape
    high, wide = (value if isinstance(value, int) else LONG for value in shape[2:4]) if len(shape) == 4 else (0, 0)
    if len(inputs) != 1 or high < STRIDES[-1] or wide < STRIDES[-1] or high % STRIDES[-1] or wide % STRIDES[-1]:
        raise Refused(f"{path} has an input of shape {'x'.join(map(str, shape))}. Expected 1 x 3 x h x w, h and w multiples of 32.")

    def run(pixels: Any) -> dict[str, Any]:
        return dict(zip(names, session.run(None, {inputs[0].name: pixels}), strict=True))

    definition = Definition(
        path=str(path),
        kind="onnx",
        name=str(session.get_modelmeta().graph_name or path.stem),
        input=f"fitted into {wide} x {high} px",
        output=f"the largest face of a score of {LEAST_SCORE:g} or more",
        width=5,
        sha256=hash_of([path]),
    )
    found = Detector(definition=definition, run=run, size=(wide, high))
    try:
        found.faces(tried_images()[0])
    except Exception as error:  # of the model itself
        raise Refused(f"{path} cannot be run ({reason(error)}).") from error
    return found
