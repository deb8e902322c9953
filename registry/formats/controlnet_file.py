"""A ControlNet from the disk, as every family loads its own: a diffusers folder, or a single file of the base's build.

Heads and norm groups are in no tensor's shape. A single file takes the config.json beside it; else the
net is a copy of the base's own first half, and the base's config is the net's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.errors import BadFile, FamilyMismatch, Refused
from registry.formats.diffusers_folder import load_module, no_progress_bars
from registry.formats.key_map import KeyLocation
from registry.formats.model_folder import read_json
from registry.formats.safetensors_header import TensorInfo, read_header
from registry.formats.state_dict import check_mapped, read_mapped, shapes_of

if TYPE_CHECKING:
    import torch
    from torch import nn

NAMES = re.compile(r"ControlNet|T2IAdapter")  # of the classes that are controls at all
HINT = "Is it made for this base's build? Give its diffusers folder, or put its config.json beside it."

Build = Callable[[Mapping[str, TensorInfo]], "nn.Module"]  # the file's tensors -> an empty net of the base's build; Refused
Rename = Callable[[Mapping[str, str], Any], Mapping[str, str]]  # ({key: key}, config) -> {parameter: key in the file}


def load_controlnet(
    path: Path | str,
    *,
    family: str,
    classes: Sequence[str],
    build: Build,
    rename: Rename | None = None,
    dtype: torch.dtype,
    device: torch.device | str,
) -> Any:
    """The net, frozen and in eval mode, every weight in `dtype`; on the device "meta" no weight is read, but every name and shape.

    Raises FamilyMismatch for another family's class, BadFile or Refused for what cannot be read.
    """
    import diffusers

    path, empty = Path(path), str(device) == "meta"
    with no_progress_bars():
        if path.is_dir():
            name = _class_name(path, read_json(path / "config.json"), family, classes)
            net = load_module(getattr(diffusers, name), path, dtype=dtype, empty=empty)
        else:
            net = _single_file(path, family, classes, build, rename, dtype=dtype, empty=empty)
    return net.requires_grad_(False).eval().to(device)


def refuse_other_build(what: str, net: Any, base: Any, names: Sequence[str]) -> None:
    """Refuse a net whose config has other sizes than the base's under one of these names; all are reported."""
    other = [f"{name} is {net[name]}, the base's {base[name]}" for name in names if _plain(net[name]) != _plain(base[name])]
    if other:
        raise Refused(f"The ControlNet {what} was made for another build than this base: {'; '.join(other)}.")


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, (list, tuple)) else value


def _class_name(path: Path, config: Mapping[str, Any], family: str, classes: Sequence[str]) -> str:
    name = str(config.get("_class_name"))
    if name not in classes:
        if NAMES.search(name):
            raise FamilyMismatch(f"{path} is a {name}. A ControlNet of {family} is a {' or a '.join(classes)}.")
        raise BadFile(path, "not-a-model", f"its config.json names {name}; a ControlNet of {family} is a {' or a '.join(classes)}.")
    return name


def _single_file(
    path: Path, family: str, classes: Sequence[str], build: Build, rename: Rename | None, *, dtype: torch.dtype, empty: bool
) -> Any:
    import diffusers
    import torch

    tensors = read_header(path).tensors
    beside = path.parent / "config.json"
    config = read_json(beside) if beside.is_file() else {}
    with torch.device("meta"):
        if NAMES.search(str(config.get("_class_name"))):
            net = getattr(diffusers, _class_name(path, config, family, classes)).from_config(config)
        else:
            net = build(tensors)
    keys = {key: key for key in tensors}
    renamed = rename(keys, net.config) if rename is not None else keys
    key_map = {name: KeyLocation(key) for name, key in renamed.items()}
    shapes = shapes_of(net)
    check_mapped(path, tensors, key_map, shapes, component="ControlNet", hint=HINT, exact=True)
    if not empty:
        net.load_state_dict(read_mapped(path, key_map, shapes, dtype=dtype), strict=True, assign=True)
    return net
