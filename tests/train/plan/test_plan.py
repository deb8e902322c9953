"""What only the plan decides: all faults together, every default as a value, notes on what is probably not intended."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from registry.errors import Faults, Refused
from registry.store import Store
from tests import tiny
from train import run
from train.config import DataConfig, ObjectiveConfig, ObjectiveParams, OptimConfig, OptimParams, ScheduleConfig, ScheduleParams, TrainConfig

Settings = Callable[..., TrainConfig]


def test_all_faults_of_optimizer_schedule_objective_and_device_are_reported_together(settings: Settings, store: Store) -> None:
    config = settings(
        optim=OptimConfig(name="sgd", params=OptimParams(d_coef=2.0)),
        schedule=ScheduleConfig(name="cosine", params=ScheduleParams(min_factor=2.0)),
        objective=ObjectiveConfig(weighting="min_srn", params=ObjectiveParams(gamma=5.0)),
        device="cuda:99",
    )
    with pytest.raises(Faults) as caught:
        run.plan(config, store)
    text = str(caught.value)
    for words in (
        "sgd has no option 'd_coef'",
        "schedule.params.min_factor must be a number from 0 to 1, got 2.0",
        "objective.weighting: Unknown loss weighting 'min_srn'. Did you mean 'min_snr'",
        "cuda:99 is not on this machine",
    ):
        assert words in text


def test_a_weighting_that_does_not_suit_the_base_is_refused(settings: Settings, store: Store) -> None:
    with pytest.raises(Refused, match="cosmap is a weighting of flow models; the base predicts epsilon"):
        run.plan(settings(objective=ObjectiveConfig(weighting="cosmap")), store)


def test_the_options_of_what_is_chosen_become_values_and_others_stay_null(settings: Settings, store: Store) -> None:
    plan = run.plan(settings(objective=ObjectiveConfig(weighting="min_snr")), store)
    config = plan.config
    assert (config.optim.betas, config.optim.weight_decay, config.optim.params.eps) == ([0.9, 0.999], 0.01, 1e-8)
    assert config.optim.params.momentum is None and config.optim.params.d_coef is None
    assert (config.schedule.params.cycles, config.schedule.params.power) == (1, None)
    assert (config.objective.params.gamma, config.objective.params.delta) == (5.0, None)
    assert "mse, weighting min_snr" in plan.to_text()
    assert run.plan(config, store).config == config  # a resolved config is its own resolution


def test_memory_counts_what_the_optimizer_keeps(settings: Settings, store: Store) -> None:
    adamw, sgd = (run.plan(settings(optim=OptimConfig(name=name, lr=1e-3)), store) for name in ("adamw", "sgd"))
    part = "LoRA weights, gradients, optimizer"
    assert adamw.estimate.memory[part] == 16 * adamw.parameters and sgd.estimate.memory[part] == 12 * sgd.parameters


def test_a_class_by_its_path_is_planned_and_written_back(settings: Settings, store: Store, tmp_path: Path) -> None:
    from train.config import read_yaml, to_yaml

    optim = OptimConfig(name="torch.optim.RMSprop", lr=1e-3, args={"alpha": 0.9}, params=OptimParams(momentum=0.5))
    plan = run.plan(settings(optim=optim), store)
    (tmp_path / "config.yaml").write_text(to_yaml(plan.config), encoding="utf-8")
    again = read_yaml(tmp_path / "config.yaml")
    assert again == plan.config and again.optim.args == {"alpha": 0.9} and again.optim.params.momentum == 0.5


@pytest.mark.slow
def test_clip_skip_is_checked_against_the_base_and_shown(settings: Settings, store: Store, tmp_path: Path) -> None:
    made = run.plan(settings(clip_skip=1), store)
    assert made.config.clip_skip == 1 and "clip skip 2 in kohya's and A1111's count" in made.to_text()
    assert run.plan(settings(clip_skip=0), store).config.clip_skip is None
    with pytest.raises(Refused, match="clip_skip is 40; this text encoder has"):
        run.plan(settings(clip_skip=40), store)
    with pytest.raises(Refused, match=r"FLUX\.1 uses CLIP's pooled state only"):
        run.plan(settings(clip_skip=1, base=str(tiny.tiny_flux1(tmp_path / "flux1")), resolution=64), store)


@pytest.mark.parametrize(
    ("given", "processes", "steps"),
    [
        ({"epochs": 3, "batch_size": 2}, "1", 9),  # 6 images, 3 steps an epoch
        ({"epochs": 2.5, "batch_size": 2}, "1", 8),  # 7.5
        ({"epochs": 1, "batch_size": 4}, "1", 2),  # 1.5
        ({"epochs": 2, "batch_size": 1, "accumulate": 3}, "2", 2),
        ({"epochs": 0.01, "batch_size": 4}, "1", 1),
    ],
)
def test_epochs_are_the_least_steps_that_show_each_image_so_often(given: dict[str, Any], processes: str, steps: int) -> None:
    from train.loop.batches import Order
    from train.plan.checks import in_steps

    config = TrainConfig(**given)
    config = in_steps(config, Order(0, (tuple(range(6)),), config.batch_size, config.accumulate, int(processes)))
    assert (config.steps, config.epochs) == (steps, None)


def test_epochs_of_more_steps_than_can_be_counted_are_refused_with_the_rest(settings: Settings, store: Store) -> None:
    with pytest.raises(Faults) as caught:
        run.plan(settings(epochs=1e30, device="mps"), store)
    assert any("steps must be below 2^31" in fault for fault in caught.value.faults) and any(
        "device=mps" in str(f) for f in caught.value.faults
    )


def test_a_plan_of_epochs_has_their_steps(settings: Callable[..., TrainConfig], store: Store) -> None:
    made = run.plan(settings(epochs=2, steps=1000), store)
    assert made.config.steps == 6 and made.epochs == 2.0 and made.config.checkpoint.every == 2
    assert "each image is seen 2.0 times (an epoch is 3 steps)" in made.to_text()


@pytest.mark.slow
def test_prompts_are_judged_on_the_tokens_that_are_read_and_long_ones_are_cut(settings: Settings, store: Store, tmp_path: Path) -> None:
    folder = tiny.tiny_dataset(tmp_path / "set", 20)
    for number in range(20):
        (folder / f"{number:03d}.txt").write_text(f"disc {number} (red:1.2) {'of a colour ' * 400} sks")
    made = run.plan(settings(data=DataConfig(path=str(folder), trigger="sks")), store)
    assert all(prompt.startswith("sks, disc") for prompt in made.prompts)
    assert "20 of 20 captions contain the trigger only behind the token limit, unread; it is prepended to those" in made.notes
    assert any(note.startswith("20 of 20 captions hold weights such as (word:1.2) ('(red:1.2)')") for note in made.notes)
    text = made.to_text()
    assert len(made.truncated) == 20 and "and 8 more" in text and len(text) < 10_000
    with pytest.raises(Refused, match=r"data\.trigger='sks sks .*' needs .* tokens, and .* reads"):
        run.plan(settings(data=DataConfig(path=str(folder), trigger="sks " * 200)), store)
