"""What keeps an adapter from being applied whole, whatever it is applied to: asked by fuse, combine, conversion, drawing and `fits`."""

from __future__ import annotations

from collections.abc import Sequence

from registry.adapters.delta import tensor_fault
from registry.adapters.peft_settings import STARTS
from registry.adapters.reader import Adapter
from registry.errors import Refused
from registry.formats.adapter_keys import is_addressed
from registry.printable import counted, some

SHOWN = 3


def adapter_faults(adapter: Adapter) -> list[str]:
    """One sentence for each reason why a part of its change would be lost; [] when all of it is understood.

    Textual inversion embeddings beside the modules are left to the caller, and so are tensors that no part of a model is named by.
    """
    found: dict[str, list[str]] = {}
    for module in adapter.modules:
        if module.algorithm != "embedding" and (fault := tensor_fault(module)):
            found.setdefault(fault, []).append(module.name)
    faults = [f"{names[0]} {fault}{_more(names)}" for fault, names in found.items()]
    if others := [key for key in other_keys(adapter) if is_addressed(key)]:
        faults.append(
            f"{len(others)} of its tensors are not an adapter's and replace the model's own, which is not read here: {some(others)}. "
            "peft saves such for modules_to_save, bias and trainable_token_indices. Merge it with peft: merge_and_unload()."
        )
    return faults


def refuse_unconvertible(adapter: Adapter) -> None:
    """Raise Refused where another file could not hold the whole of its change."""
    faults = adapter_faults(adapter)
    if started := [module for module in adapter.modules if module.start]:
        kind = STARTS[started[0].start]
        faults.append(
            f"it was trained by {kind}: {counted(len(started), 'module')} began as a part of the base, "
            "and alone their factors are another adapter. "
            "Fuse it into its base and extract the difference (loraloom lora fuse, lora extract), or save it with peft as a plain LoRA "
            "(path_initial_model_for_weight_conversion)."
        )
    if faults:
        raise Refused(f"{adapter.path.name} cannot be converted in full: {' '.join(faults[:SHOWN])}")


def other_keys(adapter: Adapter) -> list[str]:
    """Keys of none of its modules."""
    strange = {key for module in adapter.modules for key in module.strange}
    return [key for key in adapter.left if key not in strange]


def left_out(adapter: Adapter) -> list[str]:
    """What is not applied of an adapter that is otherwise understood."""
    return [key for key in other_keys(adapter) if not is_addressed(key)]


def _more(names: Sequence[str]) -> str:
    return f" So {'is' if len(names) == 2 else 'are'} {counted(len(names) - 1, 'more module')}." if len(names) > 1 else ""
