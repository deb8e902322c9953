"""Faces found, turned, embedded and compared, by a real ONNX detector of YuNet's outputs that finds red squares."""

from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from PIL import Image, ImageDraw

from registry.errors import Refused
from tests.infer.score.models import models
from tests.train.judging.faces.yunet import yunet
from train.judging.faces.detector import open_detector, overlap
from train.judging.faces.likeness import face_likeness, set_faces
from train.judging.faces.reader import TEMPLATE, FaceReader, aligned, face_faults, open_faces
from train.run_report.model_tables import is_measured, model_tables
from train.run_report.set_images import SetImage

RED, PINK, BLUE = (255, 0, 0), (255, 70, 50), (0, 0, 255)


def drawn(colour: tuple[int, int, int], *, corner: tuple[int, int] = (32, 0)) -> Image.Image:
    """A blue image with one square of a cell in it: a face where it is red enough."""
    image = Image.new("RGB", (64, 64), BLUE)
    image.paste(colour, (*corner, corner[0] + 32, corner[1] + 32))
    return image


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> tuple[FaceReader, Any]:
    """Both models, and the weights of the embedding: from the mean of each colour to five numbers."""
    place = tmp_path_factory.mktemp("faces")
    weights = models.onnx(place / "arc.onnx", side=112)
    yunet(place / "yunet.onnx")
    return open_faces(str(place / "arc.onnx"), str(place / "yunet.onnx"), device=torch.device("cpu")), weights


def wanted(colour: tuple[int, int, int], weights: Any) -> Any:
    vector = ((numpy.array(colour) - 127.5) / 127.5) @ weights
    return vector / numpy.linalg.norm(vector)


def test_the_largest_face_is_turned_and_embedded(reader: tuple[FaceReader, Any]) -> None:
    faces, weights = reader
    (found,) = faces.detector.faces(drawn(PINK).resize((256, 256), Image.Resampling.NEAREST))
    assert found.box == pytest.approx((128, 0, 128, 128)) and found.score == pytest.approx((255 - 60) / 255, abs=0.01)
    assert found.points[0] == pytest.approx((128 + 128 * TEMPLATE[0][0] / 112, 128 * TEMPLATE[0][1] / 112))
    vector = faces.vector(drawn(PINK))
    assert vector is not None and float(vector @ wanted(PINK, weights)) > 0.99 > float(vector @ wanted(BLUE, weights))
    assert faces.vector(Image.new("RGB", (80, 50), BLUE)) is None
    assert overlap((0, 0, 2, 2), (1, 0, 2, 2)) == pytest.approx(1 / 3) and overlap((0, 0, 1, 1), (2, 2, 1, 1)) == 0


def test_faces_are_those_of_opencv(reader: tuple[FaceReader, Any]) -> None:
    """cv2.FaceDetectorYN of OpenCV 5.0.0 on the same file and image, at the same thresholds."""
    image = drawn(PINK)
    image.paste(RED, (0, 32, 32, 64))
    first, second = reader[0].detector.faces(image)
    assert first.score == pytest.approx(1.0) and first.box == pytest.approx((0, 32, 32, 32))
    assert first.points.ravel() == pytest.approx(
        [10.941315, 46.77037, 21.009085, 46.714684, 16.0072, 52.49617, 11.871229, 58.390144, 20.208542, 58.34403], abs=1e-4
    )
    assert second.score == pytest.approx(0.7647091, abs=1e-6) and second.box == pytest.approx((32, 0, 32, 32))


def test_points_come_to_the_template_whatever_the_turn_and_size() -> None:
    turn = 3.1 * numpy.exp(1j * 0.7)
    spots = (numpy.array(TEMPLATE) + 0.5) @ numpy.array([1, 1j]) * turn + (260 + 40j)
    points = numpy.stack([spots.real, spots.imag], 1)
    image, colours = Image.new("RGB", (600, 600)), [(250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 250, 0), (0, 250, 250)]
    for (x, y), colour in zip(points, colours, strict=True):
        ImageDraw.Draw(image).ellipse((x - 12, y - 12, x + 12, y + 12), fill=colour)
    face = aligned(image, points, 112)
    assert face is not None and face.size == (112, 112)
    for (x, y), colour in zip(TEMPLATE, colours, strict=True):
        assert numpy.abs(numpy.array(face.getpixel((round(x), round(y)))) - colour).max() < 30
    assert aligned(image, numpy.ones((5, 2)), 112) is None


def test_likeness_has_intervals_and_counts_what_has_no_face(reader: tuple[FaceReader, Any]) -> None:
    faces, weights = reader
    every = [("a", RED), ("b", RED), ("c", PINK), ("d", BLUE)]
    found = set_faces(faces, [SetImage(name, "", "", drawn(colour)) for name, colour in every])
    assert found.without == ("d",) and "no face was found in 1 image of the set: d" in found.notes()[0]
    one, two = wanted(RED, weights), wanted(PINK, weights)
    assert found.among == pytest.approx((1 + 2 * one @ two) / 3, abs=0.01)
    same = [[drawn(RED), drawn(RED, corner=(0, 32))] for _ in range(5)]
    other = [[drawn(PINK), drawn(PINK)] for _ in range(5)]
    other[0][1] = drawn(BLUE)
    table = face_likeness(faces, found, {0: other, 10: same, 20: [[drawn(BLUE)] * 2] * 5})
    base, good, none = table.rows
    assert [row.faces for row in table.rows] == [9, 10, 0] and none.similarity is None and none.to_base is None
    assert good.similarity is not None and good.similarity.value == pytest.approx((2 + one @ two) / 3, abs=0.01)
    assert base.similarity is not None and base.to_base is None and good.to_base is not None and good.to_base.side == "above"
    assert "likeness to the set's is largest at step 10" in table.sentence() and "above the base's" in table.sentence()
    value = {"images": 10, "faces": table.to_json()}
    assert is_measured(value) and not is_measured({"faces": {"checkpoints": []}})
    (shown,) = model_tables(value)
    assert [row[0] for row in shown.rows] == ["base", "10", "20", "the set"] and shown.rows[2][1] == "none of 10"
    few = face_likeness(faces, found, {0: other[:2], 10: same[:2]})
    assert "these images cannot tell it from the base's" in few.sentence()
    with pytest.raises(Refused, match="a face was found in 1 of the set's 2 images"):
        set_faces(faces, [SetImage("a", "", "", drawn(RED)), SetImage("b", "", "", drawn(BLUE))])


def test_what_is_no_model_of_faces_is_refused_before_it_is_used(tmp_path: Path) -> None:
    models.onnx(tmp_path / "means.onnx")
    assert face_faults(None, None) == [] and "--faces needs --face-detector" in face_faults("a.onnx", None)[0]
    assert "--face-detector needs --faces" in face_faults(None, "a.onnx")[0]
    assert "there is no such file" in " ".join(face_faults(str(tmp_path / "a.onnx"), str(tmp_path / "means.onnx")))
    with pytest.raises(Refused, match=r"has no outputs cls_8, .*Expected YuNet's face detector of 2023 or later"):
        open_detector(tmp_path / "means.onnx")
