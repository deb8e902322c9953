"""bitsandbytes' files: its own numbers from a file that it wrote, models in its form, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from registry.detect.inspect import inspect
from registry.errors import BadFile
from registry.formats.quantised.weights_file import weights_file
from registry.quantised.linear import QuantisedLinear
from registry.quantised.skeleton import stored_layers, stored_titles
from registry.quantised.stored import StoredWeight
from registry.store import Store
from tests.quantised_files import FORMS, quantised_file
from tests.registry.formats.quantised.test_scaled_fp8 import loaded, same_weights
from tests.tiny import shared_folder, tiny_single_file

pytestmark = pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning")
WRITTEN = Path(__file__).parent / "bitsandbytes.safetensors"  # by bench/quantised/bitsandbytes_file.py, with bitsandbytes 0.50.2
TITLES = {"nf4": "nf4", "nf4_double": "nf4 (double quantisation)", "fp4": "fp4", "fp4_double": "fp4 (double quantisation)"}


@pytest.mark.parametrize("name", [*TITLES, "int8"])
def test_the_numbers_are_bitsandbytes_own(name: str) -> None:
    file, expected = weights_file(WRITTEN), load_file(WRITTEN)[f"expected.{name}.weight"]
    with file.reading() as read:
        weight = read(f"{name}.weight")
    assert isinstance(weight, StoredWeight) and file.tensors[f"{name}.weight"].shape == (8, 128)
    if name == "int8":  # it multiplies by 1 / 127 last
        assert torch.allclose(weight.full(), expected, rtol=2e-7, atol=0) and weight.coding.title == "int8 (LLM.int8)"
    else:
        assert torch.equal(weight.full(), expected) and weight.coding.title == TITLES[name]
    rows = torch.tensor([5, 2])
    taken = weight.take(rows)
    assert taken is not None and torch.equal(taken.full(), weight.full()[rows]) and taken.nbytes < weight.nbytes


def test_blocks_that_go_on_from_one_row_into_the_next_are_made_as_they_were_written(tmp_path: Path) -> None:
    """Where bitsandbytes' own kernel for the CPU begins a new block with each row (findings/bitsandbytes_cpu_4bit_...)."""
    parts, wide = FORMS["nf4"][0](torch.randn(10, 24, generator=torch.Generator().manual_seed(0)))
    save_file({f"a.{key}": tensor for key, tensor in parts.items()}, tmp_path / "x.safetensors")
    with weights_file(tmp_path / "x.safetensors").reading() as read:
        weight = read("a.weight")
    assert isinstance(weight, StoredWeight) and torch.equal(weight.full(), wide) and weight.take(torch.tensor([1])) is None


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("sources")
    return {name: tiny_single_file(shared_folder(name), folder / f"{name}.safetensors", family=name) for name in ("sd1", "flux1")}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sd1", "flux1"])
@pytest.mark.parametrize("form", ["nf4", "nf4_double"])
def test_the_model_is_that_of_the_weights_in_full(name: str, form: str, sources: dict[str, Path], tmp_path: Path) -> None:
    """Fused layers of tiny widths are no whole blocks: those are made while they are loaded."""
    file, wide = quantised_file(sources[name], tmp_path / "x.safetensors", form, prefix="model.diffusion_model." if name == "sd1" else "")
    found, expected, skeleton = loaded(name, file), loaded(name, wide), loaded(name, file, device="meta")
    count = same_weights(found.denoiser, expected.denoiser)
    titles = stored_titles(found.denoiser)
    assert sum(titles.values()) == count > 10 and titles[FORMS[form][2]] > 5 and titles == stored_titles(skeleton.denoiser)
    kept = [layer for layer in found.denoiser.modules() if isinstance(layer, QuantisedLinear)]
    assert sum(one.nbytes for layer in kept for one in layer.buffers()) == sum(
        one.nbytes for one in stored_layers(skeleton.denoiser).values()
    )
    record, same = inspect(file), inspect(wide)
    assert (record.family, record.variant, record.dtype) == (same.family, same.variant, "nf4")


def test_a_scan_sees_the_shapes_of_the_model(sources: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    quantised_file(sources["flux1"], tmp_path / "models" / "x.safetensors", "nf4")
    store = Store(tmp_path / "home")
    store.scan(tmp_path / "models")
    record = store.find("x")
    assert (record.family, record.dtype) == ("flux1", "nf4") == (inspect(tmp_path / "models" / "x.safetensors").family, "nf4")


WEIGHT = "double_blocks.0.img_attn.qkv.weight"
STATE = f"{WEIGHT}.quant_state.bitsandbytes__nf4"


def state(**changes: Any) -> torch.Tensor:
    given = {"quant_type": "nf4", "blocksize": 64, "dtype": "float32", "shape": [4, 4]} | changes
    return torch.tensor(list(json.dumps(given).encode()), dtype=torch.uint8)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda all_: all_.pop(f"{WEIGHT}.absmax"), rf"{WEIGHT}\.absmax is missing"),
        (lambda all_: all_.pop(f"{WEIGHT}.quant_map"), rf"{WEIGHT}\.quant_map is missing"),
        (lambda all_: all_.pop(STATE), rf"{WEIGHT} is U8, and nothing says what its numbers are"),
        (lambda all_: all_.update({STATE: state()}), r"which is no 16 codes of 4 bits for \(4, 4\)"),
        (lambda all_: all_.update({STATE: state(blocksize="64")}), r"has quant_type nf4, blocksize 64"),
        (lambda all_: all_.update({STATE: state(quant_type="fp4")}), r"has quant_type fp4"),
        (lambda all_: all_.update({STATE: state(blocksize=2**40)}), r"blocksize 1099511627776"),
        (lambda all_: all_.update({STATE: state(nested_blocksize=2**40)}), r"has quant_type nf4, blocksize 64"),
        (lambda all_: all_.update({STATE: torch.zeros(100_000, dtype=torch.uint8)}), r"at most 65,536 bytes were expected"),
        (lambda all_: all_.update({STATE: torch.zeros(4, dtype=torch.uint8)}), r"bitsandbytes__nf4 is not a JSON"),
        (lambda all_: all_.update({f"{WEIGHT}.absmax": torch.ones(3)}), r"absmax is \(3,\); \d+ numbers were expected"),
        (lambda all_: all_.update({f"{WEIGHT}.quant_map": torch.ones(16).half()}), r"absmax and \.quant_map are not F32 and F32"),
    ],
)
def test_what_is_not_read_is_refused_by_name(change: Any, words: str, sources: dict[str, Path], tmp_path: Path) -> None:
    file, _ = quantised_file(sources["flux1"], tmp_path / "x.safetensors", "nf4")
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)
    for device in ("meta", "cpu"):
        with pytest.raises(BadFile, match=words):
            loaded("flux1", file, device=device)


def test_rows_of_another_number_are_refused(tmp_path: Path) -> None:
    save_file({"a.weight": torch.zeros(4, 8, dtype=torch.int8), "a.SCB": torch.ones(3)}, tmp_path / "x.safetensors")
    with pytest.raises(BadFile, match=r"a\.SCB \(3,\) is beside no int8 matrix of as many rows"):
        weights_file(tmp_path / "x.safetensors")
