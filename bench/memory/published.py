"""Sizes of the published models: what their config.json files say where it is not what the tiny builds of tests/ have.

Figures, not files: layers, widths and heads, as the models' own repositories publish them. `FOLDERS` names, for every build in the
table, the tiny folder whose classes it has, and the settings by component.
"""

from __future__ import annotations

from typing import Any

Config = dict[str, Any]

KL: Config = {"block_out_channels": [128, 256, 512, 512], "layers_per_block": 2, "norm_num_groups": 32, "sample_size": 1024}
KL |= {"down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4}


def clip(width: int, layers: int, heads: int, projection: int = 768) -> Config:
    return {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "max_position_embeddings": 77,
        "projection_dim": projection,
        "vocab_size": 49408,
        "bos_token_id": 49406,
        "eos_token_id": 49407,
    }


CLIP_L, CLIP_H, CLIP_G = clip(768, 12, 12), clip(1024, 23, 16), clip(1280, 32, 20, 1280)
T5_XXL: Config = {"d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64, "vocab_size": 32128}


def language_model(width: int, inner: int, layers: int, heads: int, shared: int, vocabulary: int, head: int = 128) -> Config:
    return {
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": shared,
        "head_dim": head,
        "vocab_size": vocabulary,
        "layer_types": ["full_attention"] * layers,
        "max_position_embeddings": 32768,
    }


QWEN3_4B = language_model(2560, 9728, 36, 32, 8, 151936)
QWEN3_8B = language_model(4096, 12288, 36, 32, 8, 151936)
GEMMA2_2B = language_model(2304, 9216, 26, 8, 4, 256000, head=256)
QWEN_VL_7B: Config = {
    "text_config": language_model(3584, 18944, 28, 28, 4, 152064)
    | {"rope_parameters": {"mrope_section": [16, 24, 24], "rope_theta": 1e6, "rope_type": "default"}},
    "vision_config": {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 3584},
}
QWEN3_VL_4B: Config = {  # not at hand: of the width that diffusers' Krea 2 reads, and Qwen3 4B's for the rest
    "text_config": QWEN3_4B | {"rope_parameters": {"mrope_section": [24, 20, 20], "rope_theta": 5e6, "rope_type": "default"}},
    "vision_config": {
        "depth": 24,
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_heads": 16,
        "out_hidden_size": 2560,
        "deepstack_visual_indexes": [5, 11, 17],
    },
}
MISTRAL_24B: Config = {
    "text_config": language_model(5120, 32768, 40, 32, 8, 131072),
    "vision_config": {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16, "head_dim": 64},
}

UNET: Config = {"layers_per_block": 2, "norm_num_groups": 32}
CROSS, DOWN, UP = "CrossAttnDownBlock2D", "DownBlock2D", "UpBlock2D"
ATTENDED_UP = "CrossAttnUpBlock2D"
SD_UNET = UNET | {
    "block_out_channels": [320, 640, 1280, 1280],
    "down_block_types": [CROSS, CROSS, CROSS, DOWN],
    "up_block_types": [UP, ATTENDED_UP, ATTENDED_UP, ATTENDED_UP],
}
FLUX: Config = {
    "num_layers": 19,
    "num_single_layers": 38,
    "attention_head_dim": 128,
    "num_attention_heads": 24,
    "joint_attention_dim": 4096,
}
FLUX |= {"axes_dims_rope": [16, 56, 56]}
SD3: Config = {
    "num_layers": 24,
    "num_attention_heads": 24,
    "attention_head_dim": 64,
    "caption_projection_dim": 1536,
    "joint_attention_dim": 4096,
}
SD3 |= {"pooled_projection_dim": 2048, "pos_embed_max_size": 384, "sample_size": 128}
SD3_ENCODERS = {"text_encoder": CLIP_L, "text_encoder_2": CLIP_G, "text_encoder_3": T5_XXL}
FLUX2: Config = {"attention_head_dim": 128, "axes_dims_rope": [32, 32, 32, 32]}
KREA2: Config = {  # the defaults of diffusers' class: the published config.json was not at hand
    "num_layers": 28,
    "attention_head_dim": 128,
    "num_attention_heads": 48,
    "num_key_value_heads": 12,
    "intermediate_size": 16384,
    "timestep_embed_dim": 256,
    "text_hidden_dim": 2560,
    "num_text_layers": 12,
    "text_num_attention_heads": 20,
    "text_num_key_value_heads": 20,
    "text_intermediate_size": 6912,
    "num_layerwise_text_blocks": 2,
    "num_refiner_text_blocks": 2,
    "axes_dims_rope": [32, 48, 48],
}
VIDEO_VAE: Config = {"base_dim": 96, "dim_mult": [1, 2, 4, 4], "num_res_blocks": 2}

# title -> (family, variant of the tiny build or None, pixels a side, component -> settings)
FOLDERS: dict[str, tuple[str, str | None, int, dict[str, Config]]] = {
    "SD 1.5": (
        "sd1",
        None,
        512,
        {"unet": SD_UNET | {"attention_head_dim": 8, "cross_attention_dim": 768, "sample_size": 64}, "vae": KL, "text_encoder": CLIP_L},
    ),
    "SD 2.1": (
        "sd2",
        None,
        768,
        {
            "unet": SD_UNET | {"attention_head_dim": [5, 10, 20, 20], "cross_attention_dim": 1024, "sample_size": 96},
            "vae": KL,
            "text_encoder": CLIP_H,
        },
    ),
    "SDXL": (
        "sdxl",
        None,
        1024,
        {
            "unet": UNET
            | {
                "block_out_channels": [320, 640, 1280],
                "down_block_types": [DOWN, CROSS, CROSS],
                "up_block_types": [ATTENDED_UP, ATTENDED_UP, UP],
                "transformer_layers_per_block": [1, 2, 10],
                "attention_head_dim": [5, 10, 20],
                "cross_attention_dim": 2048,
                "addition_time_embed_dim": 256,
                "projection_class_embeddings_input_dim": 2816,
                "sample_size": 128,
            },
            "vae": KL,
            "text_encoder": CLIP_L,
            "text_encoder_2": CLIP_G,
        },
    ),
    "SD 3.5 medium": (
        "sd3",
        "medium",
        1024,
        {"transformer": SD3 | {"qk_norm": "rms_norm", "dual_attention_layers": list(range(13))}, "vae": KL, **SD3_ENCODERS},
    ),
    "SD 3.5 large": (
        "sd3",
        "large",
        1024,
        {
            "transformer": SD3
            | {
                "num_layers": 38,
                "num_attention_heads": 38,
                "caption_projection_dim": 2432,
                "pos_embed_max_size": 192,
                "qk_norm": "rms_norm",
            },
            "vae": KL,
            **SD3_ENCODERS,
        },
    ),
    "FLUX.1 dev": (
        "flux1",
        "dev",
        1024,
        {"transformer": FLUX | {"pooled_projection_dim": 768}, "vae": KL, "text_encoder": CLIP_L, "text_encoder_2": T5_XXL},
    ),
    "Chroma1": (
        "chroma",
        None,
        1024,
        {
            "transformer": FLUX | {"approximator_num_channels": 64, "approximator_hidden_dim": 5120, "approximator_layers": 5},
            "vae": KL,
            "text_encoder": T5_XXL,
        },
    ),
    "FLUX.2 klein 4B": (
        "flux2",
        "klein",
        1024,
        {
            "transformer": FLUX2 | {"num_layers": 5, "num_single_layers": 20, "num_attention_heads": 24, "joint_attention_dim": 7680},
            "vae": KL,
            "text_encoder": QWEN3_4B,
        },
    ),
    "FLUX.2 klein 9B": (
        "flux2",
        "klein",
        1024,
        {
            "transformer": FLUX2 | {"num_layers": 8, "num_single_layers": 24, "num_attention_heads": 32, "joint_attention_dim": 12288},
            "vae": KL,
            "text_encoder": QWEN3_8B,
        },
    ),
    "FLUX.2 dev": (
        "flux2",
        "dev",
        1024,
        {
            "transformer": FLUX2 | {"num_layers": 8, "num_single_layers": 48, "num_attention_heads": 48, "joint_attention_dim": 15360},
            "vae": KL,
            "text_encoder": MISTRAL_24B,
        },
    ),
    "Qwen-Image": (
        "qwen_image",
        None,
        1024,
        {
            "transformer": {
                "num_layers": 60,
                "attention_head_dim": 128,
                "num_attention_heads": 24,
                "joint_attention_dim": 3584,
                "axes_dims_rope": [16, 56, 56],
            },
            "vae": VIDEO_VAE,
            "text_encoder": QWEN_VL_7B,
        },
    ),
    "Krea 2": (
        "krea2",
        "base",
        1024,
        {
            "transformer": KREA2,
            "vae": VIDEO_VAE,
            "text_encoder": QWEN3_VL_4B,
            "model_index.json": {"text_encoder_select_layers": [2, 5, 8, 11, 14, 17, 20, 23, 26, 29, 32, 35]},
        },
    ),
    "Z-Image": (
        "z_image",
        None,
        1024,
        {
            "transformer": {
                "dim": 3840,
                "n_layers": 30,
                "n_refiner_layers": 2,
                "n_heads": 30,
                "n_kv_heads": 30,
                "cap_feat_dim": 2560,
                "axes_dims": [32, 48, 48],
                "axes_lens": [1536, 512, 512],
            },
            "vae": KL,
            "text_encoder": QWEN3_4B,
        },
    ),
    "Lumina Image 2": (
        "lumina2",
        None,
        1024,
        {
            "transformer": {
                "hidden_size": 2304,
                "num_layers": 26,
                "num_refiner_layers": 2,
                "num_attention_heads": 24,
                "num_kv_heads": 8,
                "multiple_of": 256,
                "axes_dim_rope": [32, 32, 32],
                "axes_lens": [300, 512, 512],
                "cap_feat_dim": 2304,
                "sample_size": 128,
            },
            "vae": KL,
            "text_encoder": GEMMA2_2B,
        },
    ),
    "Sana 1.6B": (
        "sana",
        None,
        1024,
        {
            "transformer": {
                "in_channels": 32,
                "out_channels": 32,
                "num_layers": 20,
                "num_attention_heads": 70,
                "attention_head_dim": 32,
                "num_cross_attention_heads": 20,
                "cross_attention_head_dim": 112,
                "cross_attention_dim": 2240,
                "caption_channels": 2304,
                "sample_size": 32,
            },
            "vae": {
                "latent_channels": 32,
                "attention_head_dim": 32,
                "encoder_block_types": ["ResBlock"] * 3 + ["EfficientViTBlock"] * 3,
                "decoder_block_types": ["ResBlock"] * 3 + ["EfficientViTBlock"] * 3,
                "encoder_block_out_channels": [128, 256, 512, 512, 1024, 1024],
                "decoder_block_out_channels": [128, 256, 512, 512, 1024, 1024],
                "encoder_layers_per_block": [2, 2, 2, 3, 3, 3],
                "decoder_layers_per_block": [3, 3, 3, 3, 3, 3],
                "encoder_qkv_multiscales": [[], [], [], [5], [5], [5]],
                "decoder_qkv_multiscales": [[], [], [], [5], [5], [5]],
            },
            "text_encoder": GEMMA2_2B,
        },
    ),
}
