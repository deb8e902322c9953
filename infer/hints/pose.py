"""Stick figures of people by a pose network: in the whole image as the frame of one person, or in the frames that a detector finds."""

# x y w h pixels

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from infer.hints.figures import COCO, MEDIAPIPE, Figures, of_coco, of_mediapipe
from infer.hints.mediapipe_task import TASK, faults_of_task, open_task
from infer.hints.onnx_file import faults_of_onnx, numbers_of, open_onnx
from infer.hints.person_detector import DETECTOR, Frame
from infer.hints.stick_figure import Stick, keypoints
from infer.hints.table import PREPARE, NetworkKind
from infer.hints.transformers_model import faults_of_folder, files_of_folder, loaded
from registry.errors import Refused
from registry.options import Meaning

if TYPE_CHECKING:
    from PIL.Image import Image

VITPOSE = "vitpose"  # transformers' only pose model with these points
EXPECTED = (
    "Expected a folder of transformers with a pose model (ViTPose), an ONNX file of RTMPose or of heatmaps with COCO's 17 points, or a"
    " .task file of MediaPipe's pose landmarker"
)
WIDER = 1.25  # what a frame is made larger by around a person, as in ViTPose and RTMPose
MOST = 100  # people

Person = Sequence[tuple[float, float, float]]  # points: x, y in pixels of the image, confidence
InFrame = Callable[["Image", Frame], Person]
Model = Annotated[
    str,
    Meaning(
        "a pose network with COCO's 17 points: a folder of transformers (ViTPose), an .onnx file (RTMPose, heatmaps); or MediaPipe's .task"
    ),
]
Detector = Annotated[str | None, Meaning("a folder of transformers that finds objects (DETR, RT-DETR, YOLOS, ...): the frames of people")]
Most = Annotated[int | None, Meaning("people at most, the surest ones first; null: all that are found", 1, MOST)]
Confidence = Annotated[float, Meaning("confidence below which a point is missing", 0.0, 1.0)]


@dataclass(frozen=True, kw_only=True)
class People:
    """A pose network with what finds the frames; `all_at_once` gives so many people of an image without frames."""

    in_frame: InFrame | None = None
    all_at_once: Callable[[Image, int], Sequence[Person]] | None = None
    frames: Callable[[Image], Sequence[Frame]] | None = None

    def __call__(self, image: Image, most: int | None = None) -> Sequence[Person]:
        """The people of an image. Raises Refused where the detector finds nobody."""
        if self.all_at_once is not None:
            return self.all_at_once(image, MOST if most is None else most)
        assert self.in_frame is not None
        if self.frames is None:
            return [self.in_frame(image, (0.0, 0.0, float(image.width), float(image.height)))]
        return [self.in_frame(image, frame) for frame in self.frames(image)[:most]]


def faults_of_pose(path: Path) -> list[str]:
    """Why a path is no pose network; no weights of a folder are read."""
    if path.suffix.lower() == TASK and path.is_file():
        return faults_of_task(path)
    if path.suffix.lower() == ".onnx" and path.is_file():
        return faults_of_onnx(path)
    return faults_of_folder(path, lambda: {VITPOSE}, "a pose model", EXPECTED)


def open_pose(path: Path, device: str) -> People:
    """The network as a function. Raises Refused with the library's reason."""
    if path.suffix.lower() == TASK:
        return People(all_at_once=open_task(path))
    return People(in_frame=_of_onnx(path) if path.is_file() else _of_folder(path, device))


def _with_detector(network: People, others: Mapping[str, Any]) -> People:
    return replace(network, frames=others["detector"])


def _together(values: Mapping[str, Any]) -> str | None:
    """What is wrong with the options together."""
    alone = Path(str(values["model"])).suffix.lower() == TASK
    if alone and values["detector"] is not None:
        return "MediaPipe finds the people itself. Leave detector out"
    if not alone and values["detector"] is None and (values["people"] or 1) > 1:
        return f"people is {values['people']}, and without a detector the whole image is the frame of one person. Give detector"
    return None


def _frame_note(values: Mapping[str, Any]) -> str:
    """What nobody finds the people of an image for."""
    if values["detector"] is not None or Path(str(values["model"])).suffix.lower() == TASK:
        return ""
    return "without a detector the network takes the whole image as the frame of one person"


@PREPARE.add(
    "pose",
    note=_frame_note,
    network=NetworkKind(
        faults=faults_of_pose,
        files=files_of_folder,
        open=open_pose,
        default=lambda: None,
        expected=EXPECTED,
        others={"detector": DETECTOR},
        join=_with_detector,
    ),
    check=_together,
)
def pose(
    image: Image,
    network: People,
    *,
    model: Model,
    detector: Detector = None,
    people: Most = None,
    confidence: Confidence = 0.3,
    stick: Stick = 4.0,
) -> Image:
    """Stick figures of the people in an image, by a pose network.

    Raises Refused where no point is as sure as `confidence`: a black hint steers nothing.
    """
    found = network(image.convert("RGB"), people)
    if not found:
        raise Refused(f"prepare: pose: no person is found by {detector or model}.")
    if wrong := [len(one) for one in found if len(one) not in (COCO, MEDIAPIPE)]:
        raise Refused(f"prepare: pose: {model} gives {wrong[0]} points. Expected COCO's {COCO}.")
    figures = []
    for one in found:
        points = [(x, y) if sure >= confidence else None for x, y, sure in one]
        if any(points):
            figures.append(of_coco(points) if len(points) == COCO else of_mediapipe(points))
    if not figures:
        best = max(sure for one in found for _x, _y, sure in one)
        raise Refused(f"prepare: pose: no point of a person is found; the surest has {best:.2f}, below confidence {confidence:g}.")
    return keypoints(Figures(tuple(figures), canvas=image.size, shares=False), image.size, stick=stick)


def _of_folder(path: Path, device: str) -> InFrame:
    import torch
    from transformers import VitPoseForPoseEstimation

    processor, network = loaded(path, VitPoseForPoseEstimation, device)

    def points(image: Image, frame: Frame) -> Person:
        boxes = [[list(frame)]]
        given = processor(images=image, boxes=boxes, return_tensors="pt").to(device)
        experts = getattr(network.config.backbone_config, "num_experts", 1)
        which = {"dataset_index": torch.zeros(1, dtype=torch.long, device=device)} if experts > 1 else {}  # ViTPose++: the first is COCO's
        with torch.no_grad():
            answer = network(**given, **which)
        ((found,),) = processor.post_process_pose_estimation(answer, boxes=boxes)
        where, sure = found["keypoints"].tolist(), found["scores"].flatten().tolist()
        return [(x, y, score) for (x, y), score in zip(where, sure, strict=True)]

    return points


def _of_onnx(path: Path) -> InFrame:
    network = open_onnx(path)
    if network.size is None:
        raise Refused(f"{path} has no size of its own. Export it with one, such as 192x256.")
    width, height = network.size

    def points(image: Image, frame: Frame) -> Person:
        from PIL import Image

        left, top, wide, high = _widened(frame, image.size)
        scale = min(width / wide, height / high)
        size = max(1, round(wide * scale)), max(1, round(high * scale))
        right, down = (width - size[0]) // 2, (height - size[1]) // 2
        shown = Image.new("RGB", (width, height))
        shown.paste(image.resize(size, Image.Resampling.BICUBIC, box=(left, top, left + wide, top + high)), (right, down))
        found = _peaks(network.run(numbers_of(shown)), path)
        return [(left + (x * width - right) * wide / size[0], top + (y * height - down) * high / size[1], sure) for x, y, sure in found]

    return points


def _widened(frame: Frame, size: tuple[int, int]) -> Frame:
    """A frame made larger around its middle, and cut at the image; that of the whole image stays."""
    left, top, wide, high = frame
    if (left, top, wide, high) == (0.0, 0.0, *map(float, size)):
        return frame
    middle = left + wide / 2, top + high / 2
    ends = [
        (max(0.0, at - side * WIDER / 2), min(float(most), at + side * WIDER / 2))
        for at, side, most in zip(middle, (wide, high), size, strict=True)
    ]
    (left, right), (top, down) = ends
    return left, top, max(1.0, right - left), max(1.0, down - top)


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
