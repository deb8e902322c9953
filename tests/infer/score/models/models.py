"""Embedding models small enough for a test: random towers of transformers, a TorchScript file, an ONNX file."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy
from PIL import Image

from tests import tiny

VISION = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 16, "patch_size": 8}
SIZE = {"height": 16, "width": 16}


def images(count: int, seed: int = 0) -> list[Image.Image]:
    """Images of four colours, some upright, some wide."""
    generator = numpy.random.default_rng(seed)
    small = [Image.fromarray(generator.integers(0, 256, (2, 2, 3), dtype=numpy.uint8)) for _ in range(count)]
    return [image.resize(((20, 30), (30, 20), (24, 24))[number % 3], Image.Resampling.NEAREST) for number, image in enumerate(small)]


def lively(model: Any) -> Any:
    """The model with weights so large that its vectors depend on the image."""
    import torch

    generator = torch.Generator().manual_seed(3)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.6
    return model.eval()


def clip(folder: Path) -> Any:
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    tokenizer = tiny.clip_tokenizer()
    text = {name: value for name, value in VISION.items() if name not in ("image_size", "patch_size")}
    text |= {"vocab_size": len(tokenizer), "max_position_embeddings": 20, "eos_token_id": tokenizer.eos_token_id}
    model = lively(CLIPModel(CLIPConfig(text_config=text, vision_config=VISION, projection_dim=8)))
    CLIPImageProcessor(size={"shortest_edge": 16}, crop_size=SIZE).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)
    return model


def dinov2(folder: Path) -> Any:
    from transformers import BitImageProcessor, Dinov2Config, Dinov2Model

    model = lively(
        Dinov2Model(Dinov2Config(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, mlp_ratio=2, image_size=16, patch_size=8))
    )
    BitImageProcessor(size={"shortest_edge": 18}, crop_size=SIZE).save_pretrained(folder)
    model.save_pretrained(folder)
    return model


def siglip(folder: Path) -> Any:
    from transformers import SiglipConfig, SiglipImageProcessor, SiglipModel

    tokenizer = tiny.clip_tokenizer()
    text = {name: value for name, value in VISION.items() if name not in ("image_size", "patch_size")}
    text |= {"vocab_size": len(tokenizer), "max_position_embeddings": 20, "projection_size": 16}
    model = lively(SiglipModel(SiglipConfig(text_config=text, vision_config=VISION)))
    SiglipImageProcessor(size=SIZE).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)
    return model


def dino(folder: Path) -> Any:
    """A ViT whose file has no weights of a pooler, as DINO's has none."""
    from transformers import ViTConfig, ViTImageProcessor, ViTModel

    model = lively(ViTModel(ViTConfig(**VISION), add_pooling_layer=False))
    ViTImageProcessor(size=SIZE).save_pretrained(folder)
    model.save_pretrained(folder)
    return model


def torchscript(file: Path, *, squares: bool = False) -> Any:
    """A convolution, pooled to eight numbers; with `squares` it takes no other shape."""
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self, fixed: bool) -> None:
            super().__init__()
            self.layers = nn.Conv2d(3, 8, 5, 3)
            self.fixed = fixed

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            if self.fixed:
                assert pixels.shape[2] == pixels.shape[3]
            found: torch.Tensor = self.layers(pixels)
            return found.relu().mean((2, 3))

    torch.manual_seed(1)
    model = Net(squares).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(model).save(str(file))  # type: ignore[no-untyped-call]
    return model


def onnx(file: Path, *, are_bytes: bool = False, side: int | None = 8) -> Any:
    """The weights (3, 5) by which the file maps an image's means: (1, 3, side, side) to (1, 5), of bytes (1, side, side, 3)."""
    from onnx import TensorProto, helper, numpy_helper, save

    weights = numpy.random.default_rng(2).normal(size=(3, 5)).astype(numpy.float32)
    shape: list[Any] = ["batch", side, side, 3] if are_bytes else ["batch", 3, side, side]
    nodes = [
        helper.make_node("Cast", ["image"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats", "axes"], ["means"], keepdims=0),
        helper.make_node("MatMul", ["means", "weights"], ["vector"]),
    ]
    initial = {"axes": numpy.array([1, 2] if are_bytes else [2, 3]), "weights": weights}
    graph = helper.make_graph(
        nodes,
        "means",
        [helper.make_tensor_value_info("image", TensorProto.UINT8 if are_bytes else TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("vector", TensorProto.FLOAT, ["batch", 5])],
        [numpy_helper.from_array(value, name) for name, value in initial.items()],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), file)
    return weights
