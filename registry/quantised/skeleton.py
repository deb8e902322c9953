"""Which linear layers of a model without weights its file keeps quantised: noted on the skeleton, whose layers are plain ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

from registry.quantised.codings import Kept
from registry.quantised.place import place_stored, single_layers
from registry.quantised.stored import FileCoding, StoredWeight

if TYPE_CHECKING:
    from torch import nn

    from registry.quantised.place import Weights

STORED = "stored_layers"  # the module's attribute


def note_stored(module: nn.Module, weights: Weights) -> None:
    """Note the quantised weights, on the meta device, of the linear layers that would keep them."""
    single = single_layers(module)
    kept = {name: weight for name, weight in weights if isinstance(weight, StoredWeight) and name in single}
    setattr(module, STORED, {name.removesuffix(".weight"): weight for name, weight in kept.items()})


def stored_layers(module: nn.Module) -> Mapping[str, StoredWeight]:
    """Name of a layer -> what its file keeps of it; {} where it keeps plain weights."""
    found: Mapping[str, StoredWeight] = getattr(module, STORED, {})
    return found


def keep_stored(module: nn.Module) -> None:
    """Put what was noted in place of a skeleton's layers, as in the loaded model."""
    single = single_layers(module)
    for name, weight in stored_layers(module).items():
        if f"{name}.weight" in single:
            place_stored(module, f"{name}.weight", weight, dtype=module.get_parameter(f"{name}.weight").dtype, keep=True)


def stored_titles(module: nn.Module, *, rounded: bool = False) -> dict[str, int]:
    """Title of a coding -> the layers that a file keeps in it, the most first: of a skeleton, or of a loaded model.

    `rounded`: without those whose codes are the model's own numbers.
    """
    from registry.quantised.linear import QuantisedLinear

    noted = stored_layers(module).values()
    codings: list[Kept] = [weight.coding for weight in noted]
    codings = codings or [layer.coding for layer in module.modules() if isinstance(layer, QuantisedLinear)]
    kept = (coding.title for coding in codings if isinstance(coding, FileCoding) and not (rounded and coding.exact))
    return dict(Counter(kept).most_common())
