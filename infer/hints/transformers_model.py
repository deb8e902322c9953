"""Folders of transformers with a network of images: checked without reading weights, loaded with their image processor."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from registry.detect.transformers_folder import quiet, reason
from registry.errors import Refused
from registry.formats.model_folder import folder_files
from registry.plain_values import from_json

WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
PROCESSORS = ("preprocessor_config.json", "processor_config.json")


def faults_of_folder(path: Path, types: Callable[[], Collection[str]], what: str, expected: str) -> list[str]:
    """Why a path is no folder with a model of one of these `model_type`s and its image processor."""
    if not path.exists():
        return [f"there is no {path}. {expected}."]
    config = path / "config.json"
    if not config.is_file():
        return [f"{path} is no model of transformers (config.json). {expected}."]
    try:
        plain = from_json(config.read_bytes())
    except (OSError, ValueError) as error:
        return [f"{config} cannot be read ({error})"]
    faults = []
    kind = plain.get("model_type") if isinstance(plain, dict) else None
    if kind not in types():
        faults.append(f"{config}: model_type is {kind!r}, which is no {what.partition(' ')[2]} of transformers. {expected}.")
    if not any(file for pattern in WEIGHTS for file in path.glob(pattern)):
        faults.append(f"{path} has no weights ({', '.join(WEIGHTS)})")
    if not any((path / name).is_file() for name in PROCESSORS):
        faults.append(f"{path} has no image processor ({PROCESSORS[0]})")
    return faults


def files_of_folder(path: Path) -> list[Path]:
    """What a network's answer depends on: the file itself, or all of its folder."""
    return list(folder_files(path)) if path.is_dir() else [path]


def loaded(path: Path, kind: Any, device: str) -> tuple[Any, Any]:
    """(image processor, network). Raises Refused with the library's reason."""
    from transformers import AutoImageProcessor

    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    with quiet():
        try:
            processor = AutoImageProcessor.from_pretrained(path, **local)
            network = kind.from_pretrained(path, **local).to(device).eval()
        except Exception as error:  # each model's own classes raise what they meet
            raise Refused(f"{path} cannot be loaded ({reason(error)}).") from error
    return processor, network
