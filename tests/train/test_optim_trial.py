"""Every optimizer stopped and resumed on a small weight, as the plan tries it; and classes that a resume would change."""

import importlib.util
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch

from registry.errors import Refused
from train.choices import build_optimizer, choose_optimizer, try_optimizer
from train.config import LoraConfig, OptimConfig, TrainConfig
from train.optim import OPTIMIZERS
from train.optim_state import evaluation_weights, load_state, set_rate
from train.optim_trial import Trial, try_steps

UNSCALED = {"relative_step": False, "scale_parameter": False, "warmup_init": False}
HERE = [name for name in OPTIMIZERS if name != "adamw8bit" or importlib.util.find_spec("bitsandbytes")]  # it is no package of the tests
CHOSEN = [
    *(OptimConfig(name=name, lr=1e-2) for name in HERE),
    *(OptimConfig(name=f"torch.optim.{name}", lr=1e-2) for name in ("RMSprop", "Adagrad", "NAdam", "RAdam", "Adamax", "Rprop", "Adadelta")),
    OptimConfig(name="torch.optim.Adam", lr=1e-2, args={"amsgrad": True}),
    OptimConfig(name="transformers.Adafactor", lr=1e-2, args=UNSCALED),
    OptimConfig(name="schedulefree.RAdamScheduleFree", lr=1e-2),
    *(OptimConfig(name=f"adv_optm.{name}", lr=1e-2) for name in ("AdamW_adv", "AdaMuon_adv", "Adopt_adv", "SignSGD_adv")),
    OptimConfig(name="adv_optm.Prodigy_adv", lr=1.0),
]
KEPT = {"adamw": 2.0, "sgd": 1.0, "lion": 1.0, "muon": 1.0, "adafactor": 33 / 512, "came": 1 + 2 * 33 / 512, "torch.optim.Adam": 3.0}


@pytest.mark.parametrize("optim", CHOSEN, ids=[optim.name for optim in CHOSEN])
def test_a_resume_has_the_same_bits(optim: OptimConfig) -> None:
    found = try_optimizer(TrainConfig(optim=optim))
    assert found.inexact is None
    assert found.own_average == ("schedule_free" in optim.name or "ScheduleFree" in optim.name)
    assert found.moments == pytest.approx(KEPT.get(optim.name, found.moments), rel=0.01)


@pytest.mark.parametrize("optim", CHOSEN[: len(HERE)], ids=lambda optim: optim.name)
@pytest.mark.parametrize("kill", [1, 4])
def test_a_kill_at_any_step_is_not_seen_ten_steps_later(kill: int, optim: OptimConfig) -> None:
    """Against the trial's own code: weights of other shapes, the state through a file, its average looked at on the way."""
    choice = choose_optimizer(optim)

    def begin() -> tuple[list[torch.nn.Parameter], Any]:
        generator = torch.Generator().manual_seed(3)
        shapes = ((4, 20), (20, 4), (4, 3, 3, 3), (7,))
        weights = [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]
        return weights, build_optimizer(choice, [{"params": weights[:2], "rate": 1.0}, {"params": weights[2:], "rate": 1.0}], optim.lr)

    def steps(weights: list[torch.nn.Parameter], optimizer: Any, numbers: range) -> None:
        for number in numbers:
            generator = torch.Generator().manual_seed(number)
            for weight in weights:
                weight.grad = torch.randn(weight.shape, generator=generator)
            set_rate(optimizer, optim.lr / (number + 1))
            optimizer.step()

    straight, optimizer = begin()
    steps(straight, optimizer, range(10))
    weights, optimizer = begin()
    steps(weights, optimizer, range(kill))
    with evaluation_weights(optimizer, weights):
        pass
    file = io.BytesIO()
    torch.save([optimizer.state_dict(), [weight.detach() for weight in weights]], file)
    file.seek(0)
    saved, values = torch.load(file, weights_only=True)
    resumed, optimizer = begin()
    load_state(optimizer, saved)
    with torch.no_grad():
        for weight, value in zip(resumed, values, strict=True):
            weight.copy_(value)
    steps(resumed, optimizer, range(kill, 10))
    assert all(map(torch.equal, straight, resumed))


def test_no_run_is_planned_with_a_state_that_cannot_be_put_back() -> None:
    with pytest.raises(Refused, match=r"adv_optm\.Lion_adv cannot be resumed, as its state cannot be put back: KeyError"):
        try_optimizer(TrainConfig(optim=OptimConfig(name="adv_optm.Lion_adv", lr=1e-3)))


def test_stochastic_rounding_with_a_generator_of_its_own_is_found() -> None:
    found = try_optimizer(TrainConfig(optim=OptimConfig(name="adv_optm.AdamW_adv", lr=1e-3, args={"state_precision": "bf16_sr"})))
    assert found.inexact is not None and "it has a state that it does not save" in found.inexact and found.moments == 1.0


class Counting(torch.optim.SGD):
    """Steps that grow by a count which state_dict does not hold."""

    count = 0

    def step(self, closure: Any = None) -> Any:
        self.count += 1
        for group in self.param_groups:
            group["lr"] *= self.count
        super().step()


class Unsaved(torch.optim.SGD):
    """A state that only code can read back."""

    def state_dict(self) -> Any:
        return {**super().state_dict(), "more": Counting}


class Drawing(torch.optim.SGD):
    """Random steps from torch's own generator, whose state a checkpoint holds."""

    def step(self, closure: Any = None) -> Any:
        for weight in self.param_groups[0]["params"]:
            weight.grad += torch.randn_like(weight)
        super().step()


def tried(kind: Callable[..., Any], **options: Any) -> Trial:
    return try_steps(lambda groups: kind(groups, lr=1e-3, **options), rank=4, rates=[1.0], lr=1e-3, setting="optim.name=mine")


def test_a_state_outside_of_state_dict_is_found() -> None:
    assert "differ by up to" in str(tried(Counting).inexact)
    assert tried(Drawing).inexact is None
    with pytest.raises(Refused, match=r"optim\.name=mine cannot be resumed, as its state cannot be saved"):
        tried(Unsaved)


def test_the_trial_leaves_the_random_states_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    tried(Drawing)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_rate_for_each_group_is_tried() -> None:
    config = TrainConfig(optim=OptimConfig(name="prodigy", lr=1.0, text_lr=0.5), lora=LoraConfig(text_encoder=True))
    with pytest.raises(Refused, match=r"optim\.name=prodigy does not work with these options: RuntimeError: Setting different lr values"):
        try_optimizer(config)
