"""Hints by networks: HED in its layouts, depth and pose by ONNX files and folders of transformers."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import pytest
from PIL import Image

from infer.draw.input_images import InputImages
from infer.hints.alone import one_hint
from infer.hints.depth import depth, faults_of_depth, open_depth
from infer.hints.hed import faults_of_hed, open_hed, soft_edges
from infer.hints.hints import Hints
from infer.hints.methods import PREPARE
from infer.hints.person_detector import faults_of_detector, open_detector
from infer.hints.pose import faults_of_pose, open_pose, pose
from infer.hints.setting import read_prepare
from infer.hints.stick_figure import COLOURS
from registry.errors import BadFile, Faults, Refused
from tests.infer.conftest import Shelf
from tests.infer.hints.networks import hed_tensors, tiny_depth, tiny_detector, tiny_pose, write_hed, write_onnx


def photo(size: tuple[int, int] = (48, 36)) -> Image.Image:
    pixels = numpy.random.default_rng(5).integers(0, 256, (size[1], size[0], 3), dtype=numpy.uint8)
    return Image.fromarray(pixels)


def test_the_three_layouts_of_hed_are_one_network(tmp_path: Path) -> None:
    """Weights on red, green, blue as ControlNetHED has them; the others' on blue, green, red."""
    named = hed_tensors()
    turned = {name: (weight.flip(1) if name == "0.0" else weight, bias) for name, (weight, bias) in named.items()}
    files = {
        "controlnet": write_hed(tmp_path / "a.safetensors", named, "controlnet"),
        "pytorch-hed": write_hed(tmp_path / "b.safetensors", turned, "pytorch-hed"),
        "keras": write_hed(tmp_path / "c.weights.h5", turned, "keras"),
    }
    image = photo((33, 47))  # sides that no pooling divides
    made = {}
    for layout, file in files.items():
        assert faults_of_hed(file) == []
        made[layout] = numpy.asarray(soft_edges(image, open_hed(file, "cpu")))
    assert made["controlnet"].shape == (47, 33, 3) and made["controlnet"].std() > 1
    assert (made["controlnet"] == made["pytorch-hed"]).all() and (made["controlnet"] == made["keras"]).all()


def test_hed_is_the_papers_network(tmp_path: Path) -> None:
    """VGG-16's blocks behind 2 x 2 pooling, an edge map at each, joined by 1 x 1 weights, as torch's own modules compute it."""
    import torch
    from torch import nn

    named = hed_tensors(1)
    joined = torch.tensor([0.5, -0.2, 0.3, 0.1, 0.4]).reshape(1, 5, 1, 1), torch.tensor([0.1])
    file = write_hed(tmp_path / "b.safetensors", named, "pytorch-hed", joined=joined)
    image = photo((32, 48))
    hidden: Any = torch.from_numpy(numpy.array(image)[..., ::-1].astype(numpy.float32))  # blue, green, red
    hidden = (hidden - torch.tensor([104.00699, 116.66877, 122.67892])).permute(2, 0, 1)[None]
    maps = []
    for block, depth_of in enumerate((2, 2, 3, 3, 3)):
        layers: list[nn.Module] = [nn.MaxPool2d(2)] if block else []
        for one in range(depth_of):
            weight, bias = named[f"{block}.{one}"]
            layer = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1)
            layer.load_state_dict({"weight": weight, "bias": bias})
            layers += [layer, nn.ReLU()]
        hidden = nn.Sequential(*layers)(hidden)
        weight, bias = named[f"map.{block}"]
        maps.append(nn.Upsample(size=(48, 32), mode="bilinear")(torch.einsum("bchw,oc->bohw", hidden, weight[..., 0, 0]) + bias))
    expected = torch.sigmoid(sum(share * one for share, one in zip(joined[0].flatten(), maps, strict=True)) + 0.1)[0, 0]
    found = numpy.asarray(soft_edges(image, open_hed(file, "cpu")))[..., 0]
    assert abs(found - expected.detach().numpy() * 255).max() < 1.01  # cut to whole numbers


def test_what_is_no_hed_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file
    from torch import zeros

    save_file({"conv.weight": zeros(1)}, tmp_path / "other.safetensors")
    whole = hed_tensors()
    whole["map.2"] = (zeros(1, 7, 1, 1), zeros(1))
    write_hed(tmp_path / "odd.safetensors", whole, "controlnet")
    for name in ("a.pth", "a.txt"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "bad.h5").write_bytes(b"no HDF5")
    assert "its tensors are no HED network's (conv.weight" in faults_of_hed(tmp_path / "other.safetensors")[0]
    assert "is a pickle" in faults_of_hed(tmp_path / "a.pth")[0]
    assert "there is no file" in faults_of_hed(tmp_path / "none.safetensors")[0]
    assert "is no HED network" in faults_of_hed(tmp_path / "a.txt")[0]
    for name in ("odd.safetensors", "bad.h5"):
        with pytest.raises(BadFile, match="Expected a HED network"):
            open_hed(tmp_path / name, "cpu")


@pytest.mark.parametrize("rank", [3, 4])
def test_depth_by_an_onnx_file_is_white_where_it_is_near(tmp_path: Path, rank: int) -> None:
    """A network whose nearness is the red of a pixel; as distances, the other way round."""
    file = write_onnx(tmp_path / "depth.onnx", [[1, 0, 0]], 4, rank=rank)
    image = Image.new("RGB", (4, 4), (0, 255, 0))
    image.paste((255, 0, 0), (0, 0, 2, 4))
    assert faults_of_depth(file) == []
    network = open_depth(file, "cpu")
    assert numpy.asarray(depth(image, network, model=str(file)))[0, :, 0].tolist() == [255, 255, 0, 0]
    assert numpy.asarray(depth(image, network, model=str(file), invert=True))[0, :, 0].tolist() == [0, 0, 255, 255]
    assert not numpy.asarray(depth(Image.new("RGB", (4, 4)), network, model=str(file))).any()  # flat: nothing is nearer
    assert depth(image.resize((20, 10)), network, model=str(file)).size == (20, 10)


def test_depth_by_a_folder_of_transformers(tmp_path: Path) -> None:
    """The library's own pipeline scales by the largest value; ours by both ends."""
    import torch
    from transformers import AutoImageProcessor, AutoModelForDepthEstimation

    folder, image = tiny_depth(tmp_path / "depth"), photo((42, 28))
    assert faults_of_depth(folder) == []
    found = numpy.asarray(depth(image, open_depth(folder, "cpu"), model=str(folder)), dtype=float)[..., 0]
    processor, network = AutoImageProcessor.from_pretrained(folder), AutoModelForDepthEstimation.from_pretrained(folder)
    with torch.no_grad():
        answer = network(**processor(images=image, return_tensors="pt"))
    expected = processor.post_process_depth_estimation(answer, target_sizes=[(28, 42)])[0]["predicted_depth"].numpy()
    expected = (expected - expected.min()) / (expected.max() - expected.min()) * 255
    assert found.shape == (28, 42) and found.min() == 0 and found.max() == 255
    assert abs(found - expected).max() <= 8  # the library scales before it rounds to bytes


def test_pose_by_an_onnx_file_of_heatmaps(tmp_path: Path) -> None:
    """A network that finds the nose at the reddest pixel, both shoulders at the greenest, and nothing else."""
    weights = [[0.0, 0.0, 0.0]] * 17
    weights[0], weights[5], weights[6] = [1, 0, 0], [0, 1, 0], [0, 1, 0]
    file = write_onnx(tmp_path / "pose.onnx", weights, 64)
    image = Image.new("RGB", (64, 32))
    image.paste((255, 0, 0), (30, 4, 31, 5))
    image.paste((0, 255, 0), (30, 20, 31, 21))
    assert faults_of_pose(file) == []
    network = open_pose(file, "cpu")
    (points,) = network(image)
    assert points[0][:2] == (30.5, 4.5) and points[5][:2] == points[6][:2] == (30.5, 20.5)  # letterboxed by 16 rows
    made = numpy.asarray(pose(image.resize((512, 256), Image.Resampling.NEAREST), network, model=str(file), confidence=0.5))
    assert tuple(made[36, 244]) == COLOURS[0] and tuple(made[164, 244]) == COLOURS[5]
    assert tuple(made[100, 244]) == tuple(int(value * 0.6) for value in COLOURS[12])  # the neck, between the shoulders, to the nose
    with pytest.raises(Refused, match="no point of a person is found"):
        pose(Image.new("RGB", (64, 32)), network, model=str(file), confidence=0.9)


def test_pose_by_a_folder_of_transformers(tmp_path: Path) -> None:
    import torch
    from transformers import VitPoseForPoseEstimation, VitPoseImageProcessor

    folder, image = tiny_pose(tmp_path / "pose"), photo((48, 64))
    assert faults_of_pose(folder) == []
    (found,) = open_pose(folder, "cpu")(image)
    processor, network = VitPoseImageProcessor.from_pretrained(folder), VitPoseForPoseEstimation.from_pretrained(folder)
    frame = [[[0, 0, 48, 64]]]
    with torch.no_grad():
        answer = network(**processor(images=image, boxes=frame, return_tensors="pt"))
    expected = processor.post_process_pose_estimation(answer, boxes=frame)[0][0]
    assert [point[:2] for point in found] == [tuple(one) for one in expected["keypoints"].tolist()]
    assert [point[2] for point in found] == expected["scores"].flatten().tolist()
    assert pose(image, open_pose(folder, "cpu"), model=str(folder), confidence=0.0).size == (48, 64)


def test_a_detector_gives_the_frames_of_people(tmp_path: Path) -> None:
    """The boxes of transformers' own post-processing, those of its label person alone, and a pose in each of them."""
    import torch
    from transformers import AutoImageProcessor, AutoModelForObjectDetection

    folder, image = tiny_detector(tmp_path / "yolos"), photo((96, 64))
    assert faults_of_detector(folder) == []
    frames = open_detector(folder, "cpu")(image)
    processor, network = AutoImageProcessor.from_pretrained(folder), AutoModelForObjectDetection.from_pretrained(folder)
    with torch.no_grad():
        answer = network(**processor(images=image, return_tensors="pt"))
    (found,) = processor.post_process_object_detection(answer, threshold=0.5, target_sizes=[(64, 96)])
    people = found["labels"] == 1
    assert len(frames) == int(people.sum()) > 1 and int((~people).sum()) > 0
    for left, top, wide, high in frames:
        assert 0 <= left <= left + wide <= 96 and 0 <= top <= top + high <= 64
    poses = open_pose(tiny_pose(tmp_path / "pose"), "cpu")
    together = replace(poses, frames=lambda _image: frames)
    assert [len(one) for one in together(image)] == [17] * len(frames) and len(together(image, 1)) == 1
    assert poses.in_frame is not None and together(image, 1)[0] == poses.in_frame(image, frames[0])
    with pytest.raises(Refused, match="no person is found by"):
        pose(image, replace(poses, frames=lambda _image: []), model="m", detector="d")


def test_an_onnx_network_sees_the_frame_alone(tmp_path: Path) -> None:
    """The reddest pixel of the frame, wider by a quarter, and not the redder one outside of it."""
    weights = [[0.0, 0.0, 0.0]] * 17
    weights[0] = [1, 0, 0]
    network = open_pose(write_onnx(tmp_path / "pose.onnx", weights, 64), "cpu")
    image = Image.new("RGB", (200, 100))
    image.paste((255, 0, 0), (10, 10, 12, 12))
    image.paste((200, 0, 0), (120, 60, 124, 64))
    assert network.in_frame is not None
    x, y, _sure = network.in_frame(image, (100.0, 40.0, 40.0, 40.0))[0]
    assert abs(x - 122) <= 2 and abs(y - 62) <= 2


def test_the_content_of_a_detector_is_part_of_the_key(shelf: Shelf, tmp_path: Path) -> None:
    hints = Hints(InputImages(tmp_path / "pictures"), tmp_path / "hints", shelf.store.file_sha256)
    model, detector = tiny_pose(tmp_path / "pose"), tiny_detector(tmp_path / "yolos")

    def pinned(**options: Any) -> Any:
        prepare = read_prepare({"name": "pose", "model": str(model), **options})
        assert prepare is not None
        return hints.resolved(prepare).pinned()

    (alone, two) = (pinned(), pinned(detector=str(detector), people=2))
    assert PREPARE["pose"].network is not None
    assert alone == [
        "pose",
        {"confidence": 0.3, "stick": 4.0},
        hints._content(PREPARE["pose"].network, model),
    ]  # as before there were detectors
    assert alone[2] != two[2] and str(tmp_path) not in json.dumps(two)
    image = photo((96, 64))
    image.save(tmp_path / "photo.png")
    prepare = read_prepare({"name": "pose", "model": str(model), "detector": str(detector), "confidence": 0.0})
    assert prepare is not None
    made = one_hint(str(tmp_path / "photo.png"), prepare, shelf.store, size=None, fit=None, device="cpu")
    assert made.image.size == (96, 64) and made.image.getbbox() is not None
    with pytest.raises(Faults, match="without a detector the whole image is the frame of one person"):
        pinned(people=2)
    with pytest.raises(Faults, match=r"prepare: pose: detector: there is no"):
        pinned(detector=str(tmp_path / "pictures"))


def test_a_task_of_mediapipe_is_checked_before_it_is_run(tmp_path: Path) -> None:
    from importlib.util import find_spec

    with zipfile.ZipFile(tmp_path / "pose.task", "w") as made:
        made.writestr("pose_detector.tflite", b"x")
    assert "it has no pose_landmarks_detector.tflite" in faults_of_pose(tmp_path / "pose.task")[0]
    (tmp_path / "bad.task").write_bytes(b"no zip")
    assert "is no .task file of MediaPipe" in faults_of_pose(tmp_path / "bad.task")[0]
    with zipfile.ZipFile(tmp_path / "whole.task", "w") as made:
        for name in ("pose_detector.tflite", "pose_landmarks_detector.tflite"):
            made.writestr(name, b"x")
    found = faults_of_pose(tmp_path / "whole.task")
    assert found == [] if find_spec("mediapipe") else "pip install 'loraloom[pose]'" in found[0]
    values = {"model": "pose.task", "detector": "folder", "people": None}
    assert PREPARE["pose"].check(values) == "MediaPipe finds the people itself. Leave detector out"


def test_what_is_no_depth_or_pose_network_is_refused(tmp_path: Path) -> None:
    (tmp_path / "clip").mkdir()
    (tmp_path / "clip" / "config.json").write_text(json.dumps({"model_type": "clip"}))
    for check, what in ((faults_of_depth, "depth model"), (faults_of_pose, "pose model")):
        assert f"model_type is 'clip', which is no {what} of transformers" in check(tmp_path / "clip")[0]
        assert len(check(tmp_path / "clip")) == 3  # no weights, no image processor
        assert "there is no" in check(tmp_path / "none")[0]
        assert "is no model of transformers" in check(tmp_path)[0]
    (tmp_path / "bad.onnx").write_bytes(b"no ONNX")
    assert "could not be understood" in faults_of_depth(tmp_path / "bad.onnx")[0]
    open_end = write_onnx(tmp_path / "open.onnx", [[1, 0, 0]] * 17, None)
    with pytest.raises(Refused, match="has no size of its own"):
        open_pose(open_end, "cpu")


def test_the_whole_image_is_a_frame_only_where_nothing_finds_people() -> None:
    note = PREPARE["pose"].note
    assert "the whole image as the frame of one person" in note({"model": "vitpose", "detector": None})
    assert note({"model": "vitpose", "detector": "detr"}) == note({"model": "pose.task", "detector": None}) == ""
    assert "MediaPipe" in PREPARE["keypoints"].summary
