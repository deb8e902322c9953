"""Weights that bitsandbytes quantised: nf4 and fp4 with their state beside them, and LLM.int8's rows.

`WEIGHT.quant_state.bitsandbytes__nf4` is a JSON as bytes with the shape and the size of a block; `WEIGHT.absmax` are the scales,
`WEIGHT.quant_map` the levels, `nested_absmax` and `nested_quant_map` those of scales that are quantised themselves (QuantState.as_dict of
bitsandbytes 0.50). `LAYER.SCB` are the largest numbers of the rows of an int8 matrix.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from registry.formats.quantised.packed import Found, Packed, Read, Tensors
from registry.formats.safetensors_header import DTYPE_BITS, TensorInfo
from registry.plain_values import from_json
from registry.quantised.four_bits import double_quantised, four_bits
from registry.quantised.scaled import scaled

if TYPE_CHECKING:
    from torch import Tensor

STATE = re.compile(r"(.+)\.quant_state\.bitsandbytes__(nf4|fp4)$")
MARK = ".quant_state.bitsandbytes__"  # in the key of every state: the shapes of a header with it are not the model's
LONGEST = 1 << 16  # bytes of a state; bitsandbytes writes some 200
BLOCKS = 1 << 16  # numbers of a block at most; bitsandbytes has up to 4096
LARGEST = 127  # of LLM.int8's codes: the largest number of a row


def find_four_bits(tensors: Tensors, read: Read, found: Found) -> None:
    """Add the nf4 and fp4 weights of a file to what was found."""
    for key, match in ((key, match) for key in tensors if (match := STATE.fullmatch(key))):
        weight, name = match.groups()
        found.beside.add(key)
        found.beside |= {beside for ending in ENDINGS if (beside := f"{weight}.{ending}") in tensors}
        state = _state(key, name, tensors, read, found)
        if state is not None:
            fault = _add(tensors, weight, name, state, found)
            found.faults += [fault] if fault else []


ENDINGS = ("absmax", "quant_map", "nested_absmax", "nested_quant_map")


def json_of(key: str, tensors: Tensors, read: Read) -> Any:
    """The value of a JSON that is stored as bytes. Raises ValueError."""
    if tensors[key].dtype != "U8" or tensors[key].elements > LONGEST:
        raise ValueError(f"{tensors[key].dtype} {tensors[key].shape}, and at most {LONGEST:,} bytes were expected")
    return from_json(bytes(read(key).tolist()))


def _are_sizes(sizes: Sequence[object]) -> bool:
    """Of a weight, then of its blocks and of those of its scales."""
    return all(type(size) is int and size > 0 for size in sizes) and all(isinstance(size, int) and size <= BLOCKS for size in sizes[-2:])


def _state(key: str, name: str, tensors: Tensors, read: Read, found: Found) -> dict[str, Any] | None:
    try:
        state = json_of(key, tensors, read)
        shape, block = state["shape"], state["blocksize"]
        sizes = [*shape, block, state.get("nested_blocksize", 1)]
        if state["quant_type"] == name and _are_sizes(sizes) and shape and block % 2 == 0:
            return dict(state)
        found.faults.append(f"{key} has quant_type {str(state['quant_type'])[:20]}, blocksize {str(block)[:20]}, shape {str(shape)[:40]}")
    except (ValueError, TypeError, KeyError) as error:
        found.faults.append(f"{key} is not a JSON with quant_type, blocksize and shape ({error})")
    return None


def _add(tensors: Tensors, weight: str, name: str, state: dict[str, Any], found: Found) -> str | None:
    """One weight; what is wrong with its tensors, if anything is."""
    shape, block = tuple(state["shape"]), state["blocksize"]
    nested = "nested_blocksize" in state
    missing = [one for one in (weight, *(f"{weight}.{ending}" for ending in ENDINGS[: 4 if nested else 2])) if one not in tensors]
    if missing:
        return f"{missing[0]} is missing"
    count, blocks = math.prod(shape), -(-math.prod(shape) // block)
    info = tensors[weight]
    if info.elements * DTYPE_BITS[info.dtype] // 8 != -(-count // 2):
        return f"{weight} is {info.dtype} {info.shape}, which is no {count:,} codes of 4 bits for {shape}"
    expected = {"absmax": blocks, "quant_map": 16}
    if nested:
        expected |= {"nested_absmax": -(-blocks // state["nested_blocksize"]), "nested_quant_map": 256}
    for ending, elements in expected.items():
        if tensors[f"{weight}.{ending}"].elements != elements:
            return f"{weight}.{ending} is {tensors[f'{weight}.{ending}'].shape}; {elements:,} numbers were expected"
    wanted = ["U8" if nested else "F32", "F32"]
    if [tensors[f"{weight}.{ending}"].dtype for ending in ENDINGS[:2]] != wanted:
        return f"{weight}.absmax and .quant_map are not {' and '.join(wanted)}"
    offset = state.get("nested_offset", 0.0)
    if not isinstance(offset, int | float):
        return f"{weight} has nested_offset {str(offset)[:20]}; a number was expected"
    coding = double_quantised(name, block, state["nested_blocksize"]) if nested else four_bits(name, block)
    found.packed[weight] = Packed(coding, TensorInfo("U8", shape), partial(_buffers, weight, block, float(offset) if nested else None))
    return None


def _buffers(weight: str, block: int, offset: float | None, read: Read) -> tuple[Tensor, ...]:
    import torch

    codes = read(weight).flatten().view(torch.uint8)
    codes = torch.nn.functional.pad(codes, (0, -len(codes) % (block // 2)))
    scales, levels = read(f"{weight}.absmax"), read(f"{weight}.quant_map")
    if offset is None:
        return codes, scales, levels
    nested = read(f"{weight}.nested_absmax").float(), read(f"{weight}.nested_quant_map").float()
    return codes, scales, levels, *nested, torch.tensor([offset], dtype=torch.float32, device=codes.device)


# --- LLM.int8


def find_rows(tensors: Tensors, found: Found) -> None:
    """Add the int8 weights of a file that have `SCB` to what was found."""
    import torch

    for key in (key for key in tensors if key.endswith(".SCB")):
        layer = key.removesuffix(".SCB")
        weight = f"{layer}.weight"
        found.beside |= {key, f"{layer}.weight_format"} & tensors.keys()
        info = tensors.get(weight)
        if info is None or info.dtype != "I8" or tensors[key].shape != info.shape[:1] or len(info.shape) != 2:
            found.faults.append(f"{key} {tensors[key].shape} is beside no int8 matrix of as many rows")
        else:
            coding = scaled("int8 (LLM.int8)", torch.int8)
            found.packed[weight] = Packed(coding, info, partial(_row_buffers, weight, key))


def _row_buffers(weight: str, key: str, read: Read) -> tuple[Tensor, ...]:
    import torch

    return read(weight).view(torch.uint8), (read(key).float() / LARGEST).reshape(-1, 1)
