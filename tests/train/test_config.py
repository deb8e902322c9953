from pathlib import Path

import pytest

from registry.errors import Faults, Refused
from train.config import (
    LoraConfig,
    OptimConfig,
    Precision,
    ScheduleConfig,
    TrainConfig,
    changed,
    dotted_names,
    from_plain,
    read_yaml,
    to_plain,
    to_yaml,
)

PROMISED = [
    *("name", "base", "base_config", "data.path", "data.trigger", "data.image_column", "data.caption_column", "resolution"),
    *("batch_size", "accumulate", "steps", "seed", "lora.rank", "lora.alpha", "lora.targets", "optim.name", "optim.lr"),
    *("optim.weight_decay", "optim.betas", "optim.clip", "schedule.name", "schedule.warmup", "precision"),
    *("gradient_checkpointing", "device", "checkpoint.every", "checkpoint.keep", "heldout.path", "heldout.share"),
    *("heldout.every", "preview.prompts", "preview.every", "preview.seed", "preview.steps", "preview.guidance"),
    *("tracker", "out", "dry_run", "resume"),
]


def test_the_promised_names_are_settings() -> None:
    assert set(PROMISED) <= set(dotted_names())


def test_every_fault_is_reported_at_once() -> None:
    with pytest.raises(Faults) as caught:
        TrainConfig(steps=0, lora=LoraConfig(rank=0, alpha=0.0), optim=OptimConfig(lr=float("nan")), schedule=ScheduleConfig(warmup=1.0))
    reported = "\n".join(caught.value.faults)
    assert len(caught.value.faults) == 5
    assert "steps must be at least 1, got 0." in reported
    assert "lora.alpha must be above 0 (0 learns nothing), or null for the rank, got 0.0." in reported


@pytest.mark.parametrize("name", ["../up", ".hidden", "a/b", "a@b", "ink:0.5", "a+b", " a"])
def test_a_name_that_a_reference_could_not_hold_is_refused(name: str) -> None:
    with pytest.raises(Faults, match="name names a folder"):
        TrainConfig(name=name)


def test_settings_survive_the_file(tmp_path: Path) -> None:
    config = TrainConfig(name="a, b", precision=Precision.bf16, lora=LoraConfig(targets=["to_q", "to_v"]))
    (tmp_path / "config.yaml").write_text(to_yaml(config), encoding="utf-8")
    assert read_yaml(tmp_path / "config.yaml") == config


def test_an_unknown_setting_is_refused_with_the_nearest() -> None:
    with pytest.raises(Faults, match=r"optim\.lrr is no setting\. Did you mean 'lr'"):
        from_plain({"optim": {"lrr": 1}})
    with pytest.raises(Refused, match="Did you mean 'steps'"):
        changed(TrainConfig(), {"stesp": 3})


def test_alpha_is_the_rank_when_not_given() -> None:
    assert TrainConfig(lora=LoraConfig(rank=8)).alpha == 8.0
    assert TrainConfig(lora=LoraConfig(rank=8, alpha=4.0)).alpha == 4.0


def test_plain_values_hold_no_enum() -> None:
    assert to_plain(TrainConfig())["precision"] == "auto"
