"""A transformer model from the disk, as the families of them share it: a diffusers folder, or a single file beside one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.errors import BadFile, Refused
from registry.family_protocols import Load
from registry.formats.diffusers_folder import load_folder, refuse_base_config
from registry.formats.safetensors_header import TensorInfo
from registry.formats.transformer_file import FileNames, load_transformer
from registry.parts import Parts, Residuals
from registry.quantised.layers import Quantisation

if TYPE_CHECKING:
    import torch

# peft target_modules of the attention in blocks with an image and a text stream
JOINT_ATTENTION = tuple(
    f"attn.{name}" for name in ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
)

Check = Callable[[Path, Path, Mapping[str, Any], Mapping[str, TensorInfo]], None]


def same_guidance(*, embedded: str, without: str) -> Check:
    """A `check` of builds that differ in an embedded guidance, by the names of the build that has one and of the one without."""

    def check(path: Path, base_config: Path, config: Mapping[str, Any], tensors: Mapping[str, TensorInfo]) -> None:
        guided = any("guidance_in." in name or "guidance_embedder." in name for name in tensors)
        if guided != bool(config.get("guidance_embeds")):
            build, other = (embedded, without) if guided else (without, embedded)
            raise Refused(
                f"{path.name} is a {build} build, but base_config={base_config} is a {other} build. Give the folder of a {build} build."
            )

    return check


def refuse_other_factor(parts: Parts, factor: int, title: str) -> None:
    """Raise BadFile where the VAE has another number of pixels per latent cell than the family's sizes are counted with."""
    if parts.latent_factor != factor:
        raise BadFile(parts.source, "variant", f"has a VAE of {parts.latent_factor} pixels a latent cell; {title} has {factor}.")


def refuse_control(control: Residuals | None, why: str) -> None:
    """Raise Refused for residuals where the family's `predict` takes none."""
    if control is not None:
        raise Refused(f"This family takes no ControlNet: {why}.")


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
        quantised: Quantisation | None = None,
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
                path,
                Path(base_config),
                names,
                check=same,
                dtype=dtype,
                empty=str(device) == "meta",
                choose=quantised.of("transformer") if quantised else None,
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
            quantised=quantised,
        )
        parts.source, parts.warnings = path, warnings
        return settle(parts) if settle is not None else parts

    return load
