"""Training and drawing on files that are quantised already: gradients of their weights, what the plan counts, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from registry.errors import Refused
from registry.families import FAMILIES
from registry.store import Store
from tests.quantised_files import quantised_file
from tests.tiny import SIZES, shared_folder, tiny_single_file
from tests.train.test_quantised import lora_gradients
from train import run
from train.config import AdapterConfig, LoraConfig, TrainConfig
from train.plan.make import make_plan

pytestmark = pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning")
Settings = Callable[..., TrainConfig]


def files(name: str, form: str, folder: Path) -> tuple[Path, Path]:
    """(the file in a form, the same weights in fp32) of a tiny model."""
    source = tiny_single_file(shared_folder(name), folder / f"{name}.safetensors", family=name)
    return quantised_file(source, folder / "quantised.safetensors", form, prefix="model.diffusion_model." if name == "sd1" else "")


@pytest.mark.parametrize(("name", "form"), [("sd1", "comfy_old"), ("flux1", "comfy_new"), ("flux1", "plain")])
def test_gradients_are_those_of_the_weights_in_full(name: str, form: str, tmp_path: Path) -> None:
    """The same products of the same numbers: what differs is the order of sums, 1e-5 of the largest in fp32."""
    family, config = FAMILIES[name], TrainConfig(lora=LoraConfig(rank=2, product="plain"))
    one, other = (
        family.load(path, dtype=torch.float32, device="cpu", base_config=shared_folder(name)) for path in files(name, form, tmp_path)
    )
    found, expected = (lora_gradients(family, parts, SIZES[name], config) for parts in (one, other))
    assert len(found) == len(expected) > 10 and any(float(gradient.abs().max()) > 0 for gradient in expected)
    for left, right in zip(found, expected, strict=True):
        assert torch.allclose(left, right, rtol=0, atol=1e-5 * float(right.abs().max()))


@pytest.fixture(scope="module")
def sd1(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return files("sd1", "comfy_old", tmp_path_factory.mktemp("sd1"))


@pytest.mark.slow
def test_the_plan_counts_what_is_stored_and_a_run_names_it(sd1: tuple[Path, Path], settings: Settings, store: Store) -> None:
    def given(path: Path, **more: Any) -> TrainConfig:
        return settings(base=str(path), base_config=str(shared_folder("sd1")), swap_blocks=2, gradient_checkpointing=True, **more)

    plan, wide = make_plan(given(sd1[0]), store), make_plan(given(sd1[1]), store)
    assert plan.quantised == {"unet": {"fp8 scaled (as its file has it)": 48}} and not wide.quantised
    assert any("the base is quantised in its file (48 weights in fp8 scaled)" in note for note in plan.notes)
    done = run.run(given(sd1[0], steps=2, lora=LoraConfig(rank=2, kind="lokr")), store)  # proven in the weights, which are made for it
    assert done.result["quantised"]["layers"] == {"unet": {"fp8 scaled (as its file has it)": 48}}
    parts = FAMILIES["sd1"].load(sd1[0], dtype=torch.float32, device="cpu", base_config=shared_folder("sd1"))
    stored = sum(tensor.nbytes for tensor in (*parts.denoiser.parameters(), *parts.denoiser.buffers()))
    swap = plan.estimate.swap
    assert swap is not None and plan.estimate.memory["unet"] + swap.host_bytes == stored < wide.estimate.memory["unet"] + swap.host_bytes


def test_what_cannot_go_with_it_is_named_before_the_run(sd1: tuple[Path, Path], settings: Settings, store: Store) -> None:
    given = {"base": str(sd1[0]), "base_config": str(shared_folder("sd1"))}
    with pytest.raises(Refused, match=r"base_dtype is given, but the unet is quantised in its file \(48 weights in fp8 scaled\)"):
        make_plan(settings(**given, base_dtype="nf4"), store)
    adapter = AdapterConfig(training=str(tiny_adapter_here(sd1[0].parent)))
    with pytest.raises(Refused, match="most of it would be rounded away"):
        make_plan(settings(**given, adapter=adapter), store)


def tiny_adapter_here(folder: Path) -> Path:
    from tests.tiny import tiny_adapter

    return Path(tiny_adapter(shared_folder("sd1"), folder / "adapter.safetensors"))


@pytest.mark.slow
def test_a_memory_budget_quantises_it_no_further(sd1: tuple[Path, Path], settings: Settings, store: Store) -> None:
    """A search that took another dtype would find a run that is refused."""
    given = {"base": str(sd1[0]), "base_config": str(shared_folder("sd1")), "memory": "auto"}
    plan = make_plan(settings(**given), store)
    assert plan.config.base_dtype is None and plan.quantised == {"unet": {"fp8 scaled (as its file has it)": 48}}
    with pytest.raises(Refused) as caught:
        make_plan(settings(**{**given, "memory": "1MiB"}), store)
    assert "base_dtype" not in str(caught.value)
