"""The names of Black Forest Labs' own code for FLUX.1, as its single files and most adapters use them.

It fuses q, k, v (and a single block's first MLP layer) into one layer; diffusers has them apart. Held against diffusers' own
converter by a test.
"""

from __future__ import annotations

from collections.abc import Mapping

from registry.formats.layers import Layer

OUTER = {
    "img_in": "x_embedder",
    "txt_in": "context_embedder",
    "time_in.in_layer": "time_text_embed.timestep_embedder.linear_1",
    "time_in.out_layer": "time_text_embed.timestep_embedder.linear_2",
    "vector_in.in_layer": "time_text_embed.text_embedder.linear_1",
    "vector_in.out_layer": "time_text_embed.text_embedder.linear_2",
    "guidance_in.in_layer": "time_text_embed.guidance_embedder.linear_1",
    "guidance_in.out_layer": "time_text_embed.guidance_embedder.linear_2",
    "final_layer.linear": "proj_out",
    "final_layer.adaLN_modulation.1": "norm_out.linear",
}
DOUBLE: Mapping[str, tuple[str, ...]] = {
    "img_mod.lin": ("norm1.linear",),
    "txt_mod.lin": ("norm1_context.linear",),
    "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "img_attn.proj": ("attn.to_out.0",),
    "txt_attn.proj": ("attn.to_add_out",),
    "img_mlp.0": ("ff.net.0.proj",),
    "img_mlp.2": ("ff.net.2",),
    "txt_mlp.0": ("ff_context.net.0.proj",),
    "txt_mlp.2": ("ff_context.net.2",),
}
SINGLE: Mapping[str, tuple[str, ...]] = {
    "linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
    "linear2": ("proj_out",),
    "modulation.lin": ("norm.linear",),
}
NORMS: Mapping[str, str] = {  # the scale of an RMS norm: `.weight` in diffusers, `.scale` in the file
    **{
        f"transformer_blocks.*.attn.{diffusers_key}.weight": f"double_blocks.*.{original_key}.scale"
        for diffusers_key, original_key in {
            "norm_q": "img_attn.norm.query_norm",
            "norm_k": "img_attn.norm.key_norm",
            "norm_added_q": "txt_attn.norm.query_norm",
            "norm_added_k": "txt_attn.norm.key_norm",
        }.items()
    },
    **{
        f"single_transformer_blocks.*.attn.{diffusers_key}.weight": f"single_blocks.*.norm.{original_key}.scale"
        for diffusers_key, original_key in {"norm_q": "query_norm", "norm_k": "key_norm"}.items()
    },
}
HALVES_SWAPPED = "norm_out.linear"  # shift and scale are swapped in the file


MLP_RATIO = 4  # of the published transformer: a single block's first MLP layer is as wide as four inputs

FLUX_LAYERS: tuple[Layer, ...] = (
    *(Layer(original_key, (diffusers_key,), diffusers_key == HALVES_SWAPPED) for original_key, diffusers_key in OUTER.items()),
    *(
        Layer(f"double_blocks.*.{original_key}", tuple(f"transformer_blocks.*.{module}" for module in diffusers_key))
        for original_key, diffusers_key in DOUBLE.items()
    ),
    *(
        Layer(
            f"single_blocks.*.{original_key}",
            tuple(f"single_transformer_blocks.*.{module}" for module in diffusers_key),
            widths=(1, 1, 1, MLP_RATIO) if len(diffusers_key) > 1 else (),
        )
        for original_key, diffusers_key in SINGLE.items()
    ),
)
"""Every linear layer of a FLUX.1 transformer, `*` for the number of its block."""
