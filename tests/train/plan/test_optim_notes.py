import pytest

from registry.errors import Refused
from train.config import LoraConfig, OptimConfig, ScheduleConfig, TrainConfig
from train.optim_trial import Trial
from train.plan.optim_notes import check_average, optimizer_notes, unusual_rates
from train.settings.ema import EmaConfig

PLAIN, FREE = Trial(2.0, None, False), Trial(2.0, None, True)


def rates(**optim: object) -> list[str]:
    return list(unusual_rates(TrainConfig(optim=OptimConfig(**optim), lora=LoraConfig(text_encoder=True))))  # type: ignore[arg-type]


def test_a_rate_that_destroys_a_lora_is_noted() -> None:
    (note,) = rates(lr=1.0)
    assert note.startswith("optim.lr is 1: with adamw each weight moves by about that much a step") and "1e-4 suits rank 16" in note
    assert ["optim.text_lr is 0.5" in note for note in rates(name="torch.optim.NAdam", lr=1e-3, text_lr=0.5)] == [True]
    assert "next to nothing" in rates(name="adafactor", lr=1e-7)[0] and "destroys" in rates(name="lion", lr=0.1)[0]


@pytest.mark.parametrize(
    "optim",
    [
        {},
        {"lr": 1e-2},
        {"lr": 1e-6},
        {"name": "sgd", "lr": 1.0},
        {"name": "prodigy", "lr": 1.0},
        {"name": "adv_optm.Prodigy_adv", "lr": 1.0},
        {"name": "pytorch_optimizer.DAdaptAdam", "lr": 1.0},
    ],
)
def test_rates_that_suit_are_not(optim: dict[str, object]) -> None:
    assert rates(**optim) == []


def notes(trial: Trial, **settings: object) -> str:
    return "\n".join(optimizer_notes(TrainConfig(**settings), trial))  # type: ignore[arg-type]


def test_what_an_optimizer_needs_beside_it_is_noted() -> None:
    plus = OptimConfig(name="prodigy_plus_schedule_free", lr=0.01)
    found = notes(FREE, optim=plus)
    assert "averages its steps in place of a schedule; schedule.name is cosine" in found
    assert "prodigy_plus_schedule_free multiplies its own estimate" in found and "optim.clip is 1" in found
    right = OptimConfig(name="prodigy_plus_schedule_free", lr=1.0, clip=0.0)
    assert notes(FREE, optim=right, schedule=ScheduleConfig(name="constant")) == notes(PLAIN) == ""
    assert "a resume with adamw is not exact: why" in notes(Trial(2.0, "why", False))


def test_an_average_that_lags_behind_a_short_run_is_noted() -> None:
    assert "averages over some 1,000 steps, and the run has 1,000" in notes(PLAIN, ema=EmaConfig(decay=0.999))
    assert "At most 0.995 suits it" in notes(PLAIN, ema=EmaConfig(decay=0.999))
    assert notes(PLAIN, ema=EmaConfig(decay=0.99)) == ""


def test_two_averages_of_one_adapter_are_refused() -> None:
    check_average(TrainConfig(ema=EmaConfig(decay=0.99)), PLAIN)
    check_average(TrainConfig(), FREE)
    with pytest.raises(Refused, match=r"ema\.decay=0\.99: adamw is schedule-free.*Leave ema\.decay null"):
        check_average(TrainConfig(ema=EmaConfig(decay=0.99)), FREE)
