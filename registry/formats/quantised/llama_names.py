"""The names of text encoders in GGUF files, which are llama.cpp's (gguf-py's tensor_mapping), by `general.architecture`."""

from __future__ import annotations

import re
from collections.abc import Mapping

T5 = {
    "token_embd": "shared",
    "enc.output_norm": "encoder.final_layer_norm",
    "enc.blk.*.attn_norm": "encoder.block.*.layer.0.layer_norm",
    "enc.blk.*.attn_q": "encoder.block.*.layer.0.SelfAttention.q",
    "enc.blk.*.attn_k": "encoder.block.*.layer.0.SelfAttention.k",
    "enc.blk.*.attn_v": "encoder.block.*.layer.0.SelfAttention.v",
    "enc.blk.*.attn_o": "encoder.block.*.layer.0.SelfAttention.o",
    "enc.blk.*.attn_rel_b": "encoder.block.*.layer.0.SelfAttention.relative_attention_bias",
    "enc.blk.*.ffn_norm": "encoder.block.*.layer.1.layer_norm",
    "enc.blk.*.ffn_gate": "encoder.block.*.layer.1.DenseReluDense.wi_0",
    "enc.blk.*.ffn_up": "encoder.block.*.layer.1.DenseReluDense.wi_1",
    "enc.blk.*.ffn_down": "encoder.block.*.layer.1.DenseReluDense.wo",
}
QWEN = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "blk.*.attn_norm": "model.layers.*.input_layernorm",
    "blk.*.attn_q": "model.layers.*.self_attn.q_proj",
    "blk.*.attn_k": "model.layers.*.self_attn.k_proj",
    "blk.*.attn_v": "model.layers.*.self_attn.v_proj",
    "blk.*.attn_output": "model.layers.*.self_attn.o_proj",
    "blk.*.attn_q_norm": "model.layers.*.self_attn.q_norm",
    "blk.*.attn_k_norm": "model.layers.*.self_attn.k_norm",
    "blk.*.ffn_norm": "model.layers.*.post_attention_layernorm",
    "blk.*.ffn_gate": "model.layers.*.mlp.gate_proj",
    "blk.*.ffn_up": "model.layers.*.mlp.up_proj",
    "blk.*.ffn_down": "model.layers.*.mlp.down_proj",
}
# Left out: llama and mistral, whose rows of q and k are in another order there; gemma, whose norms have 1 added.
ARCHITECTURES: Mapping[str, Mapping[str, str]] = {"t5": T5, "t5encoder": T5, "qwen2": QWEN, "qwen2vl": QWEN, "qwen3": QWEN}


def transformers_name(architecture: str, key: str) -> str:
    """A tensor's name in transformers; its own where it is none of the architecture's. Raises KeyError for another architecture."""
    module, _, ending = key.rpartition(".")
    numbers = re.findall(r"(?<=\.)\d+(?=\.|$)", module)
    name = ARCHITECTURES[architecture].get(re.sub(r"(?<=\.)\d+(?=\.|$)", "*", module))
    if name is None:
        return key
    for number in numbers:
        name = name.replace("*", number, 1)
    return f"{name}.{ending}"
