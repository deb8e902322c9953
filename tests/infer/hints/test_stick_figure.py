"""Keypoints of JSON files, and the stick figures that are drawn of them."""

import json
from collections.abc import Sequence
from typing import Any

import numpy
import pytest

from infer.hints.figures import OF_COCO, Figures, read_figures
from infer.hints.hints import placed
from infer.hints.stick_figure import COLOURS, LIMBS, keypoints
from registry.errors import Refused

# a standing figure of OpenPose's 18 points on 512 x 512
POINTS = [
    *((256, 60), (256, 120), (200, 125), (170, 200), (150, 270), (312, 118), (345, 190), (380, 240), (222, 270), (215, 370), (205, 470)),
    *((290, 272), (300, 365), (312, 475), (242, 48), (270, 47), (226, 56), (286, 54)),
]
# pixels that controlnet_aux 0.0.10's draw_bodypose gives a limb of this figure, in the order of LIMBS
REFERENCE = (392, 377, 565, 515, 556, 423, 1090, 719, 711, 1105, 653, 785, 415, 101, 97, 107, 94)


def person(points: Sequence[tuple[float, float]], missing: tuple[int, ...] = ()) -> list[float]:
    return [
        value for number, point in enumerate(points) for value in (*((0, 0) if number in missing else point), float(number not in missing))
    ]


def openpose(points: list[float], **others: Any) -> bytes:
    return json.dumps({"people": [{"pose_keypoints_2d": points}], **others}).encode()


def drawn(figures: Figures, size: tuple[int, int] = (512, 512), fit: str | None = None) -> Any:
    return numpy.asarray(keypoints(placed(figures, size, fit), size))


def colours(pixels: Any) -> dict[tuple[int, ...], int]:
    packed, counts = numpy.unique(pixels.astype(numpy.int64) @ (1 << 16, 1 << 8, 1), return_counts=True)
    return {(int(one) >> 16, int(one) >> 8 & 255, int(one) & 255): int(count) for one, count in zip(packed, counts, strict=True)}


def test_limbs_and_points_have_the_colours_and_the_size_of_controlnet_aux() -> None:
    counted = colours(drawn(read_figures(openpose(person(POINTS)))))
    for colour, reference in zip(COLOURS, REFERENCE, strict=False):
        limb = tuple(int(value * 0.6) for value in colour)
        assert abs(counted[limb] - reference) <= 0.12 * reference, colour  # ours are not rounded to whole pixels and degrees
    assert all(45 <= counted[colour] <= 65 for colour in COLOURS)  # reference: 49
    assert len(counted) == 1 + 17 + 18


@pytest.mark.parametrize("missing", range(18))
def test_a_missing_point_leaves_out_its_limbs_and_only_those(missing: int) -> None:
    found = colours(drawn(read_figures(openpose(person(POINTS, (missing,))))))
    gone = {tuple(int(value * 0.6) for value in colour) for pair, colour in zip(LIMBS, COLOURS, strict=False) if missing in pair}
    every = colours(drawn(read_figures(openpose(person(POINTS)))))
    assert set(every) - set(found) == gone | {COLOURS[missing]}


def test_it_is_drawn_at_the_size_of_the_drawing() -> None:
    figures = read_figures(openpose(person(POINTS), canvas_width=512, canvas_height=512))
    whole, small = drawn(figures), drawn(figures, (64, 64))
    assert small.shape == (64, 64, 3)
    blocks = whole.reshape(64, 8, 64, 8, 3).mean(axis=(1, 3))
    assert abs(blocks - small).max() <= 1  # as the large one scaled down
    assert tuple(drawn(figures, (256, 512), "crop")[60, 128]) == COLOURS[0]  # its middle: 128 pixels less on the left
    wide = drawn(figures, (1024, 512), "stretch")
    assert tuple(wide[60, 512]) == COLOURS[0]


def test_shares_are_of_the_canvas_and_without_one_of_the_drawing() -> None:
    shares = person([(x / 512, y / 512) for x, y in POINTS])
    expected = drawn(read_figures(openpose(person(POINTS))))
    assert (drawn(read_figures(openpose(shares))) == expected).all()
    assert (drawn(read_figures(openpose(shares, canvas_width=512, canvas_height=512))) == expected).all()


def coco_points() -> list[tuple[float, float]]:
    points = [(0.0, 0.0)] * 17
    for mine, its in enumerate(OF_COCO):
        if its is not None:
            points[its] = POINTS[mine]
    return points


def test_the_neck_of_coco_is_the_mean_of_the_shoulders() -> None:
    """COCO's order is its own documentation's: nose, left eye, right eye, left ear, ..., left hip first."""
    points = person(coco_points())
    assert points[3:6] == [270, 47, 1.0] and points[15:18] == [312, 118, 1.0] and points[48:51] == [205, 470, 1.0]
    for given in (
        [{"image_id": 7, "keypoints": points, "score": 0.9}],
        {"images": [{"id": 7, "width": 512, "height": 512}], "annotations": [{"image_id": 7, "keypoints": points}]},
        {"people": [{"pose_keypoints_2d": points}]},
        [{"people": [{"pose_keypoints_2d": points}], "canvas_width": 512, "canvas_height": 512}],
    ):
        (found,) = read_figures(json.dumps(given).encode()).people
        neck = found[1]
        assert neck is not None and list(neck) == [256, 121.5]
        assert [point for number, point in enumerate(found) if number != 1] == [point for number, point in enumerate(POINTS) if number != 1]
    (found,) = read_figures(json.dumps([{"keypoints": person(coco_points(), (5,))}]).encode()).people  # without the left shoulder
    assert found[1] is None and found[5] is None and found[2] == POINTS[2]


def test_body_25_is_read_without_its_feet() -> None:
    """OpenPose's default has the middle of the hips as point 8 and feet behind the ears."""
    points = [*POINTS[:8], (256.0, 271.0), *POINTS[8:], *[(1.0, 1.0)] * 6]
    (found,) = read_figures(openpose(person(points))).people
    assert list(found) == POINTS


@pytest.mark.parametrize(
    ("data", "reported"),
    [
        (b"\x89PNG", "is no JSON"),
        (b"[" * 100_000, "is no JSON"),
        (b"7", "has no list of people"),
        (b'{"people": []}', "has no people"),
        (b'{"people": [7]}', "has no list of people"),
        (b'{"people": [{}]}', "has no numbers in keypoints of person 1"),
        (b'{"people": [{"pose_keypoints_2d": [1, 2]}]}', "has 2 numbers"),
        (b'{"people": [{"pose_keypoints_2d": ["1"]}]}', "has no numbers"),
        (openpose([float("nan")] * 54), "has no numbers"),
        (openpose([0.0] * 54), "no point of anybody"),
        (openpose(person(POINTS), canvas_width=512), "canvas of 512 x None"),
        (openpose(person(POINTS), canvas_width=-1, canvas_height=4), "canvas of -1 x 4"),
        (b'[{"keypoints": [], "image_id": 1}, {"keypoints": [], "image_id": 2}]', "people of several images"),
        (b'{"annotations": [], "images": [{}, {}]}', "a COCO file of 2 images"),
    ],
)
def test_what_is_no_keypoints_is_refused(data: bytes, reported: str) -> None:
    with pytest.raises(Refused, match=reported):
        read_figures(data)


def test_mediapipe_s_points_are_openpose_s() -> None:
    """Each of the 33 at its own place: the neck between the shoulders, mouth, fingers and feet left out, one below 0.5 missing."""
    points = [{"x": number / 100, "y": 0.5, "z": 0.0, "visibility": 0.9, "presence": 1.0} for number in range(33)]
    points[13]["visibility"] = 0.4
    points[27]["x"] = 1.2  # out of the image: a share all the same
    read = read_figures(json.dumps({"pose_landmarks": [points], "canvas_width": 200, "canvas_height": 100}).encode())
    expected = [0, 11.5, 12, 14, 16, 11, None, 15, 24, 26, 28, 23, 25, 120, 5, 2, 8, 7]
    assert read.shares and read.canvas == (200, 100)
    assert [one and round(one[0] * 100, 6) for one in read.people[0]] == expected
    flat = [value for one in points for value in (one["x"], one["y"], one["visibility"])]
    assert read_figures(json.dumps([{"keypoints": flat}]).encode()).people == read.people
    assert read_figures(json.dumps({"landmarks": points}).encode()).people == read.people
    assert read_figures(json.dumps({"poseLandmarks": points}).encode()).people == read.people


def test_what_is_wrong_with_mediapipe_s_points_is_named() -> None:
    points = [{"x": number / 100, "y": 0.5, "visibility": 0.9} for number in range(33)]

    def changed(place: int, **values: Any) -> list[dict[str, Any]]:
        return [{**one, **values} if at == place else one for at, one in enumerate(points)]

    pixels: list[Any] = [{**one, "x": 512 * one["x"], "y": 256.0} for one in points]
    bare = [{name: value for name, value in one.items() if name != "visibility"} for one in points]
    garbled: list[tuple[Any, str]] = [
        ({"pose_landmarks": 3}, "no lists of points in pose_landmarks"),
        ({"pose_landmarks": [points[:32]]}, "has 32 points in pose_landmarks of person 1, 33 expected"),
        ({"poseLandmarks": []}, "has no people"),
        ({"landmarks": [points, changed(4, x=None)]}, r"no number as x in landmarks: point 4 \(counted from 0\) of person 2\."),
        ({"landmarks": bare}, r"no number as visibility in landmarks: point 0 \(counted from 0\) of person 1, and in 32 more"),
        ({"landmarks": pixels}, "has x and y from 0 to 256. MediaPipe's are shares of the image"),
        ({"landmarks": [*pixels[:-1], {**pixels[-1], "x": 0.5, "y": 0.5}]}, "divide x by the width"),  # one is in the image
        ({"landmarks": [{**one, "x": one["x"] + 1.5} for one in points]}, "from 0.5 to 1.78"),  # near it, and nothing in it
    ]
    for wrong, message in garbled:
        with pytest.raises(Refused, match=message):
            read_figures(json.dumps(wrong).encode())
    flat = [value for one in pixels for value in (one["x"], one["y"], one["visibility"])]  # as the message says
    assert not read_figures(json.dumps([{"keypoints": flat}]).encode()).shares
