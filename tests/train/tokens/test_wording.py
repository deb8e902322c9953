"""What a run trains has its name in sentences, in the plan and in the advice."""

import pytest

from train.config import LoraConfig, OptimConfig, TrainConfig
from train.plan.notes import few_step_notes
from train.plan.optim_notes import unusual_rates
from train.settings.tokens import TokensConfig
from train.tokens.wording import trained_of

TOKENS = TokensConfig(add=[{"token": "inkstyl"}])


@pytest.mark.parametrize(
    ("config", "name"),
    [
        (TrainConfig(), "LoRA"),
        (TrainConfig(lora=LoraConfig(kind="lokr")), "LoKr"),
        (TrainConfig(tokens=TOKENS), "LoRA and embedding 'inkstyl'"),
        (TrainConfig(tokens=TOKENS, lora=LoraConfig(kind="none")), "embedding 'inkstyl'"),
        (
            TrainConfig(tokens=TokensConfig(add=[{"token": "<ab>"}, {"token": "cd"}]), lora=LoraConfig(kind="none")),
            "embeddings '<ab>' and 'cd'",
        ),
    ],
)
def test_the_name(config: TrainConfig, name: str) -> None:
    assert trained_of(config).name == name


def test_a_rate_of_vectors_is_noted_for_vectors() -> None:
    config = TrainConfig(tokens=TOKENS, lora=LoraConfig(kind="none"), optim=OptimConfig(lr=0.5))
    (note,) = unusual_rates(config)
    assert note.endswith("which destroys the vectors in a few steps; 1e-3 to 5e-3 suit vectors")


def test_tokens_alone_do_not_unlearn_the_few_steps() -> None:
    from registry.detect.few_step import FewStep, FoundFewStep

    kind = FewStep(title="SDXL Turbo", steps=1, guidance=0.0, instead="SDXL")
    found = FoundFewStep(kind, "its name")
    assert (
        len(list(few_step_notes(found, training=False, tokens_alone=True))) == 1 and len(list(few_step_notes(found, training=False))) == 2
    )
