"""The names of Black Forest Labs' own code for FLUX.1, as its single files and most adapters use them.

It fuses q, k, v (and a single block's first MLP layer) into one layer; diffusers has them apart. Held against diffusers' own
converter by a test.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

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
NORMS = {  # the scale of an RMS norm: `.scale` in the file, `.weight` here
    "double_blocks": {
        "img_attn.norm.query_norm": "attn.norm_q",
        "img_attn.norm.key_norm": "attn.norm_k",
        "txt_attn.norm.query_norm": "attn.norm_added_q",
        "txt_attn.norm.key_norm": "attn.norm_added_k",
    },
    "single_blocks": {"norm.query_norm": "attn.norm_q", "norm.key_norm": "attn.norm_k"},
}
HALVES_SWAPPED = "norm_out.linear"  # shift and scale stand the other way round in the file


@dataclass(frozen=True)
class Layer:
    """A linear layer of the file and the modules of diffusers that its rows are, in order."""

    original: str
    modules: tuple[str, ...]
    swapped: bool = False


def flux_layers(double_blocks: int, single_blocks: int) -> list[Layer]:
    """Every linear layer of a FLUX.1 transformer with so many blocks."""
    layers = [Layer(theirs, (ours,), ours == HALVES_SWAPPED) for theirs, ours in OUTER.items()]
    for kind, ours_kind, count, table in (
        ("double_blocks", "transformer_blocks", double_blocks, DOUBLE),
        ("single_blocks", "single_transformer_blocks", single_blocks, SINGLE),
    ):
        layers += [
            Layer(f"{kind}.{block}.{theirs}", tuple(f"{ours_kind}.{block}.{module}" for module in ours))
            for block in range(count)
            for theirs, ours in table.items()
        ]
    return layers


def flux_norms(double_blocks: int, single_blocks: int) -> dict[str, str]:
    """Name of every norm in the file -> module of diffusers."""
    return {
        f"{kind}.{block}.{theirs}": f"{ours_kind}.{block}.{ours}"
        for kind, ours_kind, count in (
            ("double_blocks", "transformer_blocks", double_blocks),
            ("single_blocks", "single_transformer_blocks", single_blocks),
        )
        for block in range(count)
        for theirs, ours in NORMS[kind].items()
    }
