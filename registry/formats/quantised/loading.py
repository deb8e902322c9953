"""A model on the meta device gets its weights from a file, kept as the file stores them; for a plan their sizes alone."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import TYPE_CHECKING

from registry.formats.key_map import KeyLocation
from registry.formats.quantised.weights_file import WeightsFile, packed_titles
from registry.formats.state_dict import mapped, read_mapped, shapes_of
from registry.quantised.checks import refuse_requantised
from registry.quantised.place import fill
from registry.quantised.skeleton import note_stored

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from registry.quantised.layers import Choose


def load_mapped(
    module: nn.Module,
    file: WeightsFile,
    key_map: Mapping[str, KeyLocation],
    *,
    component: str,
    dtype: torch.dtype,
    dtypes: Mapping[str, torch.dtype] | None = None,
    choose: Choose | None,
    empty: bool,
    others: Mapping[str, Tensor] | None = None,
) -> None:
    """The parameters of the key map, checked before, and `others` that the file does not have.

    `choose`: the layers that are quantised as they are read; those that are quantised in the file need none. `empty`: no weight is read.
    Nothing of a VAE stays quantised.
    """
    shapes = shapes_of(module)
    keep = component != "vae"
    if choose is not None:
        refuse_requantised(component, packed_titles(file.packed, {location.key for location in key_map.values()}, rounded=True))
    if empty and not keep:
        return
    if empty:
        packed = {name: location for name, location in key_map.items() if location.key in file.packed}
        note_stored(module, mapped(file.sizes, packed, shapes, dtype=dtype))
    elif file.mapped and choose is None and not any(location.key in file.packed for location in key_map.values()):
        given = read_mapped(file.path, key_map, shapes, dtype=dtype, dtypes=dtypes)
        module.load_state_dict({**(others or {}), **given}, strict=True, assign=True)
    else:
        with file.reading() as read:
            weights = mapped(read, key_map, shapes, dtype=dtype, dtypes=dtypes)
            fill(module, chain((others or {}).items(), weights), choose, dtype=dtype, dtypes=dtypes, keep=keep)
