"""The components of a single file in LDM names, as the Stable Diffusion line's families share them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from registry.architectures.unet.header import UNET_PREFIX
from registry.architectures.unet.ldm_names import clip_name, open_clip_name, unet_name, vae_name
from registry.architectures.unet.ldm_sizes import clip_sizes, open_clip_sizes, unet_sizes, vae_sizes
from registry.formats.key_map import KeyLocation
from registry.formats.single_file import ComponentSpec

HEAD = 64  # channels of one CLIP head, in every published text encoder of this line
BOS, EOS = 49406, 49407  # CLIP's marks

# of the first Stable Diffusion, kept by the whole line: not clipped, one step of offset
BETAS: Mapping[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
    "trained_betas": None,
}


def heads_of_64(sizes: Mapping[str, Any]) -> tuple[int, ...]:
    """`attention_head_dim` of SD 2 and SDXL: the number of heads a level, by an old mistake of the name; 64 channels each, at least one."""
    return tuple(max(1, channels // 64) for channels in sizes["block_out_channels"])


def unet_piece(*, sizes: Callable[[Mapping[str, Any]], dict[str, Any]], published: Mapping[str, Any]) -> ComponentSpec:
    """A UNet whose remaining sizes are `sizes(those read from the shapes)`."""
    return ComponentSpec(
        component="unet",
        library="diffusers",
        class_name="UNet2DConditionModel",
        prefix=UNET_PREFIX,
        location=_unet_location,
        sizes=_unet_and_added_sizes,
        constants=sizes,
        published=published,
    )


def _unet_location(config: Mapping[str, Any], name: str, _shape: tuple[int, ...]) -> KeyLocation | None:
    found = unet_name(config, name)
    return KeyLocation(found) if found is not None else None


def _unet_and_added_sizes(shapes: Mapping[str, Any]) -> dict[str, Any]:
    """The UNet's sizes, with the width of SDXL's added vector where there is one."""
    sizes = unet_sizes(shapes)
    if "label_emb.0.0.weight" in shapes:
        sizes |= {"addition_embed_type": "text_time", "projection_class_embeddings_input_dim": shapes["label_emb.0.0.weight"].shape[1]}
    return sizes


def vae_piece(*, scaling_factor: float, sample_size: int) -> ComponentSpec:
    """An AutoencoderKL with 32 norm groups; the scale is the family's."""
    return ComponentSpec(
        component="vae",
        library="diffusers",
        class_name="AutoencoderKL",
        prefix="first_stage_model.",
        location=lambda config, name, _shape: KeyLocation(vae_name(config, name)),
        sizes=vae_sizes,
        constants=lambda _sizes: {"scaling_factor": scaling_factor, "sample_size": sample_size, "norm_num_groups": 32, "act_fn": "silu"},
        published={"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "latent_channels": 4},
    )


def clip_piece(*, prefix: str) -> ComponentSpec:
    """OpenAI's CLIP-L text model in its own names."""
    return ComponentSpec(
        component="text_encoder",
        library="transformers",
        class_name="CLIPTextModel",
        prefix=prefix,
        location=lambda _config, name, _shape: KeyLocation(clip_name(name)),
        sizes=clip_sizes,
        constants=lambda sizes: {**_clip_constants(sizes), "hidden_act": "quick_gelu"},
        published={"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "max_position_embeddings": 77},
    )


def named_piece(
    *, component: str, class_name: str, prefix: str, identities: tuple[str, ...] = (), tied: Mapping[str, str] | None = None
) -> ComponentSpec:
    """A text encoder of transformers in its own names; its config is a folder's. `tied` parameters lie under another's name."""
    return ComponentSpec(
        component=component,
        library="transformers",
        class_name=class_name,
        prefix=prefix,
        location=lambda _config, name, _shape: KeyLocation((tied or {}).get(name, name)),
        sizes=lambda _shapes: {},
        constants=lambda _sizes: {},
        published={},
        identities=identities,
    )


def open_clip_piece(*, component: str, prefix: str) -> ComponentSpec:
    """OpenCLIP's bigG text tower, q, k and v fused, with its projection."""
    return ComponentSpec(
        component=component,
        library="transformers",
        class_name="CLIPTextModelWithProjection",
        prefix=prefix,
        location=_open_clip_location,
        sizes=open_clip_sizes,
        constants=_open_clip_constants,
        published={"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "max_position_embeddings": 77},
    )


def penultimate_open_clip_piece(*, prefix: str) -> ComponentSpec:
    """OpenCLIP's H text tower without its last layer and projection, which Stable Diffusion 2 has in the file and never runs."""
    published = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23, "max_position_embeddings": 77}

    def sizes(shapes: Mapping[str, Any]) -> dict[str, Any]:
        all_of_it = open_clip_sizes(shapes)
        if {name: all_of_it[name] for name in published} != published:  # those made from a folder have lost the last layer already
            all_of_it["num_hidden_layers"] -= 1
        return all_of_it

    def spare(config: Mapping[str, Any], name: str) -> bool:
        return name == "text_projection" or name.startswith(f"transformer.resblocks.{config['num_hidden_layers']}.")

    return ComponentSpec(
        component="text_encoder",
        library="transformers",
        class_name="CLIPTextModel",
        prefix=prefix,
        location=_open_clip_location,
        sizes=sizes,
        constants=_open_clip_constants,
        published=published,
        spare=spare,
    )


def _open_clip_constants(sizes: Mapping[str, Any]) -> dict[str, Any]:
    return {**_clip_constants(sizes), "hidden_act": "gelu"}


def _open_clip_location(_config: Mapping[str, Any], name: str, shape: tuple[int, ...]) -> KeyLocation:
    key, third = open_clip_name(name)
    rows = None if third is None else (third * shape[0], (third + 1) * shape[0])
    return KeyLocation(key, rows, transposed=key == "text_projection")


def _clip_constants(sizes: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "num_attention_heads": sizes["hidden_size"] // HEAD,
        "bos_token_id": BOS,
        "eos_token_id": EOS,
        "pad_token_id": 1,
        "layer_norm_eps": 1e-5,
    }
