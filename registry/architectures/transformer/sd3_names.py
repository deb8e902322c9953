"""The names of Stability's own code for Stable Diffusion 3, as its single files and kohya's adapters have them.

It fuses q, k and v into one layer and calls the two streams of a block x_block (the image) and context_block (the text). A test
compares them with diffusers' converter.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any

from registry.architectures.unet.components import named_piece, vae_piece
from registry.formats.key_map import KeyLocation
from registry.formats.layers import Layer, every
from registry.formats.transformer_file import FileNames

X, CONTEXT, OURS = "joint_blocks.*.x_block.", "joint_blocks.*.context_block.", "transformer_blocks.*."

LAYERS: tuple[Layer, ...] = (
    Layer("x_embedder.proj", ("pos_embed.proj",)),
    Layer("t_embedder.mlp.0", ("time_text_embed.timestep_embedder.linear_1",)),
    Layer("t_embedder.mlp.2", ("time_text_embed.timestep_embedder.linear_2",)),
    Layer("y_embedder.mlp.0", ("time_text_embed.text_embedder.linear_1",)),
    Layer("y_embedder.mlp.2", ("time_text_embed.text_embedder.linear_2",)),
    Layer("context_embedder", ("context_embedder",)),
    Layer("final_layer.linear", ("proj_out",)),
    Layer("final_layer.adaLN_modulation.1", ("norm_out.linear",), swapped=True),
    Layer(f"{X}attn.qkv", every(f"{OURS}attn.", ("to_q", "to_k", "to_v"))),
    Layer(f"{X}attn.proj", (f"{OURS}attn.to_out.0",)),
    Layer(f"{X}attn2.qkv", every(f"{OURS}attn2.", ("to_q", "to_k", "to_v"))),  # of 3.5 medium's first blocks
    Layer(f"{X}attn2.proj", (f"{OURS}attn2.to_out.0",)),
    Layer(f"{X}mlp.fc1", (f"{OURS}ff.net.0.proj",)),
    Layer(f"{X}mlp.fc2", (f"{OURS}ff.net.2",)),
    Layer(f"{X}adaLN_modulation.1", (f"{OURS}norm1.linear",)),
    Layer(f"{CONTEXT}attn.qkv", every(f"{OURS}attn.", ("add_q_proj", "add_k_proj", "add_v_proj"))),
    Layer(f"{CONTEXT}attn.proj", (f"{OURS}attn.to_add_out",)),
    Layer(f"{CONTEXT}mlp.fc1", (f"{OURS}ff_context.net.0.proj",)),
    Layer(f"{CONTEXT}mlp.fc2", (f"{OURS}ff_context.net.2",)),
    # the last block's text stream is scaled and shifted only: two rows an input instead of six, and in the other order
    Layer(f"{CONTEXT}adaLN_modulation.1", (f"{OURS}norm1_context.linear",), swapped=True, swapped_height=2),
)
"""Every layer of the transformer, `*` for the number of its block."""

NORMS: Mapping[str, str] = {  # of queries and keys, in 3.5
    f"{OURS}attn.norm_q.weight": f"{X}attn.ln_q.weight",
    f"{OURS}attn.norm_k.weight": f"{X}attn.ln_k.weight",
    f"{OURS}attn2.norm_q.weight": f"{X}attn2.ln_q.weight",
    f"{OURS}attn2.norm_k.weight": f"{X}attn2.ln_k.weight",
    f"{OURS}attn.norm_added_q.weight": f"{CONTEXT}attn.ln_q.weight",
    f"{OURS}attn.norm_added_k.weight": f"{CONTEXT}attn.ln_k.weight",
}

FILE_NAMES = FileNames(
    title="Stable Diffusion 3",
    class_name="SD3Transformer2DModel",
    diffusers_key="transformer_blocks.0.attn.to_q.weight",
    original_key="joint_blocks.0.x_block.attn.qkv.weight",
    layers=LAYERS,
    others={**NORMS, "pos_embed.pos_embed": "pos_embed"},
)

PIECES = (
    vae_piece(scaling_factor=1.5305, sample_size=1024),
    named_piece(  # CLIP-L lies there without the projection that its class has: the code pools it unprojected
        component="text_encoder",
        class_name="CLIPTextModelWithProjection",
        prefix="text_encoders.clip_l.transformer.",
        identities=("text_projection.weight",),
    ),
    named_piece(component="text_encoder_2", class_name="CLIPTextModelWithProjection", prefix="text_encoders.clip_g.transformer."),
    named_piece(
        component="text_encoder_3",
        class_name="T5EncoderModel",
        prefix="text_encoders.t5xxl.transformer.",
        tied={"encoder.embed_tokens.weight": "shared.weight"},
    ),
)
"""Components beside the transformer in some files: the VAE in LDM names, the text encoders in transformers' own."""


class Published(Container[str]):
    """The keys of a whole file as it is published: every one, but none in diffusers' names."""

    def __contains__(self, key: object) -> bool:
        return not str(key).endswith(FILE_NAMES.diffusers_key)


class WholeFile:
    """Where every component's parameters are in a single file: the transformer's by its names, the others' by their pieces."""

    published = Published()
    implementation = "https://github.com/Stability-AI/sd3-ref"

    def shape_in_file(self, key: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The VAE's attention is four 1 x 1 convolutions there (FileKeyMap)."""
        return (*shape, 1, 1) if ".mid.attn_1." in key and len(shape) == 2 else shape

    def places(
        self, component: str, config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], keys: Container[str]
    ) -> dict[str, KeyLocation]:
        """The parameters of one component (FileKeyMap)."""
        if component == "transformer":
            return FILE_NAMES.places(component, config, shapes, keys)
        return next((piece.places(config, shapes, keys) for piece in PIECES if piece.component == component), {})
