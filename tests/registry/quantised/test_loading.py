"""Models that are quantised while they are loaded: the numbers of a quantised loaded model, and nothing else changed."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from registry.detect.loading import load_family
from registry.errors import BadFile
from registry.families import FAMILIES
from registry.quantised.errors import weight_error
from registry.quantised.layers import QuantisedLayers
from registry.quantised.linear import QuantisedLinear
from registry.quantised.place import quantise_in_place
from tests.tiny import FAMILIES_HERE, shared_folder, tiny_single_file
from tests.tiny_families import builds

pytestmark = pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning")
ALL = [*FAMILIES_HERE, *dict.fromkeys(name for name, _ in builds())]


def loaded(name: str, path: Path, base_config: Path | None = None, **quantised: str) -> Any:
    return load_family(FAMILIES[name], path, dtype=torch.bfloat16, device="cpu", base_config=base_config, prediction=None, **quantised)


def differing(one: Any, other: Any) -> set[str]:
    """The names of parameters and buffers that are not equal, with their dtypes."""
    beyond: set[str] = set()
    for left, right in ((one.named_parameters(), other.named_parameters()), (one.named_buffers(), other.named_buffers())):
        found, expected = dict(left), dict(right)
        both = found.keys() & expected.keys()
        beyond |= found.keys() ^ expected.keys()
        beyond |= {name for name in both if found[name].dtype != expected[name].dtype or not torch.equal(found[name], expected[name])}
    return beyond


def is_as_quantised_afterwards(name: str, path: Path, base_config: Path | None = None) -> bool:
    """Whether a model that is quantised as it is loaded is the one that is quantised afterwards."""
    parts, plain = loaded(name, path, base_config, base_dtype="nf4", text_encoder_dtype="int8"), loaded(name, path, base_config)
    quantise_in_place(plain.denoiser, FAMILIES[name].quantised.choose("nf4"))
    weight = weight_error(parts.denoiser)
    assert weight is not None and 0.06 < weight.error < 0.11
    beyond = differing(parts.denoiser, plain.denoiser)
    for component, encoder in plain.text_encoders.items():
        quantise_in_place(encoder, QuantisedLayers(kept=()).choose("int8"))
        beyond |= differing(parts.text_encoders[component], encoder)
        assert weight_error(parts.text_encoders[component]) is not None and not parts.text_encoders[component].training
    assert weight_error(parts.vae) is None
    return not beyond


@pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name in ("sd1", "flux1") else pytest.mark.slow) for name in ALL])
def test_a_folder_is_quantised_as_it_is_read(name: str) -> None:
    assert is_as_quantised_afterwards(name, shared_folder(name))


@pytest.mark.parametrize("name", ["sd1", "flux1"])
def test_a_single_file_is_too(name: str, tmp_path: Path) -> None:
    folder = shared_folder(name)
    assert is_as_quantised_afterwards(name, tiny_single_file(folder, tmp_path / "model.safetensors", family=name), folder)


def test_what_is_outside_of_the_blocks_and_what_is_sensitive_is_kept() -> None:
    choose = QuantisedLayers().choose("nf4")
    outside = (
        "x_embedder",
        "proj_out",
        "norm_out.linear",
        "time_text_embed.timestep_embedder.linear_1",
        "t_embedder.mlp.0",
        "cap_embedder.1",
    )
    assert [choose(name) for name in (*outside, "down_blocks.0.resnets.0.time_emb_proj")] == [None] * 7
    assert choose("transformer_blocks.0.attn.to_q") == choose("layers.3.feed_forward.w1") == "nf4"
    modulation = ("transformer_blocks.0.norm1.linear", "transformer_blocks.0.img_mod.1", "layers.0.adaLN_modulation.0")
    assert {choose(name) for name in modulation} == {"int8"}
    assert {QuantisedLayers().choose("fp8")(name) for name in modulation} == {"fp8"}
    assert FAMILIES["chroma"].quantised.choose("nf4")("distilled_guidance_layer.layers.0.linear_1") is None


def test_weights_that_two_layers_share_are_left() -> None:
    model = nn.ModuleDict({"a": nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 8)]), "b": nn.ModuleList([nn.Linear(8, 8)])})
    model["b"][0].weight = model["a"][0].weight  # type: ignore[index]
    quantise_in_place(model, lambda name: "int8")
    assert [name for name, layer in model.named_modules() if isinstance(layer, QuantisedLinear)] == ["a.1"]


def test_a_missing_weight_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    from tests.tiny import tiny_sd1

    folder = tiny_sd1(tmp_path / "broken")
    file = next((folder / "unet").glob("*.safetensors"))
    tensors = load_file(file)
    del tensors["mid_block.attentions.0.transformer_blocks.0.attn1.to_q.weight"]
    save_file(tensors, file)
    with pytest.raises(BadFile, match=r"lacks 1 of its model's weights \(first: mid_block"):
        loaded("sd1", folder, base_dtype="nf4")
