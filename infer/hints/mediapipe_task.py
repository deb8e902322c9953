"""MediaPipe's pose landmarker: a .task file by path, run by the package mediapipe, which carries no model (1.2.3)."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from registry.errors import Refused, understood

if TYPE_CHECKING:
    from PIL.Image import Image

TASK = ".task"
PARTS = ("pose_detector.tflite", "pose_landmarks_detector.tflite")  # of the file, which is a zip
NEED = "runs with mediapipe: pip install 'loraloom[pose]'"


def faults_of_task(path: Path) -> list[str]:
    """Why a file is no pose landmarker that can be run here."""
    try:
        with zipfile.ZipFile(path) as opened:
            names = set(opened.namelist())
    except (OSError, zipfile.BadZipFile) as error:
        return [f"{path} is no .task file of MediaPipe ({error})"]
    if missing := [name for name in PARTS if name not in names]:
        return [f"{path} is no pose landmarker of MediaPipe: it has no {', '.join(missing)}"]
    return [] if find_spec("mediapipe") is not None else [f"{path} {NEED}"]


def open_task(path: Path) -> Callable[[Image, int], Sequence[Sequence[tuple[float, float, float]]]]:
    """The landmarker as a function (image, people at most) -> 33 points (x, y in pixels, visibility) of each person."""
    import mediapipe
    import numpy
    from mediapipe.tasks.python import BaseOptions
    from mediapipe.tasks.python.vision import PoseLandmarker, PoseLandmarkerOptions

    def people(image: Image, most: int) -> Sequence[Sequence[tuple[float, float, float]]]:
        options = PoseLandmarkerOptions(base_options=BaseOptions(model_asset_path=str(path)), num_poses=most)
        try:
            with PoseLandmarker.create_from_options(options) as landmarker, understood(path):
                shown = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=numpy.ascontiguousarray(numpy.asarray(image)))
                found = landmarker.detect(shown)
        except (RuntimeError, ValueError, OSError) as error:
            raise Refused(f"{path} cannot be run by mediapipe {mediapipe.__version__} ({error}).") from error
        return [
            [(one.x * image.width, one.y * image.height, float(one.visibility or 0.0)) for one in person] for person in found.pose_landmarks
        ]

    return people
