"""A tiny ONNX file with the outputs of YuNet's face detector: each cell of 32 pixels that is red is a face."""

from pathlib import Path

import numpy

from train.judging.faces.reader import SIDE, TEMPLATE


def yunet(file: Path, *, side: int = 64, everywhere: bool = False) -> None:
    """Write it. `everywhere`: every cell is a face."""
    from onnx import TensorProto, helper, numpy_helper, save

    nodes = [helper.make_node("Conv", ["input", "colours", "bias"], ["red"])]
    initial = {
        "colours": numpy.array([-0.5, -0.5, 1.0], dtype=numpy.float32).reshape(1, 3, 1, 1) / 255 * (not everywhere),  # blue, green, red
        "bias": numpy.array([float(everywhere)], dtype=numpy.float32),
        "zero": numpy.float32(0.0),
        "boxes": numpy.array([0.5, 0.5, 0.0, 0.0], dtype=numpy.float32).reshape(1, 1, 4),  # the cell itself
        "points": numpy.array(TEMPLATE, dtype=numpy.float32).reshape(1, 1, 10) / SIDE,
        "flat": numpy.array([1, -1, 1], dtype=numpy.int64),
    }
    outputs = []
    for stride in (8, 16, 32):
        cells = (side // stride) ** 2
        initial[f"used_{stride}"] = numpy.float32(stride == 32)
        nodes += [
            helper.make_node("AveragePool", ["red"], [f"mean_{stride}"], kernel_shape=[stride] * 2, strides=[stride] * 2),
            helper.make_node("Mul", [f"mean_{stride}", f"used_{stride}"], [f"found_{stride}"]),
            helper.make_node("Reshape", [f"found_{stride}", "flat"], [f"cls_{stride}"]),
            helper.make_node("Identity", [f"cls_{stride}"], [f"obj_{stride}"]),
            helper.make_node("Mul", [f"cls_{stride}", "zero"], [f"none_{stride}"]),
            helper.make_node("Add", [f"none_{stride}", "boxes"], [f"bbox_{stride}"]),
            helper.make_node("Add", [f"none_{stride}", "points"], [f"kps_{stride}"]),
        ]
        for part, width in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)):
            outputs.append(helper.make_tensor_value_info(f"{part}_{stride}", TensorProto.FLOAT, [1, cells, width]))
    graph = helper.make_graph(
        nodes,
        "squares",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, side, side])],
        outputs,
        [numpy_helper.from_array(numpy.asarray(value), name) for name, value in initial.items()],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), file)
