"""A VAE by itself: an override of a loaded base's (a diffusers folder, or a single file in diffusers' or LDM's names), or the base's own.

A single file does not hold its scale and shift: it takes the config.json beside it, else the config of the base's own VAE.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.architectures.unet.components import vae_piece
from registry.architectures.unet.ldm_names import vae_name
from registry.errors import BadFile, Refused
from registry.formats.diffusers_folder import latent_factor_of, load_module, no_progress_bars
from registry.formats.key_map import KeyLocation
from registry.formats.model_folder import read_json
from registry.formats.safetensors_header import read_header
from registry.formats.single_file import read_piece
from registry.parts import Parts

if TYPE_CHECKING:
    import torch
    from torch import nn

PREFIXES = ("", "first_stage_model.", "vae.")
SPACE = ("latent_channels", "z_dim", "scaling_factor", "shift_factor", "latents_mean", "latents_std")  # of a config: what latents mean


def load_vae(path: Path | str, parts: Parts, *, device: torch.device | str) -> nn.Module:
    """The VAE, frozen and in eval mode, in the dtype of the base's own; on the device "meta" no weight is read.

    Raises BadFile for what is no VAE, Refused for one of another latent space than the base's, with the reasons.
    """
    import torch

    path, own, empty = Path(path), parts.vae, str(device) == "meta"
    config = _config(path, own)
    if config.get("_class_name", type(own).__name__) != type(own).__name__:
        raise Refused(f"The VAE {path.name} is a {config['_class_name']}, but this base draws with a {type(own).__name__}.")
    with no_progress_bars():
        vae: Any = load_module(type(own), path, dtype=_dtype(own), empty=empty) if path.is_dir() else _file(path, own, config, empty)
    _same_space(path, vae, own)
    if vae.dtype == torch.float16 and vae.config.get("force_upcast") and not own.config.force_upcast:  # type: ignore[union-attr]  # diffusers is untyped
        vae.to(torch.float32)  # force_upcast: it overflows in float16
    return vae.requires_grad_(False).eval().to(device)  # type: ignore[no-any-return]


def own_vae(parts: Parts, *, device: torch.device | str) -> nn.Module:
    """The base's own VAE of Parts on the device "meta", with its weights in its dtype there, frozen and in eval mode: nothing else is read.

    Raises BadFile where its files do not hold it by itself.
    """
    source, empty = parts.source, parts.vae
    with no_progress_bars():
        vae: Any = (
            load_module(type(empty), source / "vae", dtype=_dtype(empty))
            if source.is_dir()
            else _file(source, empty, dict(empty.config), False)  # type: ignore[arg-type]  # diffusers is untyped
        )
    return vae.requires_grad_(False).eval().to(device)  # type: ignore[no-any-return]


def _config(path: Path, own: Any) -> dict[str, Any]:
    """The VAE's config: its folder's, the one beside the file when it is a VAE's, else the base's."""
    if path.is_dir():
        return read_json(path / "config.json")
    beside = path.parent / "config.json"
    config = read_json(beside) if beside.is_file() else {}
    return config if "Autoencoder" in str(config.get("_class_name")) else dict(own.config)


def _dtype(own: Any) -> torch.dtype:
    dtype: torch.dtype = own.dtype
    return dtype


def _file(path: Path, own: Any, config: dict[str, Any], empty: bool) -> Any:
    """The VAE of a single file, every tensor in its place."""
    tensors = read_header(path).tensors
    first = "decoder.conv_in.weight"
    prefix = next((prefix for prefix in PREFIXES if prefix + first in tensors), None)
    if prefix is None:
        raise BadFile(path, "not-a-model", f"is no VAE: it has no {first}, with any known prefix.")
    diffusers_names = any(".up_blocks." in name for name in tensors)
    piece = replace(
        vae_piece(scaling_factor=1.0, sample_size=1),  # its config is given, so these are not used
        class_name=type(own).__name__,
        prefix=prefix,
        location=lambda built, name, _shape: KeyLocation(name if diffusers_names else vae_name(built, name)),
    )
    return read_piece(path, piece, config, dtype=_dtype(own), empty=empty)


def _same_space(path: Path, vae: Any, own: Any) -> None:
    """Refuse a VAE of another latent space than the base's."""
    differ = [
        f"{name} is {vae.config.get(name)}, the base's {own.config.get(name)}"
        for name in SPACE
        if (vae.config.get(name) or None) != (own.config.get(name) or None)
    ]
    if "block_out_channels" in own.config and latent_factor_of(vae.config) != latent_factor_of(own.config):
        differ.append(f"a latent cell is {latent_factor_of(vae.config)} pixels, the base's {latent_factor_of(own.config)}")
    if differ:
        raise Refused(f"The VAE {path.name} has another latent space than the base's: {'; '.join(differ)}.")
