"""Keypoints of people as JSON: OpenPose's own, what ControlNet's editors write, and COCO's, all as OpenPose's 18 points.

    {"people": [{"pose_keypoints_2d": [x, y, confidence, ...]}]}     18 points (BODY_18), 25 (BODY_25, OpenPose's default), 17 (COCO)
    with "canvas_width" and "canvas_height", as ControlNet's editors have it, or a list of one such
    [{"keypoints": [x, y, v, ...]}], or COCO's {"images": [...], "annotations": [...]}                 17 points (COCO)
    {"pose_landmarks": [[{"x": x, "y": y, "z": z, "visibility": v}, ...]]}                             33 points (MediaPipe)
    also "landmarks" and "poseLandmarks", as in JavaScript

A point with confidence (COCO: visibility) 0 is missing, one of MediaPipe below 0.5. Coordinates that are all from 0 to 1 are shares of the
image, as OpenPose writes them with --keypoint_scale 3, and so are MediaPipe's; all others are pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from registry.errors import Refused
from registry.plain_values import from_json
from registry.printable import counted
from registry.typed_values import is_number

Point = tuple[float, float]
Figure = tuple[Point | None, ...]  # of OpenPose's 18; None: missing

# OpenPose's BODY_18: nose, neck, right shoulder, elbow, wrist, left ones, right hip, knee, ankle, left ones, right eye, left eye, right
# ear, left ear
COUNT = 18
# COCO-17: nose, eyes, ears, shoulders, elbows, wrists, hips, knees, ankles, each left first. The neck (None) is the shoulders' mean.
OF_COCO = (0, None, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3)
COCO, COCO_SHOULDERS = 17, (5, 6)
# MediaPipe's 33: nose, eyes (inner, middle, outer), ears, mouth, shoulders, elbows, wrists, fingers, hips, knees, ankles, feet
OF_MEDIAPIPE = (0, None, 12, 14, 16, 11, 13, 15, 24, 26, 28, 23, 25, 27, 5, 2, 8, 7)
MEDIAPIPE, MEDIAPIPE_SHOULDERS = 33, (11, 12)
OF_LANDMARKS = ("pose_landmarks", "landmarks", "poseLandmarks")  # Python, JavaScript, the older JavaScript
FAR = 10.0  # image sizes: MediaPipe places points outside of the image, and none so far
VISIBLE = 0.5  # what MediaPipe itself draws a point from (drawing_utils)
OF_BODY_25 = (*range(8), *range(9, 19))  # without the middle of the hips (8) and the feet
FIELDS = ("x", "y", "visibility")  # of a point of MediaPipe's
MOST_PEOPLE = 1000

EXPECTED = (
    'Expected JSON such as OpenPose\'s {"people": [{"pose_keypoints_2d": [x, y, confidence, ...]}]} with 18, 25 or 17 (COCO) points, or'
    " COCO's [{\"keypoints\": [x, y, v, ...]}] with 17, or MediaPipe's"
    ' {"pose_landmarks": [[{"x": x, "y": y, "visibility": v}, ...]]} with 33.'
)


@dataclass(frozen=True)
class Figures:
    """People as OpenPose's 18 points: in pixels of the canvas, or as shares of it.

    `canvas` is (width, height) in pixels, None where the file does not say it; `others` are the parts that have points but are not read
    (hands, faces).
    """

    people: tuple[Figure, ...]
    canvas: tuple[int, int] | None
    shares: bool
    others: tuple[str, ...] = ()

    def points(self) -> list[Point]:
        """All points that are not missing."""
        return [point for one in self.people for point in one if point is not None]


def read_figures(data: bytes) -> Figures:
    """The people of a JSON file. Raises Refused with what is wrong."""
    try:
        plain = from_json(data)
    except (ValueError, RecursionError) as error:
        raise Refused(f"is no JSON ({error}). {EXPECTED}") from error
    if isinstance(plain, list) and len(plain) == 1 and isinstance(plain[0], dict) and "people" in plain[0]:
        plain = plain[0]
    records, canvas = _records(plain)
    if len(records) > MOST_PEOPLE:
        raise Refused(f"has {len(records):,} people; at most {MOST_PEOPLE:,} are drawn.")
    people = tuple(_figure(record, number) for number, record in enumerate(records, 1))
    found = Figures(people=people, canvas=canvas, shares=False, others=_others(records))
    if not (points := found.points()):
        raise Refused("has no point of anybody: all of them are missing (confidence 0). Nothing would be drawn.")
    shares = _is_of_mediapipe(plain)
    if shares and (fault := _no_shares(points)):
        raise Refused(fault)
    shares = shares or all(0 <= value <= 1 for point in points for value in point)
    return Figures(people=people, canvas=canvas, shares=shares, others=found.others)


def _records(plain: Any) -> tuple[list[Mapping[str, Any]], tuple[int, int] | None]:
    """A record for each person, and the canvas."""
    canvas = None
    if isinstance(plain, dict) and "people" in plain:
        canvas, found = _canvas(plain.get("canvas_width"), plain.get("canvas_height")), plain["people"]
    elif _is_of_mediapipe(plain):
        canvas = _canvas(plain.get("canvas_width"), plain.get("canvas_height"))
        name = next(name for name in OF_LANDMARKS if name in plain)
        found = _of_landmarks(plain[name], name)
    elif isinstance(plain, dict) and "annotations" in plain:
        images = plain.get("images")
        if not isinstance(images, list) or len(images) != 1 or not isinstance(images[0], dict):
            count = len(images) if isinstance(images, list) else "no"
            raise Refused(f"is a COCO file of {count} images. Expected a single one: put its annotations into a file of their own.")
        canvas, found = _canvas(images[0].get("width"), images[0].get("height")), plain["annotations"]
    else:
        found = plain
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise Refused(f"has no list of people. {EXPECTED}")
    if not found:
        raise Refused("has no people. Nothing would be drawn.")
    if len({one["image_id"] for one in found if isinstance(one.get("image_id"), int | str)}) > 1:
        raise Refused("has people of several images (image_id). Put those of one image into a file of their own.")
    return found, canvas


def _is_of_mediapipe(plain: Any) -> bool:
    """Whether it is a result of MediaPipe's pose landmarker: its x and y are shares of the image, outside of it too."""
    return isinstance(plain, dict) and any(name in plain for name in OF_LANDMARKS)


def _no_shares(points: Sequence[Point]) -> str | None:
    """Why MediaPipe's points are no shares of an image: none of them is in it, or most are far out of it."""
    inside = any(0 <= x <= 1 and 0 <= y <= 1 for x, y in points)
    far = sum(max(abs(x), abs(y)) > FAR for x, y in points)
    if inside and 2 * far <= len(points):
        return None
    values = [value for point in points for value in point]
    return (
        f"has x and y from {min(values):g} to {max(values):g}. MediaPipe's are shares of the image, 0 to 1 in it: these are out of it."
        ' Of pixels, divide x by the width and y by the height, or give [{"keypoints": [x, y, visibility, ...]}] with 33 points.'
    )


def _of_landmarks(people: Any, name: str) -> Any:
    """MediaPipe's people as records of numbers; one person's list of points is one."""
    rows = [people] if isinstance(people, list) and people and isinstance(people[0], dict) else people
    if not isinstance(rows, list) or not all(isinstance(row, list) and all(isinstance(one, dict) for one in row) for row in rows):
        raise Refused(f"has no lists of points in {name}. {EXPECTED}")
    for number, row in enumerate(rows, 1):
        if len(row) != MEDIAPIPE:
            raise Refused(f"has {counted(len(row), 'point')} in {name} of person {number}, {MEDIAPIPE} expected. {EXPECTED}")
        lacking = {place: wrong for place, one in enumerate(row) if (wrong := [field for field in FIELDS if not is_number(one.get(field))])}
        if lacking:
            place, wrong = next(iter(lacking.items()))
            of = f"point {place} (counted from 0) of person {number}" + (f", and in {len(lacking) - 1} more" if len(lacking) > 1 else "")
            raise Refused(f"has no number as {' and '.join(wrong)} in {name}: {of}. {EXPECTED}")
    return [{"keypoints": [one[field] for one in row for field in FIELDS]} for row in rows]


def _canvas(width: Any, height: Any) -> tuple[int, int] | None:
    if width is None and height is None:
        return None
    if type(width) is not int or type(height) is not int or not (0 < width <= 1 << 16 and 0 < height <= 1 << 16):
        raise Refused(f"has a canvas of {width!r} x {height!r}. Expected canvas_width and canvas_height in pixels.")
    return width, height


def _figure(record: Mapping[str, Any], number: int) -> Figure:
    name = "pose_keypoints_2d" if "pose_keypoints_2d" in record else "keypoints"
    values = record.get(name)
    if not isinstance(values, list) or not all(map(is_number, values)):
        raise Refused(f"has no numbers in {name} of person {number}. {EXPECTED}")
    if len(values) not in (54, 75, 51, 99):
        raise Refused(
            f"has {len(values)} numbers in {name} of person {number}: 3 times 18, 25, 17 (COCO) or 33 (MediaPipe) are known. {EXPECTED}"
        )
    if len(values) == 3 * MEDIAPIPE:
        return of_mediapipe([_point(values[start : start + 3], least=VISIBLE) for start in range(0, len(values), 3)])
    points = [_point(values[start : start + 3]) for start in range(0, len(values), 3)]
    if len(points) == COUNT:
        return tuple(points)
    if len(points) == 25:
        return tuple(points[index] for index in OF_BODY_25)
    return of_coco(points)


def _point(values: Sequence[float], *, least: float = 0.0) -> Point | None:
    x, y, confidence = values
    return (float(x), float(y)) if confidence > 0 and confidence >= least else None


def of_coco(points: Sequence[Point | None]) -> Figure:
    """OpenPose's 18 points of COCO's 17; the neck, which COCO has not, is the mean of both shoulders, missing without one of them."""
    return _with_neck(points, OF_COCO, COCO_SHOULDERS)


def of_mediapipe(points: Sequence[Point | None]) -> Figure:
    """OpenPose's 18 points of MediaPipe's 33, the neck as `of_coco` has it; mouth, fingers and feet are in none of the 18."""
    return _with_neck(points, OF_MEDIAPIPE, MEDIAPIPE_SHOULDERS)


def _with_neck(points: Sequence[Point | None], order: Sequence[int | None], shoulders: tuple[int, int]) -> Figure:
    left, right = (points[index] for index in shoulders)
    neck = ((left[0] + right[0]) / 2, (left[1] + right[1]) / 2) if left and right else None
    return tuple(neck if index is None else points[index] for index in order)


def _others(records: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    names = {"hand_left_keypoints_2d": "hands", "hand_right_keypoints_2d": "hands", "face_keypoints_2d": "faces"}
    found = {what: None for record in records for name, what in names.items() if isinstance(record.get(name), list) and record[name]}
    return tuple(found)
