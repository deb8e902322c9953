"""A LoRA on the text encoders too: learned, measured, drawn, resumed, saved under everyone's names, and proven."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from registry.store import Store
from tests import tiny
from tests.train.conftest import stopped
from train import run
from train.config import CheckpointConfig, LoraConfig, OptimConfig, PreviewConfig, TrainConfig
from train.run_types import Outcome

Settings = Callable[..., TrainConfig]

LORA = LoraConfig(rank=2, alpha=1.0, text_encoder=True)
PREVIEW = PreviewConfig(prompts=["a red disc"], steps=2, every=4)


def folder_of(outcome: Outcome) -> Path:
    return Path(outcome.result["files"]["diffusers"])


@pytest.mark.slow
@pytest.mark.parametrize(("family", "encoders"), [("sd1", 1), ("sdxl", 2), ("flux1", 1)])
def test_plain_diffusers_takes_both_parts(family: str, encoders: int, settings: Settings, store: Store, tmp_path: Path) -> None:
    import diffusers

    base = getattr(tiny, f"tiny_{family}")(tmp_path / family)
    config = settings(base=str(base), lora=LORA, preview=PREVIEW, gradient_checkpointing=True, resolution=tiny.SIZES[family], steps=3)
    outcome = run.run(config, store)
    file = folder_of(outcome)
    tensors = load_file(file)
    inside = {name.split(".")[0] for name in tensors if name.startswith("text_encoder")}
    assert len(inside) == encoders and all(".text_model." in name for name in tensors if name.startswith("text_encoder"))
    idle = [name for name in tensors if "lora_B" in name and not tensors[name].any()]
    assert not idle, "every layer has learned: those that are never read carry nothing"
    assert set(store.find("discs", kind="adapter").components) == inside | {"unet" if family != "flux1" else "transformer"}
    pipeline = diffusers.DiffusionPipeline.from_pretrained(base, dtype=torch.float32)
    ids = torch.tensor([[1, 2, 3, 4]])
    before = pipeline.text_encoder(ids).last_hidden_state
    pipeline.load_lora_weights(file)
    (first,) = [name for name in tensors if "text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_A" in name]
    up = tensors[first.replace("lora_A", "lora_B")]
    model = getattr(pipeline.text_encoder, "text_model", pipeline.text_encoder)
    layer = model.encoder.layers[0].self_attn.q_proj
    assert torch.allclose(layer.get_delta_weight("default_0"), up @ tensors[first], atol=1e-7)  # alpha / rank is in the factors
    assert not torch.equal(pipeline.text_encoder(ids).last_hidden_state, before)


@pytest.mark.slow
def test_stopped_and_gone_on_with_is_the_same_to_the_bit(
    settings: Settings, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"steps": 6, "checkpoint": CheckpointConfig(every=3), "lora": LORA, "optim": OptimConfig(lr=1e-2, text_lr=1e-3)}
    straight = run.run(settings(out=str(tmp_path / "straight"), **given), store)
    folder = stopped(settings(out=str(tmp_path / "stopped"), **given), store, at=4)
    outcome = run.resume(folder, {}, store)
    first, second = load_file(folder_of(straight)), load_file(folder_of(outcome))
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    assert outcome.result["heldout"] == straight.result["heldout"]


@pytest.mark.slow
def test_the_encoders_have_a_rate_of_their_own(prepared: Callable[[TrainConfig], object], settings: Settings) -> None:
    state = prepared(settings(lora=LORA, optim=OptimConfig(lr=1e-2, text_lr=1e-4))).state  # type: ignore[attr-defined]
    state.step(0)
    rates = [group["lr"] for group in state.optimizer.param_groups]
    assert rates[1] == pytest.approx(rates[0] / 100) and rates[0] > 0
    assert {name.split(".")[0] for name, _ in state.weights} == {"unet", "text_encoder"}


def test_the_plan_tells_what_stays_in_memory(settings: Settings, store: Store) -> None:
    alone, both = run.plan(settings(), store), run.plan(settings(lora=LORA), store)
    assert both.parameters > alone.parameters and both.encoders == ("text_encoder",)
    assert "of unet and text_encoder" in both.to_text() and both.estimate.memory["text_encoder"] > 0
    assert both.estimate.activations is not None and alone.estimate.activations is not None
    assert both.estimate.activations > alone.estimate.activations
