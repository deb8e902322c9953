"""A state dict read through a key map: every parameter is looked up in the file, checked, sliced, transposed and cast.

The only reader of its kind: single files, lone transformers and ControlNets refuse a missing or misshaped tensor in the same words.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from registry.budget.freed import give_back
from registry.errors import BadFile
from registry.formats.key_map import KeyLocation
from registry.formats.quantised.weights_file import is_converted, raw_reading
from registry.formats.safetensors_header import TensorInfo, read_header
from registry.printable import some
from registry.quantised.stored import StoredWeight

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

SHOWN = 3  # faults in a message; the rest are counted
Shape = tuple[int, ...]


def shapes_of(module: nn.Module) -> dict[str, Shape]:
    """Parameter and buffer names with their shapes, in the order of the state dict."""
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def check_mapped(
    path: Path,
    tensors: Mapping[str, TensorInfo],
    key_map: Mapping[str, KeyLocation],
    shapes: Mapping[str, Shape],
    *,
    component: str,
    hint: str,
    optional: Collection[str] = (),
    exact: bool = False,
) -> None:
    """Raise BadFile with the parameters that are missing from the file or have another shape there, all together.

    `optional` parameters may be missing; `exact` also refuses entries of the key map that are no parameter.
    """
    faults = list(_faults(tensors, key_map, shapes, optional))
    faults += [f"{name} is unexpected" for name in key_map if exact and name not in shapes]
    if faults:
        shown = some(faults, SHOWN, between="; ")
        raise BadFile(path, "wrong-config", f"its {component} does not fit its config: {shown}. {hint}")


def _faults(
    tensors: Mapping[str, TensorInfo], key_map: Mapping[str, KeyLocation], shapes: Mapping[str, Shape], optional: Collection[str]
) -> Iterator[str]:
    heights = _heights(key_map.values())
    for name, shape in shapes.items():
        location = key_map.get(name)
        if location is None or location.key not in tensors:
            if name not in optional:
                yield f"{name} is missing" + (f" ({location.key})" if location is not None and location.key != name else "")
            continue
        expected = shape[::-1] if location.transposed else shape
        if location.rows is not None:
            expected = (heights[location.key], *expected[1:])
        found = tuple(tensors[location.key].shape)
        if not same_numbers(found, expected):
            spelled = name if location.key == name else f"{name} ({location.key})"
            yield f"{spelled} is {found} where {expected} was expected"


def _heights(locations: Iterable[KeyLocation]) -> dict[str, int]:
    """Rows of each fused tensor: those of its last part."""
    heights: dict[str, int] = {}
    for location in locations:
        if location.rows is not None:
            heights[location.key] = max(heights.get(location.key, 0), location.rows[1])
    return heights


def same_numbers(shape: Shape, expected: Shape) -> bool:
    """Whether two shapes hold the same numbers in the same order: also a 1 x 1 convolution as a matrix, a matrix as one vector."""
    flat = len(shape) == 1 and len(expected) == 2 and shape[0] == expected[0] * expected[1]
    return flat or _without_ones(shape) == _without_ones(expected)


def _without_ones(shape: Shape) -> Shape:
    while len(shape) > 2 and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def read_mapped(
    path: Path,
    key_map: Mapping[str, KeyLocation],
    shapes: Mapping[str, Shape],
    *,
    dtype: torch.dtype,
    dtypes: Mapping[str, torch.dtype] | None = None,
) -> dict[str, Tensor]:
    """The parameters of the key map in these shapes and in `dtype`, but for those that `dtypes` names. Check them first.

    A file is mapped, so that its weights take memory as they are used, where it has most of them in that dtype; else it is read.
    """
    from safetensors import safe_open

    header = read_header(path)
    if is_converted((header.tensors[location.key] for name, location in key_map.items() if name in shapes), dtype):
        with raw_reading(path, header) as read:
            converted = cast("dict[str, Tensor]", dict(mapped(read, key_map, shapes, dtype=dtype, dtypes=dtypes)))
        give_back()
        return converted
    with safe_open(path, framework="pt") as file:
        return cast("dict[str, Tensor]", dict(mapped(file.get_tensor, key_map, shapes, dtype=dtype, dtypes=dtypes)))


def mapped(
    read: Callable[[str], Tensor | StoredWeight],
    key_map: Mapping[str, KeyLocation],
    shapes: Mapping[str, Shape],
    *,
    dtype: torch.dtype,
    dtypes: Mapping[str, torch.dtype] | None = None,
) -> Iterator[tuple[str, Tensor | StoredWeight]]:
    """The same one after another; `read` gives a weight of the file by its key. A quantised matrix is given as it is stored.

    The parts of a fused weight come together, and it is read once for all of them.
    """
    parts: dict[str, list[str]] = {}
    for name, location in key_map.items():
        if name in shapes:
            parts.setdefault(location.key, []).append(name)
    for key, names in parts.items():
        yield from _parts(read(key), {name: key_map[name] for name in names}, shapes, dtype, dtypes or {})


def _parts(
    weight: Tensor | StoredWeight,
    locations: Mapping[str, KeyLocation],
    shapes: Mapping[str, Shape],
    dtype: torch.dtype,
    dtypes: Mapping[str, torch.dtype],
) -> Iterator[tuple[str, Tensor | StoredWeight]]:
    """The parameters that one weight of the file holds."""
    stored = weight if isinstance(weight, StoredWeight) else None
    plain = None if isinstance(weight, StoredWeight) else weight
    for name, location in locations.items():
        kept = _stored(stored, location, shapes[name]) if stored is not None else None
        if kept is not None:
            yield name, kept
            continue
        if plain is None:
            assert stored is not None
            plain = stored.full()
        yield name, _placed(plain, location).reshape(shapes[name]).to(dtypes.get(name, dtype)).contiguous()


def _stored(weight: StoredWeight, location: KeyLocation, shape: Shape) -> StoredWeight | None:
    """A matrix's rows of what is stored, in the model's order; None where it has to be made first."""
    import torch

    if len(shape) != 2 or location.transposed or weight.matrix[1] != shape[1]:
        return None
    if location.rows is None and not location.swapped:
        return replace(weight, shape=shape)
    rows = torch.arange(*(location.rows or (0, weight.shape[0])))
    taken = weight.take(torch.cat(rows.chunk(2)[::-1]) if location.swapped else rows)
    return None if taken is None else replace(taken, shape=shape)


def _placed(tensor: Tensor, location: KeyLocation) -> Tensor:
    """A parameter's rows of the file's tensor, in the model's order."""
    import torch

    if location.rows is not None:
        tensor = tensor[location.rows[0] : location.rows[1]]
    if location.swapped:
        tensor = torch.cat(tensor.chunk(2)[::-1])
    return tensor.T if location.transposed else tensor
