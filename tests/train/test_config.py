from pathlib import Path

import pytest

from registry.errors import Faults, Refused
from train.config import (
    AdapterConfig,
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
    *(
        "gradient_checkpointing",
        "swap_blocks",
        "offload_activations",
        "device",
        "checkpoint.every",
        "checkpoint.keep",
        "heldout.path",
        "heldout.share",
    ),
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


def test_a_name_that_no_folder_can_have_is_refused() -> None:
    with pytest.raises(Faults, match="name must have at most 200 bytes"):
        TrainConfig(name="n" * 201)


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


def test_values_of_other_types_in_a_file_are_refused_together(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    lines = ["steps: abc", "lora: 5", "data: null", "name: 5", "precision: [1]", "optim: {betas: [0.9, x], lr: x, lrr: 1}", "seed: -1"]
    file.write_text("\n".join(lines))
    with pytest.raises(Faults) as caught:
        read_yaml(file)
    assert caught.value.faults == [
        "steps must be a whole number, got 'abc'.",
        "lora must be a group of settings, got 5.",
        "data must be a group of settings, got None.",
        "name must be a text or null, got 5.",
        "precision must be auto or fp32 or bf16 or fp16, got [1].",
        "optim.betas must be a list of numbers or null, got [0.9, 'x'].",
        "optim.lr must be a number, got 'x'.",
        "optim.lrr is no setting. Did you mean 'lr'?",
        "seed must be in 0 .. 2^63 - 1, got -1.",
    ]


@pytest.mark.parametrize("text", ["[" * 300, "&a [*a]", "steps: !!timestamp x", "!!python/object/apply:os.getpid []", "a: b: c", "\x00"])
def test_a_file_that_is_no_settings_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(Refused):
        read_yaml(tmp_path / "config.yaml")


def test_a_number_that_yaml_takes_for_a_text_is_one(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("steps: 1e3\noptim: {lr: 1e-3}")
    found = read_yaml(tmp_path / "config.yaml")
    assert (found.steps, found.optim.lr) == (1000, 0.001)


@pytest.mark.parametrize("kind", ["dora", "oft"])
def test_kinds_that_depend_on_the_bases_weights_have_no_training_adapter(kind: str) -> None:
    with pytest.raises(Faults, match=r"lora\.kind must be lora, lokr or loha beside adapter\.training"):
        TrainConfig(lora=LoraConfig(kind=kind), adapter=AdapterConfig(training="a"))
    TrainConfig(lora=LoraConfig(kind="lokr"), adapter=AdapterConfig(training="a"))


def test_a_text_encoder_has_no_dora() -> None:
    """transformers 5 loads a DoRA's factors and leaves its magnitudes as the weight's own."""
    with pytest.raises(Faults, match=r"lora\.text_encoder must be false with lora\.kind=dora"):
        TrainConfig(lora=LoraConfig(kind="dora", text_encoder=True))
    TrainConfig(lora=LoraConfig(kind="lokr", text_encoder=True))
