"""State dicts through a key map: what is sliced, swapped, transposed and cast, and one refusal for all three of its readers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from registry.errors import BadFile
from registry.families import FAMILIES, flux1
from registry.formats.key_map import KeyLocation
from registry.formats.quantised.loading import load_mapped
from registry.formats.quantised.weights_file import weights_file
from registry.formats.safetensors_header import read_header
from registry.formats.state_dict import check_mapped, read_mapped
from registry.quantised.layers import Quantisation
from tests.quantised_files import FORMS
from tests.tiny import shared_folder, tiny_control, tiny_single_file, transformer_single_file

FUSED = torch.arange(12.0).reshape(6, 2)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    save_file({"qkv": FUSED, "convolution": torch.arange(4.0).reshape(2, 2, 1, 1), "vector": torch.arange(6.0)}, tmp_path / "a.safetensors")
    return tmp_path / "a.safetensors"


def read(path: Path, location: KeyLocation, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return read_mapped(path, {"w": location}, {"w": shape}, dtype=dtype)["w"]


def check(path: Path, key_map: dict[str, KeyLocation], shapes: Mapping[str, tuple[int, ...]], **options: Any) -> None:
    check_mapped(path, read_header(path).tensors, key_map, shapes, component="unet", hint="Do this.", **options)


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        (KeyLocation("qkv"), FUSED.tolist()),
        (KeyLocation("qkv", (2, 4)), [[4, 5], [6, 7]]),
        (KeyLocation("qkv", swapped=True), [[6, 7], [8, 9], [10, 11], [0, 1], [2, 3], [4, 5]]),
        (KeyLocation("qkv", (2, 4), swapped=True), [[6, 7], [4, 5]]),
        (KeyLocation("qkv", transposed=True), [[0, 2, 4, 6, 8, 10], [1, 3, 5, 7, 9, 11]]),
        (KeyLocation("convolution"), [[0, 1], [2, 3]]),
        (KeyLocation("vector"), [[0, 1, 2], [3, 4, 5]]),
    ],
    ids=["whole", "rows", "swapped", "rows-swapped", "transposed", "1x1-convolution", "vector"],
)
def test_a_parameter_is_taken_from_its_location(path: Path, location: KeyLocation, expected: list[list[float]]) -> None:
    assert read(path, location, (len(expected), len(expected[0]))).tolist() == expected


def test_what_fits_is_accepted(path: Path) -> None:
    thirds = {name: KeyLocation("qkv", (2 * third, 2 * third + 2)) for third, name in enumerate("qkv")}
    others = {"t": KeyLocation("qkv", transposed=True), "c": KeyLocation("convolution"), "m": KeyLocation("vector")}
    check(path, thirds | others, dict.fromkeys("qkv", (2, 2)) | {"t": (2, 6), "c": (2, 2), "m": (2, 3)}, exact=True)


def test_a_parameter_has_the_dtype_of_its_own_where_one_is_named(path: Path) -> None:
    locations = {"a": KeyLocation("qkv"), "b": KeyLocation("qkv")}
    found = read_mapped(path, locations, {"a": (6, 2), "b": (6, 2)}, dtype=torch.bfloat16, dtypes={"b": torch.float32})
    assert {name: tensor.dtype for name, tensor in found.items()} == {"a": torch.bfloat16, "b": torch.float32}


@pytest.mark.parametrize(
    ("key_map", "fault"),
    [
        ({}, "w is missing"),
        ({"w": KeyLocation("other")}, r"w is missing \(other\)"),
        ({"w": KeyLocation("qkv")}, r"w \(qkv\) is \(6, 2\) where \(2, 2\) was expected"),
        ({"w": KeyLocation("qkv", (0, 2))}, r"w \(qkv\) is \(6, 2\) where \(2, 2\) was expected"),  # the rest would be lost
        ({"w": KeyLocation("qkv", (6, 8))}, r"w \(qkv\) is \(6, 2\) where \(8, 2\) was expected"),
    ],
)
def test_what_is_missing_or_misshaped_is_refused(path: Path, key_map: dict[str, KeyLocation], fault: str) -> None:
    with pytest.raises(BadFile, match=rf"its unet does not fit its config: {fault}\. Do this\."):
        check(path, key_map, {"w": (2, 2)})


def test_three_faults_are_shown_and_the_rest_counted(path: Path) -> None:
    with pytest.raises(BadFile, match="a is missing; b is missing; c is missing; and 2 more"):
        check(path, {}, dict.fromkeys("abcde", (1,)))


def test_optional_parameters_may_be_missing_and_no_others(path: Path) -> None:
    check(path, {}, {"w": (2, 2)}, optional=("w",))
    with pytest.raises(BadFile, match="v is missing"):
        check(path, {}, {"w": (2, 2), "v": (2,)}, optional=("w",))


def test_an_exact_map_refuses_keys_of_no_parameter(path: Path) -> None:
    check(path, {"extra": KeyLocation("qkv")}, {})
    with pytest.raises(BadFile, match="extra is unexpected"):
        check(path, {"extra": KeyLocation("qkv")}, {}, exact=True)


# --- its three readers


def single_file(folder: Path) -> Callable[[], Any]:
    file = narrowed(tiny_single_file(shared_folder("sd1"), folder / "sd1.safetensors"), "model.diffusion_model.out.2.weight")
    return lambda: FAMILIES["sd1"].load(file, dtype=torch.float32, device="cpu", base_config=shared_folder("sd1"))


def transformer_file(folder: Path) -> Callable[[], Any]:
    base = shared_folder("flux1")
    file = narrowed(transformer_single_file(base, folder / "flux1.safetensors", flux1.FILE_NAMES), "txt_in.weight")
    return lambda: FAMILIES["flux1"].load(file, dtype=torch.float32, device="cpu", base_config=base)


def controlnet_file(folder: Path) -> Callable[[], Any]:
    own = tiny_control("sd1")
    (folder / "config.json").write_bytes((own / "config.json").read_bytes())
    save_file(load_file(next(own.glob("*.safetensors"))), folder / "net.safetensors")
    file = narrowed(folder / "net.safetensors", "conv_in.weight")
    family = FAMILIES["sd1"]
    assert not isinstance(family.control, str)
    load, parts = family.control.load, family.load(shared_folder("sd1"), dtype=torch.float32, device="meta")
    return lambda: load(file, parts, dtype=torch.float32, device="cpu")


def narrowed(file: Path, key: str) -> Path:
    """The file with one row less in a tensor."""
    tensors = load_file(file)
    save_file(tensors | {key: tensors[key][1:].clone()}, file)
    return file


@pytest.mark.parametrize("reader", [single_file, transformer_file, controlnet_file])
def test_a_shape_fault_reads_alike_in_every_reader(reader: Callable[[Path], Callable[[], Any]], tmp_path: Path) -> None:
    load = reader(tmp_path)
    with pytest.raises(
        BadFile, match=r"its (unet|transformer|ControlNet) does not fit its config: \S+( \(\S+\))? is \(.*\) where \(.*\) was"
    ):
        load()


def bytes_read() -> int:
    """Of this process so far, by the system's own count."""
    return int(dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())["rchar"])


@pytest.mark.parametrize(
    ("dtype", "int8", "form"), [(torch.bfloat16, False, None), (torch.float32, True, None), (torch.float32, False, "rows")]
)
def test_a_fused_weight_is_read_once_for_all_its_parts(dtype: torch.dtype, int8: bool, form: str | None, tmp_path: Path) -> None:
    """Converted, quantised as it is read, or quantised in the file; the biases lie between the parts of the weights."""
    weight, size = torch.randn(768, 512, generator=torch.Generator().manual_seed(0)), 256
    parts = {"weight": weight} if form is None else FORMS[form][0](weight)[0]
    save_file({**{f"qkv.{key}": tensor for key, tensor in parts.items()}, "qkv.bias": torch.arange(768.0)}, tmp_path / "a.safetensors")
    file = weights_file(tmp_path / "a.safetensors")
    key_map = {
        f"{name}.{kind}": KeyLocation(f"qkv.{kind}", (size * third, size * third + size))
        for third, name in enumerate(("to_q", "to_k", "to_v"))
        for kind in ("weight", "bias")
    }
    with torch.device("meta"):
        module: Any = torch.nn.ModuleDict({name: torch.nn.Linear(512, size) for name in ("to_q", "to_k", "to_v")})
    choose = Quantisation(denoiser="int8").of("transformer") if int8 else None
    before = bytes_read()
    load_mapped(module, file, key_map, component="transformer", dtype=dtype, choose=choose, empty=False)
    read_now = bytes_read() - before
    assert read_now < 1.3 * file.path.stat().st_size  # two headers of a few hundred bytes, and what other threads of a test run read
    found = torch.cat([layer.weight.detach() for layer in module.values()])
    expected = weight if form is None else FORMS[form][0](weight)[1]
    assert torch.allclose(found.float(), expected, atol=0.03 if dtype is torch.bfloat16 or int8 else 1e-6)
    assert torch.cat([layer.bias.detach().float() for layer in module.values()])[:256].tolist() == list(range(256))
