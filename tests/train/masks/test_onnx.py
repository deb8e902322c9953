"""Segmentation models as ONNX files, written here: their answer is that of the formula."""

from pathlib import Path
from typing import Any

import numpy
import pytest
from PIL import Image

from registry.errors import Refused
from train.masks.segmenters import ModelOptions, open_segmenter


def dark_is_kept(file: Path, *, classes: int = 1) -> Path:
    """logits = 8 (.5 - mean over the channels), for one class; of two classes the first has 0."""
    import onnx
    from onnx import TensorProto, helper

    values: dict[str, Any] = {"axes": ([1], TensorProto.INT64), "half": ([0.5], TensorProto.FLOAT), "slope": ([8.0], TensorProto.FLOAT)}
    constants = [helper.make_tensor(name, kind, [1], value) for name, (value, kind) in values.items()]
    nodes = [
        helper.make_node("ReduceMean", ["image", "axes"], ["mean"], keepdims=1),
        helper.make_node("Sub", ["half", "mean"], ["below"]),
        helper.make_node("Mul", ["below", "slope"], ["one"]),
        helper.make_node("Sub", ["one", "one"], ["zero"]),
        helper.make_node("Concat", ["zero", "one"] if classes == 2 else ["one"], ["logits"], axis=1),
    ]
    source = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, "h", "w"])
    target = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, classes, "h", "w"])
    graph = helper.make_graph(nodes, "dark", [source], [target], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), file)
    return file


PLAIN: dict[str, Any] = {"size": 8, "mean": (0.0, 0.0, 0.0), "deviation": (1.0, 1.0, 1.0)}


@pytest.mark.parametrize(("classes", "labels"), [(1, ()), (2, ("1",))])
def test_the_answer_is_the_formula(tmp_path: Path, classes: int, labels: tuple[str, ...]) -> None:
    values = numpy.zeros((8, 8, 3), numpy.uint8)
    values[:, 4:] = 255
    model = open_segmenter(str(dark_is_kept(tmp_path / "dark.onnx", classes=classes)), ModelOptions(labels=labels, **PLAIN))
    found = model(Image.fromarray(values))
    high, low = 1 / (1 + numpy.exp(-4.0)), 1 / (1 + numpy.exp(4.0))
    numpy.testing.assert_allclose(found, numpy.where(values[..., 0] == 0, high, low), atol=1e-6)


def test_classes_without_names_are_chosen_by_number(tmp_path: Path) -> None:
    file = dark_is_kept(tmp_path / "dark.onnx", classes=2)
    with pytest.raises(Refused, match=r"2 classes and none is the background: choose with --label\. There are: 0 class 0, 1 class 1"):
        open_segmenter(str(file), ModelOptions())


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"no model")
    with pytest.raises(Refused, match="could not be understood"):
        open_segmenter(str(tmp_path / "a.onnx"), ModelOptions())
