"""The frames of people by a network of transformers that finds objects: DETR and its kin, YOLOS."""

# x y w h pixels

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infer.hints.table import NetworkKind
from infer.hints.transformers_model import faults_of_folder, files_of_folder, loaded
from registry.errors import Refused

if TYPE_CHECKING:
    from PIL.Image import Image

Frame = tuple[float, float, float, float]  # left, top, width, height in pixels

PERSON = "person"  # COCO's label
SURE = 0.5  # as transformers' post-processing has it
EXPECTED = "Expected a folder of transformers with a network that finds objects (DETR, RT-DETR, YOLOS, ...)"


def _types() -> set[str]:
    from transformers.models.auto import modeling_auto as auto

    return set(auto.MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES)


def faults_of_detector(path: Path) -> list[str]:
    """Why a path is no network that finds people; no weights are read."""
    return faults_of_folder(path, _types, "a object detection model", EXPECTED)


def open_detector(path: Path, device: str) -> Callable[[Image], Sequence[Frame]]:
    """The network as a function: the frames of an image's people, the surest first. Raises Refused for one that knows no person."""
    from transformers import AutoModelForObjectDetection

    processor, network = loaded(path, AutoModelForObjectDetection, device)
    labels: dict[int, str] = network.config.id2label
    people = {number for number, name in labels.items() if str(name).lower() == PERSON}
    if not people:
        raise Refused(f"{path} knows no label {PERSON!r}. It has: {', '.join(map(str, list(labels.values())[:8]))}, ...")

    def frames(image: Image) -> Sequence[Frame]:
        import torch

        given = processor(images=image, return_tensors="pt").to(device)
        with torch.no_grad():
            answer = network(**given)
        (found,) = processor.post_process_object_detection(answer, threshold=SURE, target_sizes=[(image.height, image.width)])
        rows: Any = zip(found["scores"].tolist(), found["labels"].tolist(), found["boxes"].tolist(), strict=True)
        sure = sorted(((score, box) for score, label, box in rows if label in people), key=lambda row: -row[0])
        return [frame for _score, box in sure if (frame := _inside(box, image.size)) is not None]

    return frames


def _inside(box: Sequence[float], size: tuple[int, int]) -> Frame | None:
    """A box (left, top, right, bottom) as a frame in the image; None of one without a pixel there."""
    left, top = max(0.0, box[0]), max(0.0, box[1])
    wide, high = min(float(size[0]), box[2]) - left, min(float(size[1]), box[3]) - top
    return (left, top, wide, high) if wide >= 1 and high >= 1 else None


DETECTOR = NetworkKind(faults=faults_of_detector, files=files_of_folder, open=open_detector, default=lambda: None, expected=EXPECTED)
