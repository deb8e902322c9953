"""Facts in the headers of the Stable Diffusion line's files: a UNet's build, an adapter's widths, the prediction.

SD 1, SD 2 and SDXL share their layer names; they differ in widths, depths and the text encoders beside them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from registry.aliases import declared_family
from registry.detect.name_kinds import NameKinds
from registry.family import FAMILIES
from registry.formats.adapter_keys import needs_shapes
from registry.formats.adapter_shapes import Part, layer_parts, layer_size
from registry.formats.dialects import DENOISER
from registry.formats.model_header import ModelHeader, TensorNames

UNET_PREFIX = "model.diffusion_model."
V_MARKS = ("v_pred", "edm_vpred.sigma_max")  # empty tensors that mark v-prediction; `ztsnr` beside them marks zero terminal SNR
ZERO_SNR_MARK = "ztsnr"
SPEC_PREDICTIONS = {"stable-diffusion-v2-768-v": "v_prediction", "stable-diffusion-v2-512": "epsilon"}  # ModelSpec ids that imply it
NOT_UNET = re.compile(r"double_blocks|single_blocks|single_transformer_blocks|joint_blocks|_refiner|context_refiner|img_mlp")
DOWN = re.compile(r"(lora_down\.weight|lora_A(\.[^.]+)?\.weight|[._]lora\.down\.weight|lora_linear_layer\.down\.weight|hada_w1_b)$")
UNET_KEYS = (
    *("lora_unet_", "unet.", "lycoris_", "unet_", "down_blocks", "mid_block", "up_blocks", "base_model.model."),
    *("diffusion_model.", "model.diffusion_model."),
)
TRANSFORMER_KEYS = ("lora_transformer_", "transformer.")
BLOCK = re.compile(r"down_blocks|mid_block|up_blocks|input_blocks|middle_block|output_blocks")
DEPTH = re.compile(r"transformer_blocks[._](\d+)[._]")
CROSS = re.compile(r"attn2[._](?:processor[._])?to_[kv][._]")


@dataclass(frozen=True, kw_only=True)
class UNetFile:
    """The build of a single-file checkpoint with a UNet in LDM names."""

    in_channels: int
    cross_width: int | None  # of the text states
    added_width: int | None  # of SDXL's pooled text and size vector
    conv_projection: bool  # SD 1; a linear one is SD 2 and SDXL
    text: str | None  # clip (SD 1), open_clip (SD 2), embedders (SDXL), refiner
    prefix: str


def unet_file(header: ModelHeader) -> UNetFile | None:
    """The UNet in a single file's header; None where there is none."""
    tensors = header.tensors
    prefix = UNET_PREFIX if f"{UNET_PREFIX}input_blocks.0.0.weight" in tensors else ""
    first = tensors.get(f"{prefix}input_blocks.0.0.weight")
    if first is None or len(first.shape) != 4:
        return None
    inside = {key.removeprefix(prefix): info for key, info in tensors.items() if key.startswith(prefix)}
    cross = next((info.shape[1] for key, info in inside.items() if key.endswith("attn2.to_k.weight") and len(info.shape) > 1), None)
    projection = next((info for key, info in inside.items() if key.endswith(".proj_in.weight")), None)
    added = inside.get("label_emb.0.0.weight")
    return UNetFile(
        in_channels=first.shape[1],
        cross_width=cross,
        added_width=added.shape[1] if added is not None and len(added.shape) > 1 else None,
        conv_projection=projection is not None and len(projection.shape) == 4,
        text=_text_in(tensors),
        prefix=prefix,
    )


def _text_in(tensors: Mapping[str, object]) -> str | None:
    for text, start in (
        ("embedders", "conditioner.embedders.1."),
        ("refiner", "conditioner.embedders.0.model."),
        ("open_clip", "cond_stage_model.model."),
        ("clip", "cond_stage_model.transformer."),
    ):
        if any(key.startswith(start) for key in tensors):
            return text
    return None


def declared_prediction(header: ModelHeader) -> tuple[str, str] | tuple[None, None]:
    """(prediction, where that was read) of a single file of the Stable Diffusion line; (None, None) where it declares none."""
    for mark in V_MARKS:
        if mark in header.tensors:
            return "v_prediction", f"the key {mark!r}"
    for entry in ("modelspec.prediction_type", "modelspec.predict_key", "prediction_type"):
        value = header.metadata.get(entry, "").strip().lower()
        if value in ("v", "v_prediction", "v-prediction"):
            return "v_prediction", entry
        if value in ("epsilon", "eps"):
            return "epsilon", entry
    architecture = header.metadata.get("modelspec.architecture", "").strip().lower()
    for beginning, prediction in SPEC_PREDICTIONS.items():
        if architecture.startswith(beginning):
            return prediction, f"modelspec.architecture {architecture!r}"
    return None, None


def declared_unet_family(header: ModelHeader) -> tuple[str, str] | None:
    """(family, the entry that names it) where an adapter's own metadata declare one with a UNet."""
    return header.cached(_declared_unet_family)


def _declared_unet_family(header: ModelHeader) -> tuple[str, str] | None:
    return declared_family(header.metadata, {name: family.aliases for name, family in FAMILIES.items() if family.denoiser == "unet"})


@dataclass(frozen=True, kw_only=True)
class UNetAdapter:
    """What an adapter's keys and shapes show of the UNet and encoders it was trained for."""

    unet: bool
    cross_width: int | None  # in-width of attn2.to_k and to_v; None: no such layer in it
    depth: int  # highest transformer block index
    text_widths: Mapping[str, int | None]  # text_encoder, text_encoder_2 -> in-width of its q, k, v


def unet_adapter(header: ModelHeader) -> UNetAdapter | None:
    """The facts of an adapter for a UNet of this line; None where its keys are of another architecture."""
    return header.cached(_unet_adapter)


def has_unet_names(names: TensorNames) -> bool:
    """Whether the names of an adapter's tensors are those of a UNet of this line or of its text encoders."""
    return names.cached(_by_names) is not None


def _unet_adapter(header: ModelHeader) -> UNetAdapter | None:
    named = None if header.is_folder or not header.tensors else header.names.cached(_by_names)
    if named is None:
        return None
    text = dict.fromkeys(named.text)
    for name, encoder in named.reads:
        shape = header.tensors[name].shape
        if len(shape) > 1:
            text[encoder] = shape[1]
    cross = next((shape[1] for name in named.cross if len(shape := header.tensors[name].shape) > 1), None)
    return UNetAdapter(unet=named.unet, cross_width=cross or _cross_of_products(header), depth=named.depth, text_widths=text)


class _Named(NamedTuple):
    """What the names of an adapter's tensors show together."""

    unet: bool
    depth: int
    text: tuple[str, ...]  # the text encoders
    reads: tuple[tuple[str, str], ...]  # a tensor whose second size is the width of this text encoder, where it has one
    cross: tuple[str, ...]  # tensors whose second size is the width of the text states, where they have one


def _by_names(names: TensorNames) -> _Named | None:
    """The facts in the names of an adapter for a UNet of this line; None for another architecture's."""
    numbered = (
        {
            name: f"{'unet' if key.component == DENOISER else key.component}.{key.module}.lora.{key.role}.weight"
            for name, key in (names.keys or {}).items()
            if key.spelling == "cloneofsimo"
        }
        if names.keys and needs_shapes(names.keys)
        else {}
    )
    kinds = MARKS.of([numbered.get(name, name) for name in names.names] if numbered else names.names)
    marks = [kind.value for kind in dict.fromkeys(kinds)]
    if any(mark.foreign for mark in marks):
        return None
    unet, text = any(mark.unet for mark in marks), tuple(dict.fromkeys(mark.text for mark in marks if mark.text))
    if (not unet and not text) or (unet and not any(mark.block for mark in marks)):
        return None
    each = [*zip(names.names, kinds, strict=True)]
    return _Named(
        unet=unet,
        depth=max(mark.depth for mark in marks),
        text=text,
        reads=tuple((name, mark.text) for name, kind in each if (mark := kind.value).text is not None and mark.reads) if text else (),
        cross=tuple(name for name, kind in each if kind.value.cross),
    )


class _Mark(NamedTuple):
    """What the name of one tensor shows."""

    foreign: bool  # of another architecture
    unet: bool
    block: bool  # in one of a UNet's blocks
    depth: int  # number of its transformer block
    cross: bool  # the factor that reads the text states
    text: str | None  # which text encoder
    reads: bool  # the factor of a q, k or v that reads its input


def _mark(key: str) -> _Mark:
    unet = key.startswith(UNET_KEYS)
    text = _encoder_of(key)
    down = bool(DOWN.search(key))
    return _Mark(
        foreign=text is None and (key.startswith(TRANSFORMER_KEYS) or bool(NOT_UNET.search(key))),
        unet=unet,
        block=unet and bool(BLOCK.search(key)),
        depth=max((int(found[1]) for found in DEPTH.finditer(key)), default=0) if unet else 0,
        cross=unet and down and bool(CROSS.search(key)),
        text=text,
        reads=down and bool(re.search(r"[qkv]_proj", key)),
    )


MARKS = NameKinds(_mark)


def _cross_of_products(header: ModelHeader) -> int | None:
    """The width of the text states where no tensor has it for an axis: LoKr's factors, whole differences."""
    sizes = ((layer_size(parts, header.tensors)) for parts in header.names.cached(_cross_layers))
    return next((width for size in sizes if (width := size.into or size.flat)), None)


def _cross_layers(names: TensorNames) -> list[tuple[Part, ...]]:
    parts = layer_parts(names.keys or {}, frozenset(names.names))
    return [found for (_, module), found in parts.items() if CROSS.search(f"{module}.")]


def _encoder_of(key: str) -> str | None:
    if key.startswith(("lora_te2_", "text_encoder_2.", "text_encoders.clip_g.")):
        return "text_encoder_2"
    if key.startswith(("lora_te_", "lora_te1_", "text_encoder.", "text_encoders.clip_l.")):
        return "text_encoder"
    return None
