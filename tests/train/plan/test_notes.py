from train.config import LoraConfig, OptimConfig, TrainConfig
from train.plan.notes import unusual_rates


def notes(**optim: object) -> list[str]:
    return list(unusual_rates(TrainConfig(optim=OptimConfig(**optim), lora=LoraConfig(text_encoder=True))))  # type: ignore[arg-type]


def test_a_rate_that_destroys_a_lora_is_noted() -> None:
    (note,) = notes(lr=1.0)
    assert note.startswith("optim.lr is 1: with adamw each weight moves by about that much a step") and "1e-4 suits rank 16" in note
    assert ["optim.text_lr is 0.5" in note for note in notes(name="torch.optim.NAdam", lr=1e-3, text_lr=0.5)] == [True]
    assert "next to nothing" in notes(name="adafactor", lr=1e-7)[0]


def test_rates_that_suit_are_not() -> None:
    assert notes() == notes(lr=1e-2) == notes(lr=1e-6) == notes(name="sgd", lr=1.0) == notes(name="prodigy", lr=1.0) == []
