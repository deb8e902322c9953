"""A transformer model from the disk, as the families of them share it: a diffusers folder, or a single file beside one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.errors import Refused
from registry.family_protocols import Load
from registry.formats.diffusers_folder import load_folder, refuse_base_config
from registry.formats.safetensors_header import TensorInfo
from registry.formats.transformer_file import FileNames, load_transformer
from registry.parts import Parts

if TYPE_CHECKING:
    import torch

Check = Callable[[Path, Path, Mapping[str, Any], Mapping[str, TensorInfo]], None]


def transformer_loader(
    names: FileNames,
    *,
    lacks: str,
    folder: str,
    text_encoders: tuple[str, ...] = ("text_encoder",),
    tokenizers: tuple[str, ...] = ("tokenizer",),
    check: Check | None = None,
    settle: Callable[[Parts], Parts] | None = None,
) -> Load:
    """A family's `load`: a diffusers folder, or a single file's transformer with everything else from `base_config`; it predicts flow.

    `lacks` is what a single file does not hold ("FLUX.1's T5 encoder and its tokenizer"), `folder` the build that base_config must be.
    `check(path, base_config, config, tensors)` refuses a file and a folder of different builds; `settle` checks and completes the Parts.
    """

    def load(
        path: Path | str,
        *,
        dtype: torch.dtype,
        device: torch.device | str,
        base_config: Path | str | None = None,
        prediction: str | None = None,
    ) -> Parts:
        path, loaded = Path(path), dict[str, Any]()
        warnings: tuple[str, ...] = ()
        if path.is_file():
            if base_config is None:
                raise Refused(
                    f"{path.name} is a single file: {lacks} are not in it and are not bundled. "
                    f"Give base_config=FOLDER, a diffusers folder of {folder}."
                )
            same = partial(check, path, Path(base_config)) if check is not None else None
            loaded["transformer"], warnings = load_transformer(
                path, Path(base_config), names, check=same, dtype=dtype, empty=str(device) == "meta"
            )
        else:
            refuse_base_config(path, base_config)
        parts = load_folder(
            path if base_config is None else Path(base_config),
            denoiser="transformer",
            text_encoders=text_encoders,
            tokenizers=tokenizers,
            predictions=("flow",),
            dtype=dtype,
            device=device,
            loaded=loaded,
        )
        parts.source, parts.warnings = path, warnings
        return settle(parts) if settle is not None else parts

    return load
