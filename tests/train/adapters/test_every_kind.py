"""Each kind of adapter on a tiny build of every family: a step, the file, and what other readers make of it on a fresh base."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from registry.converting.adapters import AdapterPlan, plan_adapter, write_planned
from registry.errors import Refused
from registry.families import FAMILIES
from registry.family import Family
from registry.parts import Parts
from tests.tiny import SIZES, shared_folder, tiny_parts
from tests.tiny_families import NAMES, module_of
from train.config import LoraConfig, TrainConfig
from train.loop.encode import Prompts
from train.lora import add_loras, learning_modules, matched, parameter_count, targets_of
from train.objective.targets import objective_of
from train.output import export
from train.settings.lora import LoraParams

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning")]

BUILDS: dict[str, dict[str, Any]] = {"sdxl": {}, "flux1": {}} | {
    name: {"variant": module_of(name).VARIANTS[0]} for name in NAMES if FAMILIES[name].untrained is None
}
FUSED = ("chroma", "flux1", "flux2", "lumina2", "sana", "sd3", "z_image")  # query, key and value are one layer in the original
KINDS: dict[str, LoraConfig] = {
    "dora": LoraConfig(kind="dora", rank=2),
    "lokr": LoraConfig(kind="lokr", rank=1, params=LoraParams(factor=4)),
    "loha": LoraConfig(kind="loha", rank=2),
    "oft": LoraConfig(kind="oft", rank=4, params=LoraParams(block_size=5)),  # 85 outputs of Z-Image's MLP are 5 x 17
}


@pytest.fixture(scope="module", params=BUILDS)
def build(request: pytest.FixtureRequest) -> tuple[str, Family, Parts, int]:
    """(folder, family, parts as loaded, pixels a side)."""
    family, parts = tiny_parts(request.param, **BUILDS[request.param])
    return (
        str(shared_folder(request.param, **BUILDS[request.param])),
        family,
        parts,
        SIZES.get(request.param) or module_of(request.param).SIZE,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_of_the_kind_is_in_the_file(kind: str, build: tuple[str, Family, Parts, int], tmp_path: Path) -> None:
    folder, family, loaded, side = build
    config = TrainConfig(lora=KINDS[kind])
    config.lora.targets = "attention_mlp"
    parts = copy.deepcopy(loaded)
    targets, modules = targets_of(family, "attention_mlp"), learning_modules(family, parts, config)
    layers = matched(parts.denoiser, targets)
    counted = parameter_count(parts.denoiser, layers, config.lora)
    weights = [weight for _, weight in add_loras(family, modules, config, targets)[family.denoiser]]
    assert sum(weight.numel() for weight in weights) == counted
    step(family, parts, weights, side)
    file = tmp_path / "a.safetensors"
    export.write_adapter(file, modules, export.metadata(family, modules, title="a", facts={}, manifest={}))
    shape = (family.channels(parts), side // parts.latent_factor, side // parts.latent_factor)
    asked = objective_of(parts.prediction, parts.scheduler_class, parts.scheduler_config)
    kept = export.proof(family, parts, modules, asked, Prompts(("a cat",)), shape=shape, guidance=1.0)
    assert kept.changed and len(kept.products) == len(layers)
    export.verify(file, family, copy.deepcopy(loaded), kept)

    def converted() -> AdapterPlan:
        return plan_adapter(file, tmp_path / "kohya.safetensors", target="kohya", family=family.name, base=Path(folder), dtype=None)

    if kind != "dora" and family.name in FUSED:
        with pytest.raises(Refused, match="its layer is fused with others in kohya's files"):
            converted()
    else:
        write_planned(converted(), parents=[])


def step(family: Family, parts: Parts, weights: list[Any], side: int) -> None:
    """Two steps against the gradient of the prediction's square, each weight's of one size."""
    shape = (1, family.channels(parts), side // parts.latent_factor, side // parts.latent_factor)
    noisy = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        states = family.encode_prompts(parts, ["a cat"])
        complete = family.complete(parts, states, height=side, width=side, guidance=1.0)
    for _ in range(2):
        answer = family.predict(parts, noisy, torch.tensor([500.0]), complete)
        gradients = torch.autograd.grad(answer.square().sum(), weights, allow_unused=True)
        with torch.no_grad():
            for weight, gradient in zip(weights, gradients, strict=True):
                if gradient is not None and float(gradient.abs().max()):
                    weight -= 1e-2 * gradient / gradient.abs().max()
