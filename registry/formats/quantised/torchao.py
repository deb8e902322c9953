"""Weights that torchao quantised, as it flattens its tensors for safetensors; diffusers' and transformers' save_pretrained write them so.

`LAYER._weight_qdata` are the codes, `_weight_scale` their scales, `_weight_zero_point` zeros. The header's metadata has a JSON for each
weight with the class of its tensor and the size of its blocks (torchao 0.18, prototype/safetensors).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from registry.formats.atomic_file import torch_dtype
from registry.formats.quantised.packed import Found, Packed, Read, Tensors
from registry.plain_values import from_json
from registry.quantised.scaled import scale_shape, scaled, scaled_buffers

if TYPE_CHECKING:
    from collections.abc import Sequence

MARK = "._weight_qdata"  # in the key of every weight: in the header it is not under the model's own name
PARTS = "._weight_"
NEEDED, ZEROS = ("qdata", "scale"), "zero_point"
OF_PRODUCTS = ("act_quant_scale", "act_quant_zero_point")  # of the inputs: the products here are those of the weight itself
CLASSES = {"Int8Tensor": ("I8",), "IntxUnpackedToInt8Tensor": ("I8",), "Float8Tensor": ("F8_E4M3", "F8_E5M2")}
TITLES = {"I8": "int8 (torchao)", "F8_E4M3": "fp8 (torchao)", "F8_E5M2": "fp8 e5m2 (torchao)"}
FLOATS = ("F32", "F16", "BF16")


def find_torchao(tensors: Tensors, metadata: Mapping[str, str], read: Read, found: Found) -> None:
    """Add the int8 and float8 weights that torchao wrote to what was found. Its other tensors are faults, by their class."""
    for layer in (key.removesuffix(MARK) for key in tensors if key.endswith(MARK)):
        begin = f"{layer}{PARTS}"
        parts = {part: f"{begin}{part}" for part in (*NEEDED, ZEROS, *OF_PRODUCTS) if f"{begin}{part}" in tensors}
        found.beside |= set(parts.values())
        if f"{layer}.weight" in tensors:
            found.faults.append(f"{layer}.weight is there twice: as it is, and as torchao's codes")
            continue
        try:
            found.packed[f"{layer}.weight"] = _packed(parts, metadata.get(f"{layer}.weight"), tensors, read)
        except ValueError as error:
            found.faults.append(f"{layer}.weight {error}")


def _packed(parts: Mapping[str, str], declared: str | None, tensors: Tensors, read: Read) -> Packed:
    """One weight. Raises ValueError with what is wrong with it."""
    name, block, names = _declared(declared)
    if name not in CLASSES:
        raise ValueError(f"is torchao's {name[:40]}; {', '.join(CLASSES)} are read")
    missing = [part for part in NEEDED if part not in parts]
    other = [part for part in names if part not in (*NEEDED, ZEROS, *OF_PRODUCTS)]
    if missing or other:
        raise ValueError(f"has no {missing[0]}" if missing else f"has {other[0][:40]} beside codes, scales and zero points")
    codes, scale = tensors[parts["qdata"]], tensors[parts["scale"]]
    if codes.dtype not in CLASSES[name] or len(codes.shape) != 2:
        raise ValueError(f"has codes in {codes.dtype} {codes.shape}; a matrix of {' or '.join(CLASSES[name])} was expected")
    shape = scale_shape(codes.shape, scale.shape)
    if scale.dtype not in FLOATS or shape is None or block != [size // count for size, count in zip(codes.shape, shape, strict=True)]:
        raise ValueError(f"has scales in {scale.dtype} {scale.shape}, which are not those of blocks of {str(block)[:40]} in {codes.shape}")
    if ZEROS in parts and bool(read(parts[ZEROS]).any()):
        raise ValueError("is quantised asymmetrically (its zero points are not 0)")
    coding = scaled(TITLES[codes.dtype], torch_dtype(codes.dtype))
    return Packed(coding, codes, partial(scaled_buffers, parts["qdata"], parts["scale"], shape))


def _declared(declared: str | None) -> tuple[str, object, Sequence[str]]:
    """Class, block_size and the names of the tensors. Raises ValueError."""
    if declared is None:
        raise ValueError("has torchao's codes, and the header's metadata, which had its class, is gone")
    try:
        value = from_json(declared)
        names = value["_tensor_data_names"]
        return str(value["_type"]), value["_data"].get("block_size"), [str(name) for name in names]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError("has metadata that is not torchao's: a JSON with _type, _data and _tensor_data_names") from error
