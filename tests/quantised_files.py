"""Files that are quantised already, written by the public descriptions of their forms, and beside each the same weights wide."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2
Quantised = tuple[dict[str, Tensor], Tensor]  # what a file has of a layer, by the ending of the key; the weight that it is


def per_tensor(weight: Tensor, *, name: str, dtype: torch.dtype = E4M3) -> Quantised:
    scale = weight.abs().max() / torch.finfo(dtype).max
    codes = (weight / scale).to(dtype)
    return {"weight": codes, name: scale}, codes.float() * scale


def comfy_old(weight: Tensor) -> Quantised:
    """ComfyUI's first form, with the scale of the inputs."""
    parts, wide = per_tensor(weight, name="scale_weight")
    return {**parts, "scale_input": torch.ones(())}, wide


def comfy_new(weight: Tensor) -> Quantised:
    """ComfyUI's second form: a JSON a layer, as bytes."""
    parts, wide = per_tensor(weight, name="weight_scale")
    mark = torch.tensor(list(json.dumps({"format": "float8_e4m3fn", "full_precision_matrix_mult": True}).encode()), dtype=torch.uint8)
    return {**parts, "comfy_quant": mark, "input_scale": torch.ones(())}, wide


def rows(weight: Tensor) -> Quantised:
    """compressed-tensors': a bf16 scale a row."""
    scale = (weight.abs().amax(1, keepdim=True) / 448).to(torch.bfloat16)
    codes = (weight / scale.float()).clamp(-448, 448).to(E4M3)
    return {"weight": codes, "weight_scale": scale}, codes.float() * scale.float()


def blocks(weight: Tensor) -> Quantised:
    """DeepSeek's: a scale for each of 2 x 2 blocks of rows and columns."""
    tall, wide = (2 if size % 2 == 0 else 1 for size in weight.shape)
    tiles = weight.reshape(tall, len(weight) // tall, wide, -1)
    scale = tiles.abs().amax((1, 3)) / 448
    codes = (tiles / scale[:, None, :, None]).to(E4M3)
    return {"weight": codes.reshape(weight.shape), "weight_scale_inv": scale}, (codes.float() * scale[:, None, :, None]).reshape(
        weight.shape
    )


def int8(weight: Tensor) -> Quantised:
    """ComfyUI's int8_tensorwise."""
    scale = weight.abs().max() / 127
    codes = (weight / scale).round().to(torch.int8)
    return {"weight": codes, "weight_scale": scale}, codes.float() * scale


def plain(weight: Tensor, dtype: torch.dtype = E4M3) -> Quantised:
    codes = weight.to(dtype)
    return {"weight": codes}, codes.float()


FORMS: dict[str, tuple[Callable[[Tensor], Quantised], dict[str, Tensor], str]] = {  # writer, marks, the coding's title
    "comfy_old": (comfy_old, {"scaled_fp8": torch.empty(2, dtype=E4M3)}, "fp8 scaled"),
    "comfy_new": (comfy_new, {}, "fp8 scaled"),
    "rows": (rows, {}, "fp8 scaled"),
    "blocks": (blocks, {}, "fp8 scaled"),
    "int8": (int8, {}, "int8 scaled"),
    "plain": (plain, {}, "fp8 without scales"),
    "plain_e5m2": (lambda weight: plain(weight, E5M2), {}, "fp8 e5m2 without scales"),
}


def is_layer(key: str, tensor: Tensor) -> bool:
    """Whether a published quantised file would have codes of it: matrices of the blocks."""
    return key.endswith(".weight") and tensor.ndim == 2 and any(char.isdigit() for char in key) and "embed" not in key


def quantised_file(source: Path, out: Path, form: str, *, prefix: str = "") -> tuple[Path, Path]:
    """(the file in a form, the same weights in fp32), of those matrices of a safetensors file whose key begins with the prefix."""
    write, marks, _title = FORMS[form]
    tensors: dict[str, Tensor] = {f"{prefix}{name}": mark for name, mark in marks.items()}
    wide: dict[str, Tensor] = {}
    for key, tensor in load_file(source).items():
        tensors[key] = wide[key] = tensor
        if key.startswith(prefix) and is_layer(key, tensor):
            parts, wide[key] = write(tensor.float())
            tensors |= {f"{key.removesuffix('weight')}{ending}": part.clone() for ending, part in parts.items()}
    return saved(tensors, out, source), saved(wide, out.with_name(f"wide-{out.name}"), source)


def saved(tensors: dict[str, Any], out: Path, source: Path) -> Path:
    with safe_open(source, framework="pt") as file:
        metadata = file.metadata()
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, out, metadata=metadata)
    return out


# --- GGUF, by its own package


def gguf_file(source: Path, out: Path, kind: str, *, prefix: str = "", architecture: str = "flux") -> tuple[Path, Path]:
    """(a GGUF file of the tensors below a prefix, without it; the same weights in fp32), matrices in a type such as Q4_0.

    As ComfyUI-GGUF writes them: what has no rows of whole blocks stays in fp16, a convolution's rows are blocks of its numbers in a row.
    """
    import gguf
    import numpy as np
    from gguf import quants

    chosen = gguf.GGMLQuantizationType[kind]
    size = gguf.GGML_QUANT_SIZES[chosen][0]
    writer, wide = gguf.GGUFWriter(out, architecture), {}
    for key, tensor in load_file(source).items():
        name, numbers = key.removeprefix(prefix), tensor.float().numpy()
        if not key.startswith(prefix):
            wide[key] = tensor
        elif tensor.ndim == 4 and tensor.numel() % size == 0:
            data = quants.quantize(numbers.reshape(-1, size), chosen)
            writer.add_array(f"comfy.gguf.orig_shape.{name}", list(tensor.shape))
            writer.add_tensor(name, data, raw_dtype=chosen)
            wide[key] = torch.from_numpy(quants.dequantize(data, chosen)).reshape(tensor.shape)
        elif is_layer(key, tensor) and tensor.shape[1] % size == 0:
            data = quants.quantize(numbers, chosen)
            writer.add_tensor(name, data, raw_dtype=chosen)
            wide[key] = torch.from_numpy(quants.dequantize(data, chosen))
        else:
            half = numbers.astype(np.float16) if tensor.ndim > 1 else numbers
            writer.add_tensor(name, half)
            wide[key] = torch.from_numpy(half.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return out, saved(wide, out.with_suffix(".safetensors"), source)


# --- bitsandbytes: codes are those of our nf4, which are its own bit for bit


def nf4(weight: Tensor, *, nested: bool = False) -> Quantised:
    """As QuantState.as_dict(packed=True) names the parts; with `nested` the scales are codes of 8 bits in blocks of 256."""
    from registry.quantised.codings import CODINGS, NF4_LEVELS

    codes, scales = CODINGS["nf4"].quantise(weight)
    shape: tuple[int, int] = (weight.shape[0], weight.shape[1])
    state: dict[str, Any] = {"quant_type": "nf4", "blocksize": 64, "dtype": "float32", "shape": list(shape)}
    parts = {"weight": codes[: (weight.numel() + 1) // 2, None], "weight.absmax": scales, "weight.quant_map": torch.tensor(NF4_LEVELS)}
    if nested:
        offset, levels = float(scales.mean()), torch.linspace(-1, 1, 256)
        blocks = torch.nn.functional.pad(scales - offset, (0, -len(scales) % 256)).reshape(-1, 256)
        largest = blocks.abs().amax(1)
        shares = (blocks / largest.clamp(min=1e-9)[:, None]).flatten()[: len(scales)]
        picked = (shares[:, None] - levels).abs().argmin(1).to(torch.uint8)
        scales = levels[picked.long()] * largest.repeat_interleave(256)[: len(scales)] + torch.tensor(offset)
        state |= {"nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": offset}
        parts |= {"weight.absmax": picked, "weight.nested_absmax": largest, "weight.nested_quant_map": levels}
    parts["weight.quant_state.bitsandbytes__nf4"] = torch.tensor(list(json.dumps(state).encode()), dtype=torch.uint8)
    return parts, CODINGS["nf4"].dequantise(codes, scales, shape)


FORMS["nf4"] = (nf4, {}, "nf4")
FORMS["nf4_double"] = (lambda weight: nf4(weight, nested=True), {}, "nf4 (double quantisation)")
