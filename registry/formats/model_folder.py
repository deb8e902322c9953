"""A model's folder on the disk: its small JSON files, the weights a component is loaded from, everything below it."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from registry.errors import BadFile
from registry.formats.safetensors_header import TensorInfo, open_regular, read_header
from registry.plain_values import from_json

JSON_LIMIT = 16 << 20  # bytes of a config or index file


def read_json(path: Path) -> dict[str, Any]:
    """The object in a small JSON file, its texts storable. Raises BadFile."""
    if not path.exists():
        raise BadFile(path, "not-a-model", "is missing. Copy the whole folder again.")
    with open_regular(path) as file:
        raw = file.read(JSON_LIMIT + 1)
    if len(raw) > JSON_LIMIT:
        raise BadFile(path, "not-a-model", f"is longer than the {JSON_LIMIT:,} bytes a config may have.")
    try:
        values = from_json(raw)
    except ValueError as error:
        raise BadFile(path, "not-a-model", f"is not JSON ({error}).") from error
    if not isinstance(values, dict):
        raise BadFile(path, "not-a-model", "is not a JSON object.")
    return values


def weights_of(folder: Path) -> dict[str, TensorInfo]:
    """The tensors of one component's folder, all shards together; {} where it has no safetensors. Raises BadFile."""
    tensors: dict[str, TensorInfo] = {}
    for path in weight_files(folder):
        tensors.update(read_header(path).tensors)
    return tensors


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files a component is loaded from: the plain ones, else the fp16 variant, else whatever lies there."""
    files = sorted(entry for entry in folder.glob("*.safetensors") if not entry.name.startswith("."))
    for stem in ("diffusion_pytorch_model", "model"):
        for variant in ("", ".fp16"):
            chosen = [f for f in files if f.name == f"{stem}{variant}.safetensors" or f.name.startswith(f"{stem}{variant}-0")]
            if chosen:
                return chosen
    return files


def folder_files(folder: Path) -> Iterator[Path]:
    """Every regular file below a folder, sorted, without hidden ones; links to folders are not followed."""
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            file = Path(root, name)
            if not name.startswith(".") and file.is_file():
                yield file
