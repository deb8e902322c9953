"""Components of diffusers folders that are quantised in their files: a denoiser of diffusers, text encoders of transformers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from registry.detect.loading import load_family
from registry.errors import BadFile, Refused
from registry.families import FAMILIES
from registry.quantised.skeleton import stored_titles
from tests.quantised_files import quantised_file
from tests.tiny import shared_folder

pytestmark = pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning")


def loaded(path: Path, *, device: str = "cpu", **given: Any) -> Any:
    return load_family(FAMILIES["flux1"], path, dtype=torch.float32, device=device, base_config=None, prediction=None, **given)


def two_folders(tmp_path: Path, forms: dict[str, str]) -> tuple[Path, Path]:
    """(a folder with components in a form, the same weights in fp32)."""
    one, other = (Path(shutil.copytree(shared_folder("flux1"), tmp_path / name)) for name in ("quantised", "wide"))
    for component, form in forms.items():
        (file,) = (one / component).glob("*.safetensors")
        _, wide = quantised_file(other / component / file.name, file, form)
        shutil.move(wide, other / component / file.name)
    return one, other


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return two_folders(tmp_path_factory.mktemp("flux1"), {"transformer": "rows", "text_encoder": "plain", "text_encoder_2": "comfy_old"})


def test_denoiser_and_text_encoders_are_those_of_the_weights_in_full(folders: tuple[Path, Path]) -> None:
    one, other, skeleton = loaded(folders[0]), loaded(folders[1]), loaded(folders[0], device="meta")
    states, expected = (FAMILIES["flux1"].encode_prompts(parts, ["a cat"]) for parts in (one, other))
    assert all(torch.equal(states[name], expected[name]) for name in expected)
    titles = {"transformer": "fp8 scaled", "text_encoder": "fp8 without scales", "text_encoder_2": "fp8 scaled"}
    for name, title in titles.items():
        found, wide, empty = (parts.denoiser if name == "transformer" else parts.text_encoders[name] for parts in (one, other, skeleton))
        assert list(stored_titles(found)) == [title] and stored_titles(found) == stored_titles(empty)
        assert stored_titles(found)[title] == sum(type(layer) is torch.nn.Linear for layer in wide.modules()) - _kept(name)
        assert not any(tensor.is_meta for tensor in (*found.parameters(), *found.buffers()))


def _kept(component: str) -> int:
    """Linear layers outside of the blocks, which `is_layer` leaves: embedders, in and out."""
    return {"transformer": 10}.get(component, 0)


def test_text_encoder_dtype_beside_it_is_refused(folders: tuple[Path, Path]) -> None:
    with pytest.raises(Refused, match="text_encoder_dtype is given, but the text_encoder_2 is quantised in its file"):
        loaded(folders[0], device="meta", text_encoder_dtype="int8")


def test_a_method_that_is_not_read_is_refused_by_its_name(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(shared_folder("flux1"), tmp_path / "folder"))
    config = folder / "text_encoder_2" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "quantization_config": {"quant_method": "awq"}}))
    with pytest.raises(BadFile, match="is quantised by awq, which is not read here"):
        loaded(folder)


def test_a_missing_weight_is_named(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    one, _ = two_folders(tmp_path, {"text_encoder_2": "rows"})
    (file,) = (one / "text_encoder_2").glob("*.safetensors")
    tensors = load_file(file)
    save_file({key: tensor for key, tensor in tensors.items() if "SelfAttention.k." not in key}, file, metadata={"format": "pt"})
    with pytest.raises(BadFile, match=r"lacks \d+ of its model's weights \(first: encoder\.block\.0\.layer\.0\.SelfAttention\.k"):
        loaded(one)
