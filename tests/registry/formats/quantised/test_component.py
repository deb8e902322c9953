"""Components of diffusers folders that are quantised in their files: a denoiser of diffusers, text encoders of transformers."""

from __future__ import annotations

import json
import re
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
        if form == "comfy_old":  # as ComfyUI's text encoders are named
            file.rename(file.with_name("t5xxl_fp8_e4m3fn_scaled.safetensors"))
    return one, other


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return two_folders(tmp_path_factory.mktemp("flux1"), {"transformer": "rows", "text_encoder": "plain", "text_encoder_2": "comfy_old"})


@pytest.mark.slow
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


ENCODERS = [("flux1", "text_encoder_2", "t5encoder"), ("z_image", "text_encoder", "qwen3")]


@pytest.mark.parametrize(("family", "component", "architecture"), ENCODERS)
def test_a_gguf_text_encoder_in_a_folder(family: str, component: str, architecture: str, tmp_path: Path) -> None:
    """In llama.cpp's names, matrices in Q8_0 where their rows are whole blocks."""
    import gguf
    from gguf import quants
    from safetensors.torch import load_file, save_file

    from registry.formats.quantised.llama_names import ARCHITECTURES

    one, other = (Path(shutil.copytree(shared_folder(family), tmp_path / name)) for name in ("blocks", "wide"))
    (file,) = (one / component).glob("*.safetensors")
    names = {name.removeprefix("model."): short for short, name in ARCHITECTURES[architecture].items()}
    writer, wide = gguf.GGUFWriter(one / component / "encoder.gguf", architecture), {}
    for key, tensor in load_file(file).items():
        module, _, ending = key.removeprefix("model.").rpartition(".")
        short = names[re.sub(r"(?<=\.)\d+(?=\.)", "*", module, count=1)] if module not in names else names[module]
        if "*" in short:
            short = short.replace("*", re.findall(r"\.(\d+)\.", module)[0])
        kind = gguf.GGMLQuantizationType.Q8_0 if tensor.ndim == 2 and tensor.shape[1] % 32 == 0 else gguf.GGMLQuantizationType.F32
        data = quants.quantize(tensor.float().numpy(), kind)
        writer.add_tensor(f"{short}.{ending}", data, raw_dtype=kind)
        wide[key] = torch.from_numpy(quants.dequantize(data, kind))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    file.unlink()
    save_file(wide, other / component / file.name, metadata={"format": "pt"})
    options: dict[str, Any] = {"dtype": torch.float32, "device": "cpu", "base_config": None, "prediction": None}
    found, expected = (load_family(FAMILIES[family], path, **options) for path in (one, other))
    states, plain = (FAMILIES[family].encode_prompts(parts, ["a cat"]) for parts in (found, expected))
    assert all(torch.equal(states[name], plain[name]) for name in plain)
    assert stored_titles(found.text_encoders[component]).get("GGUF Q8_0", 0) > 5


@pytest.mark.parametrize(
    ("architecture", "kind"), [("t5encoder", "T5ENCODER"), ("qwen2", "QWEN2"), ("qwen2vl", "QWEN2VL"), ("qwen3", "QWEN3")]
)
def test_the_names_are_those_of_the_gguf_package(architecture: str, kind: str) -> None:
    import gguf

    from registry.formats.quantised.llama_names import transformers_name

    table = gguf.get_tensor_name_map(gguf.MODEL_ARCH[kind], 2).mapping
    known = {short: name for name, (_, short) in table.items() if transformers_name(architecture, f"{short}.weight") == f"{name}.weight"}
    written = {short for _, short in table.values() if transformers_name(architecture, f"{short}.weight") != f"{short}.weight"}
    assert not written - known.keys() and len(written) > 10


def test_a_gguf_text_encoder_of_another_architecture_is_refused(tmp_path: Path) -> None:
    import gguf
    import numpy as np

    folder = Path(shutil.copytree(shared_folder("flux1"), tmp_path / "folder"))
    (file,) = (folder / "text_encoder_2").glob("*.safetensors")
    file.unlink()
    writer = gguf.GGUFWriter(folder / "text_encoder_2" / "x.gguf", "llama")
    writer.add_tensor("token_embd.weight", np.zeros((4, 4), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(BadFile, match="is a GGUF text encoder of 'llama'; t5, t5encoder, qwen2"):
        loaded(folder)
