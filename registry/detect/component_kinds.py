"""Component files identified by their keys: VAE, embedding, ControlNet, text encoder."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from registry.architectures.unet.model import VARIANTS
from registry.families import FAMILIES
from registry.family import Family
from registry.formats.safetensors_header import TensorInfo

Tensors = Mapping[str, TensorInfo]

EMBEDDING_TENSORS = 4  # at most: an embedding holds one tensor an encoder
EMBEDDING_TOKENS = 256  # at most, a tensor


@dataclass(frozen=True)
class ComponentKind:
    """A kind with its reasons; several families mean that the keys fit them all."""

    kind: str
    evidence: tuple[str, ...]
    families: tuple[str, ...] = ()
    variant: str | None = None
    dialect: str | None = None
    components: tuple[str, ...] = ()


def kind_by_keys(tensors: Tensors) -> ComponentKind | None:
    """The component kind of a file; None for checkpoints and for unknown files."""
    return _controlnet(tensors) or _embedding(tensors) or _vae(tensors) or _text_encoder(tensors) or _diffusers_unet(tensors)


CONTROL_MARKS = (
    ("control_model.input_hint_block.0.weight", None, "ldm"),
    ("input_hint_block.0.weight", None, "ldm"),
    ("controlnet_cond_embedding.conv_in.weight", None, "diffusers"),
    ("controlnet_x_embedder.weight", None, "diffusers"),
    ("pos_embed_input.proj.weight", None, "diffusers"),
    ("lora_controlnet", "control-lora", "ldm"),
    ("adapter.body.0.resnets.0.block1.weight", "t2i-adapter", "diffusers"),
    ("body.0.block1.weight", "t2i-adapter", "ldm"),
    ("image_proj.proj.weight", "ip-adapter", None),
    ("image_proj.latents", "ip-adapter", None),
)


def _controlnet(tensors: Tensors) -> ComponentKind | None:
    for mark, variant, dialect in CONTROL_MARKS:
        if mark in tensors:
            return ComponentKind("controlnet", (f"key {mark}",), _by_context(tensors), variant, dialect)
    lllite = next((name for name in tensors if name.startswith("lllite_")), None)
    if lllite:
        return ComponentKind("controlnet", (f"key {lllite}",), _by_context(tensors), "lllite", "kohya")
    return None


def _by_context(tensors: Tensors) -> tuple[str, ...]:
    """The families by the width of the text states that are attended to, else by names that only their ControlNets have."""
    for name, info in tensors.items():
        if name.endswith("attn2.to_k.weight") and len(info.shape) == 2 and (found := of_cross_attention(info.shape[1])):
            return found
    return _families(lambda family: any(key in name for key in family.controlnet_keys for name in tensors))


def of_cross_attention(width: object) -> tuple[str, ...]:
    """The families whose UNet and ControlNets attend to text states of this width."""
    return _families(lambda family: family.cross_attention_dim is not None and family.cross_attention_dim == width)


def _families(fits: Callable[[Family], bool]) -> tuple[str, ...]:
    return tuple(name for name, family in FAMILIES.items() if fits(family))


def _embedding(tensors: Tensors) -> ComponentKind | None:
    if not 0 < len(tensors) <= EMBEDDING_TENSORS:
        return None
    for name, family in FAMILIES.items():
        if family.embedding_keys and set(family.embedding_keys) <= set(tensors):
            return ComponentKind(
                "embedding", (f"keys {' and '.join(family.embedding_keys)}",), (name,), None, "a1111", family.text_encoders
            )
    shapes = [info.shape for info in tensors.values()]
    if not all(1 <= len(shape) <= 2 and _tokens(shape) <= EMBEDDING_TOKENS for shape in shapes):
        return None
    name = next(iter(tensors))
    marked = name == "emb_params" or name.startswith(("string_to_param", "<"))  # of any width: small builds have their own
    if not marked and ("." in name or not all(_of_embedding(shape[-1]) for shape in shapes)):
        return None
    dialect = "a1111" if name == "emb_params" or name.startswith("string_to_param") else "diffusers"
    return ComponentKind("embedding", (f"key {name} {shapes[0]}",), _of_embedding(shapes[0][-1]), None, dialect, ("text_encoder",))


def _of_embedding(width: int) -> tuple[str, ...]:
    """The families whose textual inversion embeddings have this width."""
    return _families(lambda family: family.embedding_dim == width)


def _tokens(shape: tuple[int, ...]) -> int:
    return shape[0] if len(shape) == 2 else 1


def _vae(tensors: Tensors) -> ComponentKind | None:
    """Encoder and decoder on their own; the latent channels give the possible families."""
    for prefix in ("", "first_stage_model.", "vae."):
        conv = tensors.get(f"{prefix}decoder.conv_in.weight")
        if conv is None or len(conv.shape) not in (4, 5) or any(not name.startswith(prefix) for name in tensors if prefix):
            continue
        if any(name.startswith(("model.diffusion_model.", "cond_stage_model.", "conditioner.")) for name in tensors):
            return None
        diffusers = any(".up_blocks." in name for name in tensors)
        if not diffusers and not any(".up." in name for name in tensors):
            continue
        channels = conv.shape[1]
        families = _of_vae(channels) if len(conv.shape) == 4 else ()
        evidence = (f"key {prefix}decoder.conv_in.weight", f"{channels} latent channels")
        return ComponentKind("vae", evidence, families, None, "diffusers" if diffusers else "ldm", ("vae",))
    return None


def _of_vae(channels: int) -> tuple[str, ...]:
    """The families whose VAE has so many latent channels."""
    return _families(lambda family: family.vae_channels == channels)


TEXT_MARKS = (
    ("text_model.encoder.layers.0.self_attn.q_proj.weight", "clip"),
    ("encoder.block.0.layer.0.SelfAttention.q.weight", "t5"),
    ("transformer.resblocks.0.attn.in_proj_weight", "open-clip"),
    ("model.layers.0.self_attn.q_proj.weight", "language-model"),
)


def _text_encoder(tensors: Tensors) -> ComponentKind | None:
    for mark, variant in TEXT_MARKS:
        for prefix in ("", "text_encoder.", "cond_stage_model.model."):
            info = tensors.get(prefix + mark)
            if info is None or any(name.startswith(("model.diffusion_model.", "first_stage_model.")) for name in tensors):
                continue
            width = info.shape[-1] if info.shape else 0
            if variant == "clip":
                variant = {768: "clip-l", 1024: "clip-h", 1280: "clip-g"}.get(width, "clip")
            return ComponentKind("text_encoder", (f"key {prefix + mark}", f"width {width}"), (), variant, None, ("text_encoder",))
    return None


def _diffusers_unet(tensors: Tensors) -> ComponentKind | None:
    """A UNet alone, in diffusers' names: one component of a checkpoint."""
    for prefix in ("", "unet."):
        first = tensors.get(f"{prefix}conv_in.weight")
        if first is not None and f"{prefix}down_blocks.0.resnets.0.conv1.weight" in tensors:
            evidence = (f"keys {prefix}conv_in and {prefix}down_blocks.0.resnets.0.conv1",)
            variant = VARIANTS.get(first.shape[1]) if len(first.shape) == 4 else None
            return ComponentKind("checkpoint", evidence, _by_context(tensors), variant, "diffusers", ("unet",))
    return None
