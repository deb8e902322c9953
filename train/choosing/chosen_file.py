"""The adapter that was chosen, as a file of its own: the checkpoint's tensors, and the recommended weight in the header.

The checkpoint itself stays as it is: a resume verifies it by its hash. ModelSpec has `usage_hint` for advice on use; A1111 and Forge read
`preferred weight` of a JSON file beside the adapter.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from infer.draw.values import number
from registry.formats.atomic_file import RawTensor, write_json, write_raw
from registry.formats.safetensors_header import open_regular, read_header
from registry.references import without_blank
from train.choosing.choice import FOLDER, Choice
from train.loop import checkpoint

if TYPE_CHECKING:
    from registry.record import Record
    from registry.store import Store

WEIGHT = "loraloom.recommended_weight"


def keep_chosen(choice: Choice, step: int, weight: float | None, *, votes: int, store: Store) -> Record:
    """Write and register the adapter of a step, `<run>/choosing/NAME-step-N.safetensors`. The same choice again gives the same bytes."""
    source = choice.run.checkpoints[step] / checkpoint.ADAPTER
    name = f"{choice.name}-step-{step}"
    target = choice.run.folder / FOLDER / f"{name}.safetensors"
    hashes = copy_with(source, target, weight, votes=votes)
    triggers = without_blank(store.find(str(source)).triggers)
    sidecar = target.with_suffix(".json")
    if weight is not None:
        write_json(sidecar, {"preferred weight": weight, **({"activation text": ", ".join(triggers)} if triggers else {})})
    else:
        sidecar.unlink(missing_ok=True)
    seen = store.find(str(target))
    run = {"role": "run", "ref": str(choice.run.folder), "sha256": None}
    parents = [*(dict(parent) for parent in seen.parents if parent.get("role") != "run"), run]
    return store.add(target, name=name, kind="adapter", family=seen.family, parents=parents, triggers=triggers, sha256=hashes)


def copy_with(source: Path, target: Path, weight: float | None, *, votes: int) -> str:
    """Write the file's tensors, bit for bit, under its header with the weight; gives the sha256 of what was written."""
    header = read_header(source)
    with open_regular(source) as file:
        data = memoryview(file.read())[header.data_start :]
    tensors = {name: RawTensor(info.dtype, tuple(info.shape), data[slice(*header.offsets[name])]) for name, info in header.tensors.items()}
    metadata = {key: value for key, value in header.metadata.items() if key not in (WEIGHT, "modelspec.usage_hint")}
    if weight is not None:
        metadata |= {WEIGHT: json.dumps(weight), "modelspec.usage_hint": f"weight {number(weight)}, preferred in {votes} blind votes"}
    return str(write_raw(target, tensors, metadata=metadata).sha256)
