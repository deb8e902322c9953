"""Stick figures by a pose network of one person, whose frame is the whole image."""

# x y w h pixels

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from infer.hints.figures import Figures, Point, of_coco
from infer.hints.onnx_file import faults_of_onnx, numbers_of, open_onnx
from infer.hints.stick_figure import Stick, keypoints
from infer.hints.table import PREPARE, NetworkKind
from infer.hints.transformers_model import faults_of_folder, files_of_folder, loaded
from registry.errors import Refused
from registry.options import Meaning

if TYPE_CHECKING:
    from PIL.Image import Image

COCO = 17
VITPOSE = "vitpose"  # transformers' only pose model with these points
EXPECTED = "Expected a folder of transformers with a pose model (ViTPose), or an ONNX file of RTMPose or of heatmaps with COCO's 17 points"

Pose = Callable[["Image"], Sequence[tuple[float, float, float]]]  # an image -> COCO's points: x, y in pixels, confidence
Model = Annotated[
    str, Meaning("a pose network with COCO's 17 points: a folder of transformers (ViTPose), an .onnx file (RTMPose, heatmaps)")
]
Confidence = Annotated[float, Meaning("confidence below which a point is missing", 0.0, 1.0)]


def faults_of_pose(path: Path) -> list[str]:
    """Why a path is no pose network; no weights of a folder are read."""
    if path.suffix.lower() == ".onnx" and path.is_file():
        return faults_of_onnx(path)
    return faults_of_folder(path, lambda: {VITPOSE}, "a pose model", EXPECTED)


def open_pose(path: Path, device: str) -> Pose:
    """The network as a function. Raises Refused with the library's reason."""
    return _of_onnx(path) if path.is_file() else _of_folder(path, device)


@PREPARE.add(
    "pose",
    note="the network takes the whole image as the frame of one person",
    network=NetworkKind(faults=faults_of_pose, files=files_of_folder, open=open_pose, default=lambda: None, expected=EXPECTED),
)
def pose(image: Image, network: Pose, *, model: Model, confidence: Confidence = 0.3, stick: Stick = 4.0) -> Image:
    """A stick figure of one person in an image, by a pose network.

    Raises Refused where no point is as sure as `confidence`: a black hint steers nothing.
    """
    found = network(image.convert("RGB"))
    if len(found) != COCO:
        raise Refused(f"prepare: pose: {model} gives {len(found)} points. Expected COCO's {COCO}.")
    points: list[Point | None] = [(x, y) if sure >= confidence else None for x, y, sure in found]
    if not any(points):
        best = max(sure for _x, _y, sure in found)
        raise Refused(f"prepare: pose: no point of a person is found; the surest has {best:.2f}, below confidence {confidence:g}.")
    return keypoints(Figures((of_coco(points),), canvas=image.size, shares=False), image.size, stick=stick)


def _of_folder(path: Path, device: str) -> Pose:
    import torch
    from transformers import VitPoseForPoseEstimation

    processor, network = loaded(path, VitPoseForPoseEstimation, device)

    def points(image: Image) -> list[tuple[float, float, float]]:
        frame = [[[0.0, 0.0, float(image.width), float(image.height)]]]
        given = processor(images=image, boxes=frame, return_tensors="pt").to(device)
        experts = getattr(network.config.backbone_config, "num_experts", 1)
        which = {"dataset_index": torch.zeros(1, dtype=torch.long, device=device)} if experts > 1 else {}  # ViTPose++: the first is COCO's
        with torch.no_grad():
            answer = network(**given, **which)
        ((found,),) = processor.post_process_pose_estimation(answer, boxes=frame)
        where, sure = found["keypoints"].tolist(), found["scores"].flatten().tolist()
        return [(x, y, score) for (x, y), score in zip(where, sure, strict=True)]

    return points


def _of_onnx(path: Path) -> Pose:
    network = open_onnx(path)
    if network.size is None:
        raise Refused(f"{path} has no size of its own. Export it with one, such as 192x256.")
    width, height = network.size

    def points(image: Image) -> list[tuple[float, float, float]]:
        from PIL import Image

        scale = min(width / image.width, height / image.height)
        size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
        left, top = (width - size[0]) // 2, (height - size[1]) // 2
        shown = Image.new("RGB", (width, height))
        shown.paste(image.resize(size, Image.Resampling.BICUBIC), (left, top))
        found = _peaks(network.run(numbers_of(shown)), path)
        return [((x * width - left) * image.width / size[0], (y * height - top) * image.height / size[1], sure) for x, y, sure in found]

    return points


def _peaks(answer: Sequence[Any], path: Path) -> list[tuple[float, float, float]]:
    """(x, y as shares of the network's image, confidence) of heatmaps (1, K, h, w), or of SimCC's two rows (1, K, w) and (1, K, h)."""
    import numpy

    if len(answer) == 1 and answer[0].ndim == 4:
        _one, count, high, wide = answer[0].shape
        flat = answer[0].reshape(count, high * wide)
        at, sure = flat.argmax(1), flat.max(1)
        return [
            ((index % wide + 0.5) / wide, (index // wide + 0.5) / high, float(one)) for index, one in zip(at.tolist(), sure, strict=True)
        ]
    if len(answer) == 2 and all(one.ndim == 3 for one in answer):
        across, down = (one[0] for one in answer)
        sure = numpy.minimum(across.max(1), down.max(1))
        rows = zip(across.argmax(1).tolist(), down.argmax(1).tolist(), sure, strict=True)
        return [(x / across.shape[1], y / down.shape[1], float(one)) for x, y, one in rows]
    listed = "; ".join("x".join(map(str, one.shape)) for one in answer)
    raise Refused(f"{path} gives {listed}. {EXPECTED}.")
