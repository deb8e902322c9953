"""What the settings choose from the tables, and everything that does not fit, reported at plan time."""

from typing import Any

import pytest

from registry.errors import Faults, Refused
from train.choices import choose_objective, choose_optimizer, choose_schedule, functions_of, try_optimizer
from train.config import (
    LoraConfig,
    ObjectiveConfig,
    ObjectiveParams,
    OptimConfig,
    OptimParams,
    ScheduleConfig,
    ScheduleParams,
    TrainConfig,
)


def test_the_settings_of_optim_fill_the_options_of_these_names() -> None:
    assert dict(choose_optimizer(OptimConfig()).values) == {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01}
    chosen = choose_optimizer(OptimConfig(weight_decay=0.0, betas=[0.8, 0.9], params=OptimParams(eps=1e-6)))
    assert dict(chosen.values) == {"betas": (0.8, 0.9), "eps": 1e-6, "weight_decay": 0.0}


@pytest.mark.parametrize(
    ("optim", "words"),
    [
        (OptimConfig(name="adamv"), "optim.name: Unknown optimizer 'adamv'. Did you mean 'adamw'"),
        (OptimConfig(name="AdamW8bit"), "optim.name: Unknown optimizer 'AdamW8bit'. Did you mean 'adamw8bit'"),
        (OptimConfig(params=OptimParams(d_coef=2.0)), "adamw has no option 'd_coef'"),
        (OptimConfig(name="sgd", betas=[0.9, 0.99]), "sgd has no option 'betas'"),
        (OptimConfig(name="sgd", params=OptimParams(dampening=2.0)), "optim.params.dampening must be a number from 0 to 1, got 2.0"),
        (OptimConfig(args={"eps": 1e-6}), "optim.args is for a class named by its import path; adamw's options are optim.params"),
        (OptimConfig(name="torch.optim.SDG"), "torch.optim has no class 'SDG'. Did you mean 'SGD'"),
        (OptimConfig(name="torch.nn.Linear"), "torch.nn.Linear is not a subclass of torch.optim"),
        (OptimConfig(name="no.such.Adam"), "cannot be imported: No module named 'no'"),
        (OptimConfig(name="torch.optim.RMSprop", args={"alpah": 0.9}), "torch.optim.RMSprop has no option 'alpah'. Did you mean 'alpha'"),
        (OptimConfig(name="torch.optim.RMSprop", args={"alpha": "big"}), "optim.args.alpha must be a number, got 'big'"),
        (OptimConfig(name="torch.optim.SGD", betas=[0.9, 0.99]), "torch.optim.SGD has no option 'betas'"),
        (
            OptimConfig(name="torch.optim.SGD", args={"momentum": 0.9}, params=OptimParams(momentum=0.5)),
            "is given by optim.params.momentum",
        ),
        (OptimConfig(name="torch.optim.SGD", params=OptimParams(nesterov=True)), "does not work with these options: ValueError: Nesterov"),
        (OptimConfig(name="torch.optim.LBFGS"), "does not work with these options: TypeError: .*closure"),
    ],
)
def test_an_optimizer_that_does_not_fit_is_refused(optim: OptimConfig, words: str) -> None:
    with pytest.raises(Refused, match=words):
        try_optimizer(TrainConfig(optim=optim))


def test_a_class_gets_the_options_that_are_given() -> None:
    import torch

    chosen = choose_optimizer(OptimConfig(name="torch.optim.SGD", params=OptimParams(momentum=0.9), args={"maximize": True}))
    assert chosen.function is torch.optim.SGD and dict(chosen.values) == {"momentum": 0.9, "maximize": True}


@pytest.mark.parametrize(("name", "numbers"), [("adamw", 2), ("sgd", 1), ("torch.optim.RMSprop", 1)])
def test_the_try_counts_what_the_optimizer_keeps(name: str, numbers: int) -> None:
    assert try_optimizer(TrainConfig(optim=OptimConfig(name=name), lora=LoraConfig(text_encoder=True))).moments == numbers


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        (ScheduleConfig(name="cosin"), "schedule.name: Unknown learning rate schedule 'cosin'. Did you mean 'cosine'"),
        (ScheduleConfig(params=ScheduleParams(cycles=0)), "schedule.params.cycles must be a whole number of at least 1, got 0"),
        (ScheduleConfig(name="linear", params=ScheduleParams(cycles=2)), "linear has no option 'cycles'. Known: min_factor"),
    ],
)
def test_a_schedule_that_does_not_fit_is_refused(schedule: ScheduleConfig, words: str) -> None:
    with pytest.raises(Refused, match=words):
        choose_schedule(schedule)


def test_an_option_goes_to_the_entry_that_has_it() -> None:
    params = ObjectiveParams(mean=0.5, gamma=3.0, delta=0.2)
    chosen = choose_objective(ObjectiveConfig(weighting="min_snr", loss="huber", params=params), "logit_normal")
    assert {name: dict(choice.values) for name, choice in chosen.items()} == {
        "timesteps": {"mean": 0.5, "std": 1.0},
        "weighting": {"gamma": 3.0},
        "loss": {"delta": 0.2, "schedule": "constant"},
        "name": {},
        "contrast": {},
    }


def test_changes_of_the_noise_are_joined_in_their_order() -> None:
    settings = ObjectiveConfig(noise="pyramid+offset", params=ObjectiveParams(offset=0.1), min_timestep=200)
    chosen = choose_objective(settings, "uniform")
    assert dict(chosen["noise=offset"].values) == {"offset": 0.1, "offset_random": False, "offset_adaptive": 0.0}
    functions = functions_of(settings, chosen)
    assert [name for name, _ in functions.noises] == ["pyramid", "offset"] and functions.band == (200, None)


CHOSEN = "timesteps=uniform, weighting=none, loss=mse, name=denoise, contrast=none"


@pytest.mark.parametrize(
    ("settings", "faults"),
    [
        ({"loss": "hubre"}, ["objective.loss: Unknown loss 'hubre'. Did you mean 'huber'?"]),
        (
            {"params": ObjectiveParams(gamma=5.0)},
            [f"{CHOSEN} has no option 'gamma'; weighting=min_snr and weighting=p2 have it."],
        ),
        (
            {"weighting": "min_snr", "params": ObjectiveParams(gamma=-1.0)},
            ["objective.params.gamma must be a number above 0, got -1.0."],
        ),
        ({"noise": "ofset"}, ["objective.noise: Unknown noise 'ofset'. Did you mean 'offset'?"]),
        ({"noise": "offset+offset"}, ["objective.noise=offset+offset names one twice."]),
        (
            {"params": ObjectiveParams(discount=0.5)},
            [f"{CHOSEN} has no option 'discount'; noise=pyramid has it."],
        ),
    ],
)
def test_an_objective_that_does_not_fit_is_answered(settings: dict[str, Any], faults: list[str]) -> None:
    with pytest.raises(Faults) as caught:
        choose_objective(ObjectiveConfig(**settings), "uniform")
    assert caught.value.faults == faults
