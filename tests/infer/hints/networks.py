"""Small networks that prepare hints, with weights whose answer is known, in the layouts that are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from infer.hints.hed import CAFFE_MEAN, DEPTHS, NUMBERS

WIDTHS = (2, 2, 3, 3, 3)


def hed_tensors(seed: int = 0) -> dict[str, Any]:
    """Weights by neutral names (block, convolution): random ones."""
    import torch

    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Any:
        return torch.randn(shape, generator=generator) * 0.3

    named: dict[str, Any] = {}
    width = 3
    for block, depth in enumerate(DEPTHS):
        for one in range(depth):
            named[f"{block}.{one}"] = (random(WIDTHS[block], width, 3, 3), random(WIDTHS[block]))
            width = WIDTHS[block]
        named[f"map.{block}"] = (random(1, width, 1, 1), random(1))
    return named


def write_hed(path: Path, named: dict[str, Any], layout: str, *, joined: Any = None) -> Path:
    """A file in one of the layouts; `joined` is (weight (1, 5, 1, 1), bias) of the layouts that have it."""
    import torch
    from safetensors.torch import save_file

    joined = joined or (torch.full((1, 5, 1, 1), 0.2), torch.zeros(1))
    found: dict[str, Any] = {}

    def put(name: str, pair: Any) -> None:
        found[f"{name}.weight"], found[f"{name}.bias"] = (one.contiguous() for one in pair)

    for block, depth in enumerate(DEPTHS):
        for one in range(depth):
            place = 2 * one + (1 if block else 0)
            names = {"controlnet": f"block{block + 1}.convs.{one}", "pytorch-hed": f"moduleVgg{NUMBERS[block]}.{place}"}
            put(names[layout] if layout in names else f"block{block + 1}/layers/conv2d{f'_{one}' if one else ''}", named[f"{block}.{one}"])
        names = {"controlnet": f"block{block + 1}.projection", "pytorch-hed": f"moduleScore{NUMBERS[block]}"}
        put(names.get(layout, f"dsn{block + 1}"), named[f"map.{block}"])
    if layout == "controlnet":
        save_file({**found, "norm": torch.tensor(CAFFE_MEAN).reshape(1, 3, 1, 1)}, path)
        return path
    put("moduleCombine.0" if layout == "pytorch-hed" else "fuse", joined)
    if layout == "pytorch-hed":
        save_file(found, path)
    else:
        import h5py

        with h5py.File(path, "w") as file:
            for name, tensor in found.items():
                value = tensor.permute(2, 3, 1, 0) if tensor.ndim == 4 else tensor
                file[f"{name.rpartition('.')[0]}/vars/{0 if name.endswith('weight') else 1}"] = value.numpy()
    return path


def write_onnx(path: Path, weights: Any, side: int | None, *, rank: int = 4) -> Path:
    """An ONNX file that mixes the colours of an image by a 1 x 1 convolution (K, 3): maps (1, K, h, w), or (1, h, w) of rank 3."""
    import numpy
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    kernel = numpy.asarray(weights, dtype=numpy.float32).reshape(len(weights), 3, 1, 1)
    nodes = [helper.make_node("Conv", ["image", "kernel"], ["maps" if rank == 4 else "mixed"])]
    constants = [numpy_helper.from_array(kernel, "kernel")]
    shape: list[Any] = [1, len(weights), None, None]
    if rank == 3:
        nodes.append(helper.make_node("Squeeze", ["mixed", "axes"], ["maps"]))
        constants.append(numpy_helper.from_array(numpy.array([1]), "axes"))
        shape = [1, None, None]
    graph = helper.make_graph(
        nodes,
        "mix",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, side, side])],
        [helper.make_tensor_value_info("maps", TensorProto.FLOAT, shape)],
        initializer=constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 10
    onnx.save(model, str(path))
    return path


def tiny_depth(folder: Path) -> Path:
    """A depth model of transformers with its image processor: Depth Anything over a two-layer DINOv2."""
    import torch
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config, DPTImageProcessor

    backbone = Dinov2Config(
        hidden_size=16, num_hidden_layers=4, num_attention_heads=2, mlp_ratio=2, image_size=28, patch_size=14,
        out_indices=[1, 2, 3, 4], apply_layernorm=True, reshape_hidden_states=False,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(3)
        config = DepthAnythingConfig(
            backbone_config=backbone, patch_size=14, reassemble_hidden_size=16, reassemble_factors=[4, 2, 1, 0.5],
            neck_hidden_sizes=[8, 8, 8, 8], fusion_hidden_size=8, head_hidden_size=8,
        )  # fmt: skip
        DepthAnythingForDepthEstimation(config).save_pretrained(folder)
    DPTImageProcessor(size={"height": 28, "width": 28}, ensure_multiple_of=14, keep_aspect_ratio=True).save_pretrained(folder)
    return folder


def tiny_pose(folder: Path) -> Path:
    """A pose model of transformers with its image processor: ViTPose of two layers, COCO's 17 points."""
    import torch
    from transformers import VitPoseBackboneConfig, VitPoseConfig, VitPoseForPoseEstimation, VitPoseImageProcessor

    backbone = VitPoseBackboneConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=[64, 48], patch_size=[16, 16],
        out_indices=[2], num_labels=17,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(4)
        VitPoseForPoseEstimation(VitPoseConfig(backbone_config=backbone, num_labels=17)).save_pretrained(folder)
    VitPoseImageProcessor(size={"height": 64, "width": 48}).save_pretrained(folder)
    return folder


def tiny_detector(folder: Path) -> Path:
    """A network of transformers that finds objects, with its image processor: YOLOS of two layers that is sure of what it sees."""
    import torch
    from transformers import YolosConfig, YolosForObjectDetection, YolosImageProcessor

    config = YolosConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=[32, 32], patch_size=16,
        num_detection_tokens=8, id2label={0: "cat", 1: "person"}, label2id={"cat": 0, "person": 1},
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(5)
        network = YolosForObjectDetection(config)
        with torch.no_grad():
            network.vit.embeddings.detection_tokens.normal_()
            for head in (network.class_labels_classifier, network.bbox_predictor):
                for layer in head.layers:
                    layer.weight.mul_(25.0)
            network.class_labels_classifier.layers[-1].bias[2] = -1e4  # everything is something
        network.save_pretrained(folder)
    YolosImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder
