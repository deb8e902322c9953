"""fp8 and int8 weights in safetensors files, with and without scales.

ComfyUI's first form has `LAYER.scale_weight` (and `scale_input`) and an empty tensor `scaled_fp8` as mark; its second `LAYER.weight_scale`
(and `input_scale`) with a JSON in `LAYER.comfy_quant`, or one for all layers in the header's `_quantization_metadata` (ComfyUI's
QUANTIZATION.md). compressed-tensors writes `weight_scale` a row, DeepSeek `weight_scale_inv` a block; in all of them the weight is codes
times scale. Scales of the inputs are for products of 8 bits, which are not made here: the products are those of the weight itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

from registry.formats.quantised.bitsandbytes import json_of
from registry.formats.quantised.packed import Found, Packed, Read, Tensors
from registry.formats.safetensors_header import TensorInfo
from registry.plain_values import from_json
from registry.quantised.scaled import codes_of, scale_shape, scaled, scaled_buffers, unscaled

SCALES = ("scale_weight", "weight_scale", "weight_scale_inv")
INPUTS = ("scale_input", "input_scale")
MARK = re.compile(r"(^|\.)scaled_fp8$")
CONFIG, METADATA = "comfy_quant", "_quantization_metadata"
FORMATS = ("float8_e4m3fn", "float8_e5m2", "int8_tensorwise")  # of ComfyUI: those that are codes times scale
WORDS = {"F8_E4M3": "fp8", "F8_E5M2": "fp8 e5m2", "I8": "int8"}
FLOATS = ("F64", "F32", "F16", "BF16")
TABLE = re.compile(r"(^|[._])(shared|embed\w*|embedding|\w+_embedding)\.weight$")  # of tokens and positions: no linear layer


def find_scaled(tensors: Tensors, metadata: Mapping[str, str], read: Read, found: Found) -> None:
    """Add the fp8 weights of a file, and its int8 weights that have a scale, to what was found."""
    configs = _configs(tensors, metadata, read, found)
    marked = {key for key in tensors if MARK.search(key)}
    found.beside |= marked
    known = found.packed.keys() | found.beside
    weights = {key: info for key, info in tensors.items() if info.dtype in WORDS and key not in known}
    places = {key: scale for key in weights if (scale := _scale_of(tensors, key)) is not None}
    for key, info in weights.items():
        layer = key.removesuffix(".weight")
        scale = places.get(key)
        if scale is not None:
            _add_scaled(tensors, key, scale, found)
        elif layer in configs or (_is_matrix(key, info) and (marked or places)):
            found.faults.append(f"{key} has no scale ({layer}.weight_scale or .scale_weight), but others of its weights have one")
        elif info.dtype != "I8" and info.shape:
            coding = unscaled(f"{WORDS[info.dtype]} without scales", _dtype(info))
            found.packed[key] = Packed(coding, info, partial(codes_of, key))
        elif info.dtype == "I8" and key.endswith(".weight"):
            found.faults.append(f"{key} is I8, and nothing says what its numbers are")
        found.beside |= {name for word in INPUTS if (name := f"{layer}.{word}") in tensors}
    odd = [key for key, info in tensors.items() if info.dtype == "U8" and key.endswith(".weight") and key not in found.packed]
    found.faults += [f"{key} is U8, and nothing says what its numbers are" for key in odd if not found.faults]
    lost = [key for key in tensors if key.rpartition(".")[2] in SCALES and key not in found.beside]
    found.faults += [f"{key} is beside no weight of 8 bits" for key in lost]


def _is_matrix(key: str, info: TensorInfo) -> bool:
    return key.endswith(".weight") and len(info.shape) == 2 and info.dtype != "I8" and not TABLE.search(key)


def _scale_of(tensors: Tensors, key: str) -> str | None:
    layer = key.removesuffix(".weight")
    return next((name for word in SCALES if layer != key and (name := f"{layer}.{word}") in tensors), None)


def _add_scaled(tensors: Tensors, key: str, scale: str, found: Found) -> None:
    info, beside = tensors[key], tensors[scale]
    found.beside.add(scale)
    blocks = scale_shape(info.shape, beside.shape) if info.shape else None
    if beside.dtype not in FLOATS:
        found.faults.append(f"{scale} is {beside.dtype}; a scale is F32, F16 or BF16")
    elif blocks is None:
        found.faults.append(f"{scale} is {beside.shape}, which is no scale of {key} {info.shape}: one, one a row or one a block")
    else:
        found.packed[key] = Packed(scaled(f"{WORDS[info.dtype]} scaled", _dtype(info)), info, partial(scaled_buffers, key, scale, blocks))


def _dtype(info: TensorInfo) -> Any:
    from registry.formats.atomic_file import torch_dtype

    return torch_dtype(info.dtype)


# --- what ComfyUI writes of each layer


def _configs(tensors: Tensors, metadata: Mapping[str, str], read: Read, found: Found) -> dict[str, Mapping[str, Any]]:
    """Layer -> its settings; those of another form than codes times scale are faults."""
    configs = _of_header(metadata, found)
    for key in (key for key in tensors if key.endswith(f".{CONFIG}")):
        found.beside.add(key)
        try:
            configs[key.removesuffix(f".{CONFIG}")] = dict(json_of(key, tensors, read))
        except (ValueError, TypeError) as error:
            found.faults.append(f"{key} is not a JSON object ({error})")
    for layer, config in configs.items():
        if config.get("format") not in FORMATS or config.get("convrot"):
            rotated = " with convrot" if config.get("convrot") else ""
            found.faults.append(f"{layer} is in {config.get('format')}{rotated}; {', '.join(FORMATS)} are read")
    return configs


def _of_header(metadata: Mapping[str, str], found: Found) -> dict[str, Mapping[str, Any]]:
    if METADATA not in metadata:
        return {}
    try:
        layers = from_json(metadata[METADATA])["layers"]
        return {str(layer): dict(config) for layer, config in layers.items()}
    except (ValueError, TypeError, KeyError, AttributeError):
        found.faults.append(f"the header's {METADATA} is not a JSON with the settings of layers")
        return {}
