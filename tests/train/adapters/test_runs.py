"""A run of each kind, from the plan to the registered file: trained, saved, read back by the registry and by other tools' rules."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from registry.families import FAMILIES
from registry.family import Family
from registry.store import Store
from tests.train.adapters.runtimes import comfyui_weight, sd_scripts_weight
from train import run
from train.config import LoraConfig, TrainConfig
from train.lora import add_lora, targets_of
from train.settings.lora import LoraParams

Settings = Callable[..., TrainConfig]
SD1: Family = FAMILIES["sd1"]
KINDS: dict[str, LoraConfig] = {
    "rslora": LoraConfig(rank=4, alpha=2.0, params=LoraParams(rank_stabilised=True)),
    "pissa": LoraConfig(rank=2, alpha=1.0, params=LoraParams(init="pissa")),
    "dora": LoraConfig(kind="dora", rank=2, alpha=3.0),
    "lokr": LoraConfig(kind="lokr", rank=2, alpha=1.0, targets="convolutions"),
    "lokr of whole matrices": LoraConfig(kind="lokr", params=LoraParams(full_matrix=True, factor=4)),
    "loha": LoraConfig(kind="loha", rank=2, alpha=1.0, targets="convolutions"),
    "oft": LoraConfig(kind="oft", rank=4, targets="convolutions"),
    "ranks by pattern": LoraConfig(rank=2, ranks={"attn2.to_k": 3, r"conv\d": 1}, alphas={"attn1.*": 1.0}, targets="convolutions"),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_of_the_kind_gives_a_file_that_other_tools_read(kind: str, settings: Settings, store: Store, base: Path) -> None:
    lora = KINDS[kind]
    made = run.plan(settings(lora=lora, steps=2), store)
    assert sum(weight.numel() for weight in weights_of(lora, base)) == made.parameters
    outcome = run.run(settings(lora=lora, steps=2), store)
    file = Path(outcome.result["files"]["kohya"])
    fresh = SD1.load(base, dtype=torch.float32, device="cpu")
    named = {f"lora_unet_{name.removesuffix('.weight').replace('.', '_')}": weight for name, weight in fresh.denoiser.named_parameters()}
    weights = {name: weight.detach().clone() for name, weight in named.items()}
    state = load_file(file)
    modules = dict.fromkeys(key.partition(".")[0] for key in state)
    assert len(modules) == made.layers
    wanted = registry_changes(Path(next(iter(outcome.result["files"].values()))), fresh)
    assert wanted.keys() == set(modules)
    for name in modules:
        for rule in (comfyui_weight, sd_scripts_weight):
            change = rule(state, name, weights[name]) - weights[name]
            allowed = 2e-5 * float(wanted[name].abs().max()) + 2e-6 * float(weights[name].abs().max())
            assert float((change - wanted[name]).abs().max()) <= allowed, (name, rule.__name__)


def weights_of(lora: LoraConfig, base: Path) -> list[torch.Tensor]:
    """The weights that learn, of the real module."""
    parts = SD1.load(base, dtype=torch.float32, device="cpu")
    return [weight for _, weight in add_lora(parts.denoiser, TrainConfig(lora=lora), targets_of(SD1, lora.targets))]


def registry_changes(path: Path, fresh: Any) -> dict[str, torch.Tensor]:
    from train.output.export import through_registry

    return {f"lora_{name.replace('.', '_')}": found.change for name, found in through_registry(path, SD1, fresh).items()}
