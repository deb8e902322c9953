"""The adapter writer: names, shapes and dtypes in every dialect, and a dialect added as one row."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from registry.adapters.inspect import diff_adapters
from registry.adapters.reader import read_adapter
from registry.adapters.result import module_names
from registry.adapters.writer import OutputModule, Pair, adapter_tensors, write_adapter
from registry.converting.job import ConvertRequest, plan_convert, run_convert
from registry.detect.inspect import inspect
from registry.errors import JobFailed, Refused
from registry.formats.dialects import DENOISER, DIALECTS, Dialect, Writing, lora, writable, writing_of
from registry.store import Store

LINEAR = Pair(torch.ones(2, 6), torch.ones(8, 2), 1.0, torch.ones(8))
CONV = Pair(torch.ones(2, 4, 3, 3), torch.ones(8, 2, 1, 1), 0.3, torch.ones(8))


def spelled(dialect: str, pair: Pair, **options: Any) -> dict[str, torch.Tensor]:
    return adapter_tensors([OutputModule(name="m", pair=pair)], writing_of(dialect), **options)


@pytest.mark.parametrize(
    ("dialect", "linear", "convolution"),
    [
        ("kohya", (8, 1), (8, 1, 1, 1)),
        ("onetrainer", (8, 1), (8, 1, 1, 1)),
        ("lycoris", (8, 1), (8, 1, 1, 1)),
        ("diffusers", (8,), (1, 8, 1, 1)),
        ("peft", (8,), (1, 8, 1, 1)),
    ],
)
def test_a_magnitude_has_the_shape_that_the_dialect_s_readers_expect(dialect: str, linear: Any, convolution: Any) -> None:
    ending = writing_of(dialect).dora
    assert [spelled(dialect, pair)[f"m{ending}"].shape for pair in (LINEAR, CONV)] == [linear, convolution]


def test_alpha_is_a_tensor_or_a_setting() -> None:
    assert float(spelled("kohya", LINEAR)["m.alpha"]) == 1.0
    assert set(spelled("diffusers", LINEAR)) == {"m.lora_A.weight", "m.lora_B.weight", "m.lora_magnitude_vector"}


@pytest.mark.parametrize(("alpha", "dtype"), [(1.0, torch.float16), (0.3, torch.float32)])
def test_alpha_has_the_factors_dtype_where_that_holds_it(alpha: float, dtype: torch.dtype) -> None:
    pair = Pair(torch.ones(2, 6).half(), torch.ones(8, 2).half(), alpha)
    assert spelled("kohya", pair)["m.alpha"].dtype == dtype


def test_a_dtype_is_for_all_but_alpha_and_overflow_is_refused() -> None:
    found = spelled("kohya", LINEAR, dtype="F16")
    assert {tensor.dtype for name, tensor in found.items() if name != "m.alpha"} == {torch.float16}
    assert found["m.alpha"].dtype == torch.float32
    with pytest.raises(JobFailed, match=r"m\.lora_up\.weight would have .*fp32"):
        spelled("kohya", Pair(LINEAR.down, LINEAR.up * 1e6, 1.0), dtype="F16")


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    write_adapter(tmp_path / "a.safetensors", [OutputModule(name="lora_unet_m", pair=LINEAR)], writing_of("kohya"), metadata={"a": "b"})
    adapter = read_adapter(tmp_path / "a.safetensors")
    assert (adapter.dialect, adapter.metadata, adapter.modules[0].scale(2)) == ("kohya", {"a": "b"}, 0.5)


def test_a_dialect_that_is_only_read_is_refused() -> None:
    with pytest.raises(Refused, match="read in the dialect xlabs, not written"):
        writing_of("xlabs")


@pytest.mark.parametrize(
    ("family", "places", "prefix"),
    [
        ("sd1", [("text_encoder", "m")], "lora_te_"),
        ("sdxl", [("text_encoder", "m")], "lora_te1_"),
        ("flux1", [("text_encoder", "m")], "lora_te1_"),
        (None, [("text_encoder", "m")], "lora_te_"),
        (None, [("text_encoder", "m"), ("text_encoder_2", "m")], "lora_te1_"),
    ],
)
def test_kohya_s_prefixes_are_those_of_the_family(family: str | None, places: list[tuple[str, str]], prefix: str) -> None:
    assert module_names(places, family)[places[0]] == f"{prefix}m"


# --- a dialect as one row

Q = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"


@pytest.fixture
def toy() -> Iterator[None]:
    """A dialect of its own prefixes and endings."""
    prefixes = {"toy_net/": DENOISER, "toy_text/": "text_encoder"}
    names = {component: prefix for prefix, component in prefixes.items()}
    DIALECTS["toy"] = Dialect(
        title="Toy",
        about="a toy's",
        prefixes=prefixes,
        endings=lora(down="!A", up="!B", dora="!M") | {"!alpha": ("alpha", "")},
        read_by=("a1111",),
        writing=Writing(
            prefix=lambda component, _denoiser, _encoders: names.get(component),
            down="!A",
            up="!B",
            bias=".diff_b",
            dora="!M",
            alpha="!alpha",
            dora_per_row=True,
            implementation="https://example.org/toy",
        ),
    )
    yield
    del DIALECTS["toy"]


def adapter(path: Path) -> Path:
    draw = torch.Generator().manual_seed(1)
    text = "text_encoder.text_model.encoder.layers.0.mlp.fc1"
    tensors = {f"{Q}.lora_A.weight": torch.randn(2, 768, generator=draw), f"{Q}.lora_B.weight": torch.randn(6, 2, generator=draw)}
    tensors |= {f"{text}.lora_A.weight": torch.randn(3, 768, generator=draw), f"{text}.lora_B.weight": torch.randn(5, 3, generator=draw)}
    save_file(tensors, path)
    return path


def converted(store: Store, source: Path, output: Path, to: str) -> Path:
    request = ConvertRequest(reference=str(source), output=output, target=to, family="sd1")
    return Path(run_convert(plan_convert(request, store), store).result["file"])


@pytest.mark.usefixtures("toy")
def test_a_row_is_all_that_a_dialect_needs(store: Store, tmp_path: Path) -> None:
    source = adapter(tmp_path / "a.safetensors")
    there = converted(store, source, tmp_path / "toy.safetensors", "toy")
    assert {key.partition("!")[0] for key in load_file(there)} == {
        f"toy_net/{Q.removeprefix('unet.')}",
        "toy_text/text_model.encoder.layers.0.mlp.fc1",
    }
    assert inspect(there).dialect == "toy"
    back = converted(store, there, tmp_path / "back.safetensors", "diffusers")
    assert diff_adapters(read_adapter(source), read_adapter(back)).same
    assert load_file(back).keys() == load_file(source).keys()


@pytest.mark.usefixtures("toy")
def test_the_choices_of_to_and_the_layouts_follow_the_table() -> None:
    from registry.exporting.layouts import LAYOUTS

    assert "toy" in writable()
    assert LAYOUTS["a1111"].reads("toy") and not LAYOUTS["comfyui"].reads("toy")


@pytest.mark.parametrize("dialect", ["kohya", "onetrainer", "peft", "lycoris"])
def test_every_written_dialect_comes_back_with_the_same_products(dialect: str, store: Store, tmp_path: Path) -> None:
    source = adapter(tmp_path / "a.safetensors")
    if dialect in ("peft", "lycoris"):  # of one model
        save_file({key: tensor for key, tensor in load_file(source).items() if key.startswith("unet.")}, source)
    there = converted(store, source, tmp_path / "there.safetensors", dialect)
    back = converted(store, there, tmp_path / "back.safetensors", "diffusers")
    assert diff_adapters(read_adapter(source), read_adapter(back)).same


def test_lycoris_holds_the_denoiser_alone(store: Store, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"LyCORIS's files of Stable Diffusion .* have no prefix for a text_encoder"):
        converted(store, adapter(tmp_path / "a.safetensors"), tmp_path / "there.safetensors", "lycoris")
