"""Component files whose keys leave the family open: what sizes say of it, as the families themselves have them."""

import pytest

from registry.detect.component_kinds import kind_by_keys, of_cross_attention
from registry.formats.safetensors_header import TensorInfo

Shapes = dict[str, tuple[int, ...]]


def tensors(shapes: Shapes) -> dict[str, TensorInfo]:
    return {name: TensorInfo("F16", shape) for name, shape in shapes.items()}


@pytest.mark.parametrize(
    ("channels", "families"),
    [(4, {"sd1", "sd2", "sdxl"}), (16, {"flux1", "sd3", "z_image", "lumina2"}), (32, {"flux2"}), (8, set())],
)
def test_the_latent_channels_of_a_vae_name_its_families(channels: int, families: set[str]) -> None:
    kind = kind_by_keys(tensors({"decoder.conv_in.weight": (512, channels, 3, 3), "decoder.up.0.block.0.conv1.weight": (128, 128, 3, 3)}))
    assert kind is not None and (kind.kind, set(kind.families)) == ("vae", families)


def test_a_video_vae_names_no_family() -> None:
    kind = kind_by_keys(tensors({"decoder.conv_in.weight": (512, 16, 3, 3, 3), "decoder.up_blocks.0.x.weight": (1,)}))
    assert kind is not None and (kind.kind, kind.families) == ("vae", ())


@pytest.mark.parametrize(("width", "family"), [(768, "sd1"), (1024, "sd2"), (1280, "sdxl_refiner"), (2048, "sdxl")])
def test_the_text_width_of_a_controlnet_names_its_family(width: int, family: str) -> None:
    shapes = {"controlnet_cond_embedding.conv_in.weight": (16, 3, 3, 3), "down_blocks.0.attn2.to_k.weight": (320, width)}
    kind = kind_by_keys(tensors(shapes))
    assert kind is not None and (kind.kind, kind.families) == ("controlnet", (family,))
    assert of_cross_attention(width) == (family,) and of_cross_attention(None) == ()


@pytest.mark.parametrize(
    ("shapes", "family"),
    [
        ({"controlnet_x_embedder.weight": (8, 8), "single_transformer_blocks.0.proj_mlp.weight": (8, 8)}, "flux1"),
        ({"lllite_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q.down.0.weight": (8, 8)}, "sdxl"),
    ],
)
def test_names_that_only_the_controlnets_of_a_family_have(shapes: Shapes, family: str) -> None:
    kind = kind_by_keys(tensors(shapes))
    assert kind is not None and (kind.kind, kind.families) == ("controlnet", (family,))


@pytest.mark.parametrize(
    ("shapes", "families", "components"),
    [
        ({"emb_params": (2, 768)}, ("sd1",), ("text_encoder",)),
        ({"emb_params": (2, 1024)}, ("sd2",), ("text_encoder",)),
        ({"emb_params": (2, 1280)}, ("sdxl",), ("text_encoder",)),
        ({"emb_params": (2, 32)}, (), ("text_encoder",)),
        ({"clip_l": (2, 768), "clip_g": (2, 1280)}, ("sdxl",), ("text_encoder", "text_encoder_2")),
    ],
)
def test_the_widths_of_a_textual_inversion_embedding(shapes: Shapes, families: tuple[str, ...], components: tuple[str, ...]) -> None:
    kind = kind_by_keys(tensors(shapes))
    assert kind is not None and (kind.kind, kind.families, kind.components) == ("embedding", families, components)
