"""The tensors of a model's files in the shapes of the model, by headers: what is quantised has others in some forms."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from registry.formats.gguf import as_in_the_model, read_gguf
from registry.formats.model_folder import weight_files, weights_of
from registry.formats.quantised import bitsandbytes, torchao
from registry.formats.safetensors_header import Header, TensorInfo, read_header

GGUF = ".gguf"
MARKS = (bitsandbytes.MARK, torchao.MARK)  # in a key of a header that has not the tensors of the model itself


def model_header(path: Path) -> Header:
    """The header of a single file: safetensors, or GGUF by its name. Scales and other tables of quantised weights are in it too."""
    if path.suffix.lower() == GGUF:
        return as_in_the_model(read_gguf(path))
    header = read_header(path)
    return _unpacked(path, header) if is_packed(header.tensors) else header


def folder_tensors(folder: Path) -> dict[str, TensorInfo]:
    """The tensors of a component's folder, all shards together; {} where it has no safetensors. Raises BadFile."""
    tensors = weights_of(folder)
    if is_packed(tensors):
        return {name: info for file in weight_files(folder) for name, info in model_header(file).tensors.items()}
    return tensors


def is_packed(keys: Iterable[str]) -> bool:
    """Whether the names or the shapes are those of codes: the model's own are in the other bytes of the file."""
    names = "\n".join(keys)
    return any(mark in names for mark in MARKS)


def _unpacked(path: Path, header: Header) -> Header:
    from registry.formats.quantised.weights_file import weights_file  # not at the top: it needs what reads tensors

    packed = {key: one.info for key, one in weights_file(path).packed.items()}
    return replace(header, tensors={**header.tensors, **packed})
