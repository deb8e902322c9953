"""Families that are detected and not loaded: one Signature each. A family with a file in registry/families has its signature there.

Sources: diffusers' single_file_utils and model classes, ComfyUI's model_detection, SwarmUI's T2IModelClassSorter, InvokeAI's configs.
"""

from registry.aliases import Aliases
from registry.signature import BLOCK, JOINT, READS_TEXT, REFINER, SINGLE, TWO, Shape, Signature, Width

DETECT_ONLY: tuple[Signature, ...] = (
    Signature(
        family="pixart",
        keys=("t_block.1.weight", "x_embedder.proj.weight"),
        other_keys=(("adaln_single.emb.timestep_embedder.linear_1.bias", "pos_embed.proj.bias"),),
        absent=("attention_y_norm.weight",),  # Sana's, whose original implementation grew out of this one
        needs=(Shape(key="(x_embedder|pos_embed).proj.weight", axis=0, means={1152: None}),),
        marks={"ar_embedder.mlp.0.weight": "alpha", "adaln_single.emb.aspect_ratio_embedder.linear_1.weight": "alpha"},
        variants=(
            Shape(key="y_embedder.y_embedding", axis=0, means={120: "alpha", 300: "sigma"}),
            Shape(key="adaln_single.linear.weight", axis=1, means={1152: "sigma"}),  # diffusers' Sigma has no size conditions
        ),
        prediction="epsilon",
        pipelines="PixArt.*",
        adapter_shared=((TWO,), (READS_TEXT,), (rf"{BLOCK}attn2[._]to_[qv]$",)),
        adapter_absent=(SINGLE, rf"{BLOCK}attn[._]", rf"{BLOCK}audio", rf"{BLOCK}ff[._]conv"),
        adapter_widths=(Width(module=rf"{BLOCK}attn[12][._]to_q$", means={1152: None}), Width(module=READS_TEXT, means={1152: None})),
        adapter_blocks={"transformer_blocks": 28},
    ),
    Signature(
        family="ltx",
        aliases=Aliases(civitai=("ltxv",)),
        keys=(r"adaln_single.emb.timestep_embedder.linear_1.bias", r"transformer_blocks.0.attn2.to_k.weight"),
        other_keys=((r"time_embed.emb.timestep_embedder.linear_1.bias", r"transformer_blocks.0.attn2.to_k.weight", "proj_in.weight"),),
        absent=(r"pos_embed.proj.bias",),
        marks={"transformer_blocks.1.audio_to_video_attn.to_k.weight": "2", r"av_ca_.*": "2"},
        needs=(Shape(key="transformer_blocks.0.attn2.to_k.weight", axis=0, means={2048: None, 4096: None}),),
        prediction="flow",
        pipelines="LTX.*",
        adapter=((rf"{BLOCK}(audio|video)_to_(audio|video)_attn",),),
        adapter_shared=((TWO,), (READS_TEXT,), (rf"{BLOCK}attn2[._]to_[qv]$",)),
        adapter_absent=(SINGLE, rf"{BLOCK}attn[._]"),
        adapter_widths=(
            Width(module=rf"{BLOCK}attn[12][._]to_q$", means={2048: None, 4096: "13b"}),
            Width(module=READS_TEXT, means={2048: None, 4096: "13b"}),
        ),
        adapter_marks={rf"{BLOCK}(audio|video)_to_(audio|video)_attn": "2"},
        adapter_blocks={"transformer_blocks": 48},
    ),
    Signature(
        family="wan",
        aliases=Aliases(modelspec=("wan",), civitai=("wan video",)),
        keys=("head.modulation|scale_shift_table", "patch_embedding.weight", "blocks.0.(cross_attn.k|attn2.to_k).bias"),
        variants=(Shape(key="patch_embedding.weight", axis=0, means={1536: "1.3b", 5120: "14b", 3072: "5b"}),),
        tasks=(Shape(key="patch_embedding.weight", axis=1, means={36: "i2v"}),),
        task_marks={
            "vace_blocks.0..*": "vace",
            "img_emb.emb_pos|condition_embedder.image_embedder.pos_embed": "flf2v",
        },
        prediction="flow",
        pipelines="Wan.*",
        adapter=(
            (r"^(vace_)?blocks[._]\d+[._](self_attn|cross_attn)[._][qkvo]$",),
            (r"^(vace_)?blocks[._]\d+[._]attn[12][._](to_[qkv]|to_out[._]0)$",),
            (r"^blocks[._]\d+[._]ffn[._](0|2|net)",),
        ),
        adapter_absent=(r"^blocks[._]\d+[._]mlp", r"_attn[._][qkv]_proj"),
        adapter_widths=(
            Width(
                module=r"^(vace_)?blocks[._]\d+[._]((self_attn|cross_attn)[._]q|attn[12][._]to_q)$",
                means={1536: "1.3b", 5120: "14b", 3072: "5b"},
            ),
            Width(module=r"^(vace_)?blocks[._]\d+[._](self_attn[._]k|attn1[._]to_k)$", means={1536: "1.3b", 5120: "14b", 3072: "5b"}),
            Width(module=r"^blocks[._]\d+[._]ffn[._](0|net[._]0[._]proj)$", means={1536: "1.3b", 5120: "14b", 3072: "5b"}),
        ),
    ),
    Signature(
        family="hunyuan_image",
        aliases=Aliases(modelspec=("hunyuan-image",), base_version=("hunyuan_image",)),
        keys=("txt_in.individual_token_refiner.blocks.0..*", "byt5_in.fc1.bias"),
        other_keys=(
            (
                "context_embedder.token_refiner.refiner_blocks.0..*",
                "context_embedder_2.linear_1.weight|time_guidance_embed.*",
                "x_embedder.proj.weight",
            ),
        ),
        needs=(Shape(key="x_embedder.proj.weight", axis=0, means={3584: None}),),
        prediction="flow",
        pipelines="HunyuanImage.*",
        adapter_shared=(
            (JOINT, r"^single_transformer_blocks[._]\d+[._]attn[._]to_[qkv]$"),
            (r"^double_blocks[._]\d+[._](img|txt)_attn[._]?(qkv)?",),
            (r"^single_blocks[._]\d+[._]linear1$",),
        ),
        adapter_widths=(
            Width(module=JOINT, means={3584: None}),
            Width(module=r"^single_transformer_blocks[._]\d+[._]attn[._]to_[qkv]$", means={3584: None}),
            Width(module=r"^double_blocks[._]\d+[._](img|txt)_attn_(qkv|q)$", means={3584: None}),
            Width(module=r"^double_blocks[._]\d+[._](img|txt)_attn\.qkv$", means={3584: None}),
            Width(module=r"^single_blocks[._]\d+[._]linear1$", means={3584: None}),
        ),
        adapter_blocks={"transformer_blocks": 20, "double_blocks": 20, "single_transformer_blocks": 40, "single_blocks": 40},
    ),
    Signature(
        family="hunyuan_video",
        aliases=Aliases(modelspec=("hunyuan-video",), civitai=("hunyuan video",)),
        keys=("txt_in.individual_token_refiner.blocks.0..*",),
        other_keys=(("context_embedder.token_refiner.refiner_blocks.0..*", "x_embedder.proj.weight"),),
        absent=("byt5_in.fc1.bias", r"image_embedder.*|context_embedder_2.*"),
        needs=(Shape(key="x_embedder.proj.weight", axis=0, means={3072: None}),),
        variants=(
            Shape(key="img_in.proj.weight", axis=1, means={16: "t2v", 32: "i2v", 33: "i2v"}),
            Shape(key="x_embedder.proj.weight", axis=1, means={16: "t2v", 32: "i2v", 33: "i2v"}),
        ),
        marks={"clean_x_embedder..*": "framepack"},
        prediction="flow",
        pipelines="HunyuanVideo(Pipeline|Image.*|Framepack.*)",
        adapter=(
            (REFINER, r"^single_transformer_blocks[._]"),
            (r"^txt_in[._]individual_token_refiner",),
            (r"^double_blocks\.\d+\.(img|txt)_attn_(qkv|proj)",),
            (r"^double_blocks[._]\d+[._](img|txt)_mlp[._]fc[12]",),
        ),
        adapter_shared=(
            (JOINT, r"^single_transformer_blocks[._]\d+[._]attn[._]to_[qkv]$"),
            (r"^double_blocks[._]\d+[._](img|txt)_attn[._](qkv|proj)",),
            (r"^single_blocks[._]\d+[._]linear1$",),
        ),
        adapter_absent=(r"(img|txt)_mlp[._][02]$", r"mod(ulation)?[._]lin$", "to_qkv_mlp_proj", "distilled_guidance"),
        adapter_widths=(
            Width(module=JOINT, means={3072: None}),
            Width(module=r"^double_blocks[._]\d+[._](img|txt)_attn[._]qkv$", means={3072: None}),
            Width(module=r"^single_transformer_blocks[._]\d+[._]attn[._]to_[qkv]$", means={3072: None}),
            Width(module=r"^single_blocks[._]\d+[._]linear1$", means={3072: None}),
            Width(module=r"^single_blocks[._]\d+[._]linear1$", means={21504: None}, output=True),
        ),
        adapter_blocks={"transformer_blocks": 20, "double_blocks": 20, "single_transformer_blocks": 40, "single_blocks": 40},
    ),
    Signature(
        family="anima",
        aliases=Aliases(modelspec=("anima",), base_version=("anima",)),
        keys=(r"llm_adapter.blocks.0..*", r"blocks.\d+.adaln_modulation_cross_attn..*"),
        prediction="flow",
        pipelines="Anima.*",
        adapter=((r"^llm_adapter",),),
        adapter_shared=((r"^blocks[._]\d+[._](self_attn|cross_attn)[._][qkv]_proj$",),),
        adapter_widths=(Width(module=r"^blocks[._]\d+[._]self_attn[._][qkv]_proj$", means={2048: None}),),
        adapter_blocks={"blocks": 28},
    ),
    Signature(
        family="cosmos",
        keys=("x_embedder.proj.1.weight",),
        other_keys=(
            ("learnable_pos_embed.*", "patch_embed.proj.weight", "transformer_blocks.0.attn2.to_k.weight"),
            ("patch_embed.proj.weight", "time_embed.t_embedder.linear_1.weight", "transformer_blocks.0.attn2.to_k.weight"),
        ),
        absent=(r"llm_adapter..*",),
        pipelines="Cosmos.*",
        adapter_shared=(
            (r"^blocks[._]\d+[._](self_attn|cross_attn)[._][qkv]_proj$",),
            (r"^blocks[._]\d+[._]mlp[._]layer[12]",),
            (TWO,),
            (READS_TEXT,),
        ),
        adapter_widths=(
            Width(module=r"^blocks[._]\d+[._]self_attn[._][qkv]_proj$", means={2048: "2b", 5120: "14b"}),
            Width(module=r"^blocks[._]\d+[._]mlp[._]layer1", means={2048: "2b", 5120: "14b"}),
            Width(module=READS_TEXT, means={1024: None}),
            Width(module=TWO, means={2048: "2b", 4096: "7b", 5120: "14b"}),
        ),
        adapter_absent=(r"^llm_adapter", rf"{BLOCK}audio"),
    ),
    Signature(
        family="ideogram4",
        keys=("embed_image_indicator.weight",),
        prediction="flow",
        pipelines="Ideogram4.*",
        adapter=((r"^llm_cond_proj$",),),
        adapter_shared=((r"^layers[._]\d+[._]attention[._](to_[qkv]|qkv)$",), (r"^layers[._]\d+[._]feed_forward[._]w[13]$",)),
        adapter_widths=(
            Width(module=r"^layers[._]\d+[._]attention[._](to_[qkv]|qkv)$", means={4608: None}),
            Width(module=r"^layers[._]\d+[._]feed_forward[._]w[13]$", means={4608: None}),
        ),
    ),
    Signature(
        family="hidream",
        aliases=Aliases(civitai=("hidream",)),
        keys=("caption_projection.0.linear.weight", "double_stream_blocks.0..*"),
        other_keys=(("caption_projection.0.linear.weight",),),
        absent=("context_embedder.weight",),
        prediction="flow",
        pipelines="HiDream.*",
        adapter=((r"^(double|single)_stream_blocks[._]\d+[._]block",),),
    ),
    Signature(
        family="auraflow",
        aliases=Aliases(civitai=("auraflow",)),
        keys=("cond_seq_linear.weight",),
        other_keys=(("joint_transformer_blocks.0.attn.to_q.weight", "register_tokens"),),
        prediction="flow",
        pipelines="AuraFlow.*",
        adapter=(
            (r"^joint_transformer_blocks",),
            (r"^(double|single)_layers[._]\d+[._]attn[._]w[12][qkvo]",),
        ),
    ),
)
