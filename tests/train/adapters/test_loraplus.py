"""LoRA+: the up matrices at a multiple of the rate; refused where there are none, or where the optimizer estimates the rate."""

import pytest
import torch

from registry.errors import Faults, Refused
from train.choices import build_optimizer, choose_optimizer, try_optimizer
from train.config import LoraConfig, OptimConfig, OptimParams, TrainConfig
from train.loop.prepare import groups_of
from train.optim_state import set_rate
from train.plan.optim_notes import check_loraplus, unusual_rates


def plus(name: str = "sgd", lr: float = 0.5, **given: object) -> OptimConfig:
    return OptimConfig(name=name, lr=lr, loraplus_lr_ratio=16, **given)  # type: ignore[arg-type]


def test_two_steps_of_sgd_move_the_up_matrices_sixteen_times_as_far() -> None:
    config = TrainConfig(optim=plus(text_lr=0.25, params=OptimParams(momentum=0.0)), lora=LoraConfig(text_encoder=True))
    names = [
        f"{module}.to_q.{ending}" for module in ("unet", "text_encoder") for ending in ("lora_A.default.weight", "lora_B.default.weight")
    ]
    names += ["unet.to_k.lora_B", "unet.to_k.lora_magnitude_vector.default.weight"]  # PiSSA's name, and DoRA's magnitude
    weights = [(name, torch.nn.Parameter(torch.zeros(2, 2))) for name in names]
    optimizer = build_optimizer(choose_optimizer(config.optim), groups_of(dict.fromkeys(["unet", "text_encoder"]), weights, config), 0.5)
    for _ in range(2):
        for _, weight in weights:
            weight.grad = torch.ones(2, 2)
        set_rate(optimizer, 0.5)
        optimizer.step()
    assert {name: -weight.detach()[0, 0].item() for name, weight in weights} == {
        "unet.to_q.lora_A.default.weight": 1.0,  # two steps of 0.5
        "unet.to_q.lora_B.default.weight": 16.0,
        "text_encoder.to_q.lora_A.default.weight": 0.5,
        "text_encoder.to_q.lora_B.default.weight": 8.0,
        "unet.to_k.lora_B": 16.0,
        "unet.to_k.lora_magnitude_vector.default.weight": 1.0,
    }


def test_kinds_without_an_up_matrix_are_refused() -> None:
    TrainConfig(optim=plus(), lora=LoraConfig(kind="dora"))
    for kind in ("lokr", "loha", "oft"):
        with pytest.raises(Faults, match=r"optim.loraplus_lr_ratio needs lora.kind=lora or dora: only these have an up matrix"):
            TrainConfig(optim=plus(), lora=LoraConfig(kind=kind))
    with pytest.raises(Faults, match=r"optim.loraplus_lr_ratio must be above 0 and at most 1000"):
        TrainConfig(optim=OptimConfig(loraplus_lr_ratio=0))


def test_optimizers_that_estimate_the_rate_are_refused_and_others_are_tried_with_both_rates() -> None:
    for name in ("prodigy", "prodigy_plus_schedule_free", "prodigyopt.Prodigy"):
        with pytest.raises(Refused, match=r"optim.loraplus_lr_ratio=16: \w+ estimates the rate itself"):
            check_loraplus(TrainConfig(optim=plus(name, 1.0)))
    for name in ("adamw", "muon"):
        check_loraplus(TrainConfig(optim=plus(name, 1e-4)))
        assert try_optimizer(TrainConfig(optim=plus(name, 1e-4))).inexact is None


def test_a_rate_of_the_up_matrices_that_destroys_a_lora_is_noted() -> None:
    (note,) = unusual_rates(TrainConfig(optim=plus("adamw", 1e-3)))
    assert note.startswith("optim.lr x optim.loraplus_lr_ratio is 0.016: with adamw each weight moves by about that much a step")
