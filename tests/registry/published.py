"""Names and shapes of published models: diffusers' own classes with the published sizes, built on the meta device, a few blocks deep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

Shapes = dict[str, tuple[int, ...]]
DEPTHS = ("num_layers", "num_single_layers", "depth", "num_refiner_layers", "num_text_blocks")


@dataclass(frozen=True)
class Published:
    """One published denoiser. `adapter` is its variant as an adapter of all layers shows it; `deep` needs all blocks to be identified."""

    family: str
    variant: str | None
    class_name: str
    sizes: Mapping[str, Any] = field(default_factory=dict, hash=False)
    adapter: str | None = None
    alike: tuple[str, ...] = ()  # families that an adapter of its attention alone cannot be distinguished from


SD3 = {"sample_size": 128, "joint_attention_dim": 4096, "pooled_projection_dim": 2048, "out_channels": 16, "attention_head_dim": 64}
MEDIUM = {**SD3, "num_layers": 24, "num_attention_heads": 24, "caption_projection_dim": 1536}
HIDREAM = {
    "patch_size": 2, "in_channels": 16, "out_channels": 16, "num_layers": 16, "num_single_layers": 32, "attention_head_dim": 128,
    "num_attention_heads": 20, "caption_channels": [4096, 4096], "text_emb_dim": 2048, "num_routed_experts": 4, "num_activated_experts": 2,
    "axes_dims_rope": (64, 32, 32), "max_resolution": (128, 128), "llama_layers": [0, 1],
}  # fmt: skip
FLUX_LIKE = ("chroma", "hunyuan_video", "flux2")  # with layers of the same names and widths as FLUX.1's attention
MODELS = (
    Published("sd3", "3-medium", "SD3Transformer2DModel", {**MEDIUM, "pos_embed_max_size": 192}),
    Published(
        "sd3", "3.5-medium", "SD3Transformer2DModel",
        {**MEDIUM, "pos_embed_max_size": 384, "dual_attention_layers": (0, 1), "qk_norm": "rms_norm"}, adapter="3.5-medium",
    ),
    Published(
        "sd3", "3.5-large", "SD3Transformer2DModel",
        {**SD3, "num_layers": 38, "num_attention_heads": 38, "caption_projection_dim": 2432, "pos_embed_max_size": 192,
         "qk_norm": "rms_norm"},
        adapter="3.5-large",
    ),
    Published("flux1", "dev", "FluxTransformer2DModel", {"guidance_embeds": True}, alike=FLUX_LIKE),
    Published("flux1", "schnell", "FluxTransformer2DModel", alike=FLUX_LIKE),
    Published(
        "flux1", "fill", "FluxTransformer2DModel", {"guidance_embeds": True, "in_channels": 384, "out_channels": 64}, alike=FLUX_LIKE,
    ),
    Published(
        "flux1", "control", "FluxTransformer2DModel", {"guidance_embeds": True, "in_channels": 128, "out_channels": 64}, alike=FLUX_LIKE,
    ),
    Published("flux2", "dev", "Flux2Transformer2DModel", adapter="dev"),
    Published(
        "flux2", "klein-4b", "Flux2Transformer2DModel",
        {"num_layers": 5, "num_single_layers": 20, "num_attention_heads": 24, "joint_attention_dim": 7680, "guidance_embeds": False},
        adapter="klein-4b", alike=("flux1", "qwen_image"),
    ),
    Published(
        "flux2", "klein-9b", "Flux2Transformer2DModel",
        {"num_layers": 8, "num_single_layers": 24, "num_attention_heads": 32, "joint_attention_dim": 12288, "guidance_embeds": False},
        adapter="klein-9b",
    ),
    Published("chroma", None, "ChromaTransformer2DModel", alike=("flux1", *FLUX_LIKE)),
    Published("qwen_image", None, "QwenImageTransformer2DModel", alike=("flux1", "flux2")),
    Published("z_image", None, "ZImageTransformer2DModel"),
    Published("lumina2", None, "Lumina2Transformer2DModel"),
    Published("sana", None, "SanaTransformer2DModel", adapter="1.6b"),
    Published("krea2", None, "Krea2Transformer2DModel", alike=("flux2",)),
    Published("pixart", "alpha", "PixArtTransformer2DModel", {"sample_size": 128, "use_additional_conditions": True}, alike=("sana",)),
    Published("pixart", "sigma", "PixArtTransformer2DModel", {"sample_size": 128, "use_additional_conditions": False}, alike=("sana",)),
    Published("ltx", None, "LTXVideoTransformer3DModel"),
    Published("ltx", "2", "LTX2VideoTransformer3DModel", adapter="2"),
    Published("wan", "14b", "WanTransformer3DModel", adapter="14b"),
    Published("wan", "1.3b", "WanTransformer3DModel", {"num_attention_heads": 12, "ffn_dim": 8960}, adapter="1.3b"),
    Published(
        "wan", "5b", "WanTransformer3DModel", {"num_attention_heads": 24, "ffn_dim": 14336, "in_channels": 48, "out_channels": 48},
        adapter="5b",
    ),
    Published("wan", "i2v-14b", "WanTransformer3DModel", {"in_channels": 36, "image_dim": 1280, "added_kv_proj_dim": 5120}, adapter="14b"),
    Published("wan", "vace-14b", "WanVACETransformer3DModel", {"vace_layers": [0, 1]}, adapter="14b"),
    Published("hunyuan_video", "t2v", "HunyuanVideoTransformer3DModel", alike=("flux1", "chroma")),
    Published(
        "hunyuan_video", "framepack", "HunyuanVideoFramepackTransformer3DModel", {"has_clean_x_embedder": True}, alike=("flux1", "chroma")
    ),
    Published("hunyuan_image", None, "HunyuanImageTransformer2DModel"),
    Published("hidream", None, "HiDreamImageTransformer2DModel", HIDREAM),
    Published("auraflow", None, "AuraFlowTransformer2DModel", {"num_mmdit_layers": 2, "num_single_dit_layers": 2}),
    Published("cosmos", None, "CosmosTransformer3DModel", adapter="7b"),
    Published("ideogram4", None, "Ideogram4Transformer2DModel"),
)  # fmt: skip
STRANGERS = (
    "AllegroTransformer3DModel", "CogVideoXTransformer3DModel", "CogView4Transformer2DModel", "ErnieImageTransformer2DModel",
    "GlmImageTransformer2DModel", "Kandinsky5Transformer3DModel", "MochiTransformer3DModel", "PRXTransformer2DModel",
    "StableAudioDiTModel", "BriaTransformer2DModel", "LongCatImageTransformer2DModel", "HunyuanVideo15Transformer3DModel",
)  # fmt: skip


@cache
def denoiser(class_name: str, sizes: tuple[tuple[str, Any], ...] = (), blocks: int | None = 2) -> tuple[Shapes, dict[str, tuple[int, int]]]:
    """(name -> shape, linear layer -> (in, out)) of a denoiser; `blocks` None builds it as deep as it was published."""
    import inspect

    import diffusers
    import torch

    built: Any = getattr(diffusers, class_name)
    known = inspect.signature(built.__init__).parameters
    given = {name: list(value) if isinstance(value, tuple) and value and isinstance(value[0], tuple) else value for name, value in sizes}
    cut = {name: min(blocks, given.get(name) or known[name].default) for name in DEPTHS if name in known} if blocks else {}
    with torch.device("meta"):
        model = built(**{**given, **cut})
    layers = {name: (layer.in_features, layer.out_features) for name, layer in model.named_modules() if isinstance(layer, torch.nn.Linear)}
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}, layers


def of(model: Published, blocks: int | None = 2) -> tuple[Shapes, dict[str, tuple[int, int]]]:
    """The tables of a Published."""
    return denoiser(model.class_name, tuple((name, _frozen(value)) for name, value in model.sizes.items()), blocks)


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


ATTENTION = ("to_q", "to_k", "to_v", "to_out.0", "to_out", "to_qkv_mlp_proj")
SPELLINGS = ("kohya", "transformer.", "diffusion_model.", "base_model.model.", "")


def adapter_of(layers: Mapping[str, tuple[int, int]], spelling: str, *, attention: bool, rank: int = 16) -> Shapes:
    """A LoRA of these linear layers, of all or of the attention's alone."""
    found: Shapes = {}
    for name, (into, out) in layers.items():
        if attention and not name.endswith(tuple(f".{ending}" for ending in ATTENTION)):
            continue
        if spelling == "kohya":
            start = f"lora_unet_{name.replace('.', '_')}"
            found |= {f"{start}.lora_down.weight": (rank, into), f"{start}.lora_up.weight": (out, rank), f"{start}.alpha": ()}
        else:
            found |= {f"{spelling}{name}.lora_A.weight": (rank, into), f"{spelling}{name}.lora_B.weight": (out, rank)}
    return found
