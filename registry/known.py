"""Families we know by sight without loading them: one row each of keys and shapes that tell them apart.

Names are compared after the usual prefixes (model.diffusion_model., transformer., ...) are taken off. A family that has a file in
registry/families recognises itself; its rows here are not asked.
Sources: diffusers' single_file_utils, ComfyUI's model_detection, SwarmUI's T2IModelClassSorter, InvokeAI's configs.
"""

from registry.looks import Known, Shape, patterns_of

SD2_CONTEXT = Shape(key="input_blocks.2.1.transformer_blocks.0.attn2.to_k.weight", axis=-1, means={1024: None})

KNOWN: tuple[Known, ...] = (
    Known(
        family="sd2",
        keys=("input_blocks.0.0.weight",),
        needs=(SD2_CONTEXT,),
        variants=(Shape(key="input_blocks.0.0.weight", axis=1, means={5: "depth", 9: "inpaint", 8: "pix2pix"}),),
        adapter_width=1024,
    ),
    Known(
        family="sdxl_refiner",
        keys=("label_emb.0.0.weight",),
        needs=(
            Shape(key="label_emb.0.0.weight", axis=1, means={2560: None}),
            Shape(key="input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight", axis=-1, means={1280: None}),
        ),
        pipelines="StableDiffusionXLRefiner.*",
        adapter_width=1280,
    ),
    Known(
        family="sd3",
        keys=(r"joint_blocks.0.context_block.attn.qkv.weight",),
        marks={"joint_blocks.37.x_block.attn.qkv.weight": "3.5-large"},
        variants=(Shape(key="pos_embed", axis=1, means={36864: "3-medium", 147456: "3.5-medium"}),),
        prediction="flow",
        pipelines="StableDiffusion3.*",
        adapter=(
            (r"transformer_blocks[._]\d+[._]attn[._]add_q_proj", r"transformer_blocks[._]\d+[._]ff_context"),
            (r"joint_blocks[._]\d+",),
        ),
        adapter_absent=(r"single_transformer_blocks", r"img_mlp"),
    ),
    Known(
        family="flux2",
        keys=("(single_stream_modulation.lin|single_stream_modulation.linear).weight",),
        variants=(
            Shape(key="double_stream_modulation_img.lin.weight", axis=0, means={36864: "dev", 18432: "klein-4b", 24576: "klein-9b"}),
            Shape(key="double_stream_modulation_img.linear.weight", axis=0, means={36864: "dev", 18432: "klein-4b", 24576: "klein-9b"}),
        ),
        prediction="flow",
        pipelines="Flux2.*",
        adapter=((r"single_transformer_blocks[._]\d+[._]attn[._]to_qkv_mlp_proj",), (r"transformer_blocks[._]\d+[._]ff[._]linear_in",)),
    ),
    Known(
        family="qwen_image",
        keys=("txt_norm.weight", "img_in.weight", r"transformer_blocks.0.attn.add_k_proj.weight"),
        marks={"__index_timestep_zero__": "edit-2511"},
        prediction="flow",
        pipelines="QwenImage.*",
        adapter=(
            (r"transformer_blocks[._]\d+[._]attn[._]add_[qkv]_proj", r"transformer_blocks[._]\d+[._](img|txt)_mlp"),
            (r"transformer_blocks[._]59[._]",),
        ),
        adapter_absent=(r"single_transformer_blocks",),
    ),
    Known(
        family="z_image",
        keys=(r"context_refiner.0.attention.(k_norm|norm_k).weight", "layers.0.adaLN_modulation.0.weight"),
        prediction="flow",
        pipelines="ZImage.*",
        adapter=(
            (r"layers[._]\d+[._]attention[._]to_[qkv]",),
            (r"layers[._]\d+[._]feed_forward[._]w3", r"layers[._]\d+[._](attention|adaLN_modulation)"),
            (r"context_refiner[._]\d+[._]attention",),
        ),
        adapter_absent=(r"layers[._]\d+[._]attn[._]", r"layers[._]\d+[._]self_attn"),
    ),
    Known(
        family="lumina2",
        keys=("cap_embedder.1.weight", "layers.0.adaLN_modulation.1.weight"),
        prediction="flow",
        pipelines="Lumina2.*",
        adapter=((r"layers[._]\d+[._]attn[._]to_[qkv]", r"layers[._]\d+[._]feed_forward[._]linear_\d"),),
    ),
    Known(
        family="pixart",
        keys=(r"t_block.1.weight|adaln_single.emb.timestep_embedder.linear_1.bias", r"x_embedder.proj.weight|pos_embed.proj.bias"),
        marks={"ar_embedder.mlp.0.weight": "alpha", "adaln_single.emb.aspect_ratio_embedder.linear_1.weight": "alpha"},
        pipelines="PixArt.*",
    ),
    Known(
        family="ltx",
        keys=(r"adaln_single.emb.timestep_embedder.linear_1.bias", r"transformer_blocks.0.attn2.to_k.weight"),
        absent=(r"pos_embed.proj.bias",),
        marks={"transformer_blocks.1.audio_to_video_attn.to_k.weight": "2"},
        prediction="flow",
        pipelines="LTX.*",
    ),
    Known(
        family="wan",
        keys=(r"head.modulation|scale_shift_table", r"patch_embedding.weight", r"blocks.0.(cross_attn.k|attn2.to_k).bias"),
        variants=(Shape(key="patch_embedding.weight", axis=0, means={1536: "1.3b", 5120: "14b", 3072: "5b"}),),
        prediction="flow",
        pipelines="Wan.*",
        adapter=(
            (r"(^|[._])blocks[._]\d+[._](self_attn|cross_attn)[._][qkvo]$",),
            (r"(^|[._])blocks[._]\d+[._]attn[12][._]to_[qkv]$", r"(^|[._])blocks[._]\d+[._]ffn"),
        ),
        adapter_absent=(r"blocks[._]\d+[._]mlp", r"_attn[._][qkv]_proj"),
    ),
    Known(
        family="hunyuan_image",
        keys=(r"txt_in.individual_token_refiner.blocks.0..*", "byt5_in.fc1.bias"),
        prediction="flow",
        pipelines="HunyuanImage.*",
    ),
    Known(
        family="hunyuan_video",
        keys=(r"txt_in.individual_token_refiner.blocks.0..*",),
        absent=("byt5_in.fc1.bias",),
        prediction="flow",
        pipelines="HunyuanVideo.*",
    ),
    Known(
        family="krea2", keys=("txtfusion.projector.weight",), prediction="flow", pipelines="Krea2.*", adapter=((r"text_fusion|txtfusion",),)
    ),
    Known(
        family="anima",
        keys=(r"llm_adapter.blocks.0..*", r"blocks.\d+.adaln_modulation_cross_attn..*"),
        pipelines="Anima.*",
        adapter=((r"llm_adapter",),),
    ),
    Known(family="ideogram4", keys=("embed_image_indicator.weight",), pipelines="Ideogram4.*"),
    Known(family="hidream", keys=("caption_projection.0.linear.weight",), prediction="flow", pipelines="HiDream.*"),
    Known(family="auraflow", keys=("cond_seq_linear.weight",), prediction="flow", pipelines="AuraFlow.*"),
    Known(
        family="sana",
        keys=(r"attention_y_norm.weight|blocks.0.cross_attn.q_linear.weight|caption_norm.weight",),
        absent=(r"t_block.1.weight",),
        prediction="flow",
        pipelines="Sana.*",
    ),
    Known(
        family="cosmos",
        keys=(r"x_embedder.proj.1.weight",),
        absent=(r"llm_adapter..*",),
        pipelines="Cosmos.*",
        adapter=((r"blocks[._]\d+[._]mlp", r"_attn[._][qkv]_proj"),),
    ),
)

PATTERNS = patterns_of(KNOWN)
"""Every expression that the rows look for in an adapter's module names."""
