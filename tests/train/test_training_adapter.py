"""A training adapter is in the base while training and in nothing else; few-step bases are warned of and tested for their speed."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from registry.errors import Faults, Refused
from registry.families import FAMILIES
from registry.store import Store
from tests import tiny
from tests.tiny_families import module_of
from train import run
from train.config import AdapterConfig, CheckpointConfig, LoraConfig, OptimConfig, PreviewConfig, TrainConfig

Settings = Callable[..., TrainConfig]
pytestmark = pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning")


@pytest.fixture(scope="module")
def fused(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.tiny_adapter(base, tmp_path_factory.mktemp("fused") / "training.safetensors", rank=2, strength=0.1)


def test_it_is_in_the_weights_while_training_and_out_of_them_bit_for_bit(
    fused: Path, base: Path, settings: Settings, prepared: Callable[[TrainConfig], Any]
) -> None:
    state = prepared(settings(adapter=AdapterConfig(training=str(fused)))).state
    own = FAMILIES["sd1"].load(base, dtype=torch.float32, device="cpu").denoiser.state_dict()
    key = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_q"
    factors = {name.rpartition("lora_")[2][0]: tensor for name, tensor in _tensors(fused).items() if f"{key}.lora_" in name}

    def weight() -> torch.Tensor:
        found: torch.Tensor = state.parts.denoiser.get_submodule(key).base_layer.weight
        return found.detach().clone()

    expected = own[f"{key}.weight"] + factors["B"] @ factors["A"]
    assert torch.allclose(weight(), expected, atol=1e-6) and not weight().equal(own[f"{key}.weight"])
    inside = weight()
    with state.evaluating():
        loaded = {
            name.replace(".base_layer", ""): value for name, value in state.parts.denoiser.state_dict().items() if ".lora_" not in name
        }
        assert loaded.keys() == own.keys() and all(loaded[name].equal(own[name]) for name in own)
    assert weight().equal(inside)


@pytest.mark.slow
def test_held_out_loss_of_the_base_is_that_without_it(fused: Path, settings: Settings, prepared: Callable[[TrainConfig], Any]) -> None:
    plain, with_it = (prepared(settings(adapter=AdapterConfig(training=one))) for one in (None, str(fused)))
    assert with_it.probe.measure(with_it.state, model=with_it.state.model) == plain.probe.measure(plain.state, model=plain.state.model)
    assert not with_it.state.step(0).losses.equal(plain.state.step(0).losses), "its steps are taken on the fused base"


@pytest.mark.slow
def test_a_run_names_it_resumes_to_the_bit_and_refuses_another(
    fused: Path, settings: Settings, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1767225600")
    mine = shutil.copy(fused, tmp_path / "mine.safetensors")
    given = {"adapter": AdapterConfig(training=str(mine)), "checkpoint": CheckpointConfig(every=2)}
    straight = run.run(settings(out=str(tmp_path / "a"), **given), store)
    folder = Path(shutil.copytree(straight.folder, tmp_path / "b"))
    (folder / "result.json").unlink()
    shutil.rmtree(folder / "checkpoints" / "step-000004")
    place = tmp_path / "elsewhere"
    place.mkdir()
    run.resume(folder, {"adapter.training": str(Path(mine).rename(place / "mine.safetensors"))}, store)
    shutil.copy(place / "mine.safetensors", mine)
    assert (folder / "discs.safetensors").read_bytes() == (straight.folder / "discs.safetensors").read_bytes()
    with safe_open(folder / "discs.safetensors", "pt") as file:
        manifest = json.loads(file.metadata()["loraloom.manifest"])
    digest = store.sha256(store.find(str(mine)))
    assert (manifest["training_adapter"]["sha256"], manifest["training_adapter"]["path"]) == (digest, "mine.safetensors")
    assert digest in {parent["sha256"] for parent in store.find(str(straight.result["adapter"])).parents}
    tiny.tiny_adapter(straight_base(settings), mine, rank=2, seed=3)
    (folder / "result.json").unlink()
    with pytest.raises(Faults, match=r"training adapter .*mine\.safetensors is another one"):
        run.resume(folder, {"adapter.training": str(mine)}, store)


def straight_base(settings: Settings) -> Path:
    return Path(settings().base)


@pytest.mark.slow
def test_one_of_another_family_or_with_text_encoders_is_refused(base: Path, settings: Settings, store: Store, tmp_path: Path) -> None:
    other = tiny.tiny_adapter(tiny.shared_folder("sdxl"), tmp_path / "xl.safetensors", family="sdxl")
    with pytest.raises(Refused, match=r"adapter for sdxl, and .* is sd1"):
        run.plan(settings(adapter=AdapterConfig(training=str(other))), store)
    text = tiny.tiny_adapter(base, tmp_path / "text.safetensors", text_encoder=True)
    with pytest.raises(Refused, match="changes text_encoder too"):
        run.plan(settings(adapter=AdapterConfig(training=str(text))), store)
    with pytest.raises(Refused, match=r"nothing\.safetensors"):
        run.plan(settings(adapter=AdapterConfig(training=str(tmp_path / "nothing.safetensors"))), store)


def _tensors(path: Path) -> dict[str, torch.Tensor]:
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


# --- few-step bases


def few_step_base(family: str, place: Path) -> Path:
    """A tiny few-step build: flux1's by its config, z_image's by its name alone."""
    if family == "flux1":
        return tiny.tiny_flux1(place / "few", variant="schnell")
    return Path(shutil.copytree(tiny.shared_folder(family), place / "Z-Image-Turbo"))


@pytest.mark.slow
@pytest.mark.parametrize(("family", "steps", "instead"), [("flux1", 4, "FLUX.1-dev"), ("z_image", 9, "Z-Image")])
def test_training_on_a_few_step_build_is_warned_of(
    family: str, steps: int, instead: str, settings: Settings, store: Store, tmp_path: Path
) -> None:
    base = few_step_base(family, tmp_path)
    size = 64 if family == "flux1" else module_of(family).SIZE
    made = run.plan(settings(base=str(base), resolution=size, preview=PreviewConfig()), store)
    assert made.few_step is not None and (made.config.preview.steps, made.config.preview.guidance) == (steps, 0.0)
    assert any(f"train on {instead} and draw on this one" in note and "adapter.training=REF" in note for note in made.notes)
    assert made.to_json()["few_step"]["train_on"] == instead
    assert made.estimate.seconds is not None and made.estimate.seconds["few-step test"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("family", ["flux1", "z_image"])
def test_a_few_step_run_ends_with_the_test_of_its_speed(family: str, settings: Settings, store: Store, tmp_path: Path) -> None:
    base = few_step_base(family, tmp_path)
    size = 64 if family == "flux1" else module_of(family).SIZE
    fused = tiny.tiny_adapter(base, tmp_path / "fused.safetensors", family=family, rank=2, strength=0.1)
    config = settings(
        base=str(base),
        resolution=size,
        steps=1,
        batch_size=1,
        lora=LoraConfig(rank=1),
        optim=OptimConfig(lr=1e-2),
        preview=PreviewConfig(prompts=["a disc", "a cat"]),
        adapter=AdapterConfig(training=str(fused)),
    )
    lines: list[str] = []
    outcome = run.run(config, store, out=lines.append)
    test = outcome.result["few_step"]
    assert test["steps"] == (4 if family == "flux1" else 9) and test["many_steps"] == (20 if family == "flux1" else 36)
    assert test["adapter"] > 0 and test["base"] > 0 and test["verdict"] in ("kept", "lost", "cannot tell")
    assert test["difference"]["mean"] == pytest.approx(test["adapter"] - test["base"])
    assert any(line.startswith("few-step test: ") for line in lines)
    assert "few-step test" in (outcome.folder / "report.html").read_text(encoding="utf-8")
