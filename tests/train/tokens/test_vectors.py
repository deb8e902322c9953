"""The vectors in the tables of the text encoders: what they begin with, that they alone learn, how long they may grow, when they rest."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny import tiny_parts
from tests.train.loop.test_resume import saved
from train.choices import build_optimizer, choose_optimizer
from train.config import DataConfig, LoraConfig, OptimConfig, TrainConfig, changed
from train.loop import checkpoint
from train.loop.prepare import groups_of
from train.loop.saved_state import restore
from train.output import export
from train.settings.tokens import TokensConfig
from train.tokens.new_token import find_tokens, with_new_tokens
from train.tokens.vectors import Vectors, add_vectors

Settings = Callable[..., TrainConfig]


def added(tokens: TokensConfig, *, steps: int = 10) -> tuple[Any, Vectors]:
    family, parts = tiny_parts("sd1")
    found = find_tokens(TrainConfig(tokens=tokens), family, parts)
    parts = with_new_tokens(parts, found)
    vectors = add_vectors(found, parts, tokens, seed=0, steps=steps)
    assert vectors is not None
    return parts, vectors


def test_they_begin_from_a_text_in_a_circle() -> None:
    table = tiny_parts("sd1")[1].text_encoders["text_encoder"].get_input_embeddings().weight
    _, vectors = added(TokensConfig(add=[{"token": "<ab>", "init": "ox", "vectors": 3}, {"token": "<cd>", "vectors": 2}]))
    ids = tiny_parts("sd1")[1].tokenizers["tokenizer"]("ox", add_special_tokens=False).input_ids
    assert len(ids) == 2
    rows = vectors.rows["text_encoder"]
    assert rows[:3].equal(table[[ids[0], ids[1], ids[0]]]) and rows.dtype == torch.float32
    assert float(rows[3:].detach().std()) == pytest.approx(float(table.detach().std()), rel=0.4)
    assert [tuple(vectors.of_token(token)["text_encoder"].shape) for token in vectors.tokens] == [(3, 32), (2, 32)]
    again = added(TokensConfig(add=[{"token": "<ab>", "init": "ox", "vectors": 3}, {"token": "<cd>", "vectors": 2}]))[1]
    assert again.rows["text_encoder"].equal(rows)


def test_vectors_that_grew_are_pulled_back_and_others_are_not() -> None:
    _, vectors = added(TokensConfig(add=[{"token": "<ab>", "vectors": 2}]))
    longest, rows = vectors.longest["text_encoder"], vectors.rows["text_encoder"]
    with torch.no_grad():
        rows[0] *= 2 * longest[0] / rows[0].norm()
        rows[1] *= 0.5 * longest[1] / rows[1].norm()
    before = rows.detach().clone()
    vectors.limit_norms(9)
    assert float(rows[0].norm() / longest[0]) == pytest.approx(2**0.9, rel=1e-5)  # 2 * (1 / 2)^0.1
    assert rows[1].equal(before[1])
    before = rows.detach().clone()
    vectors.limit_norms(10)  # the vectors rest
    assert rows.equal(before)


@pytest.mark.slow
@pytest.mark.parametrize(
    "lora", [LoraConfig(rank=2), LoraConfig(kind="none"), pytest.param(LoraConfig(rank=2, text_encoder=True), marks=pytest.mark.slow)]
)
def test_the_vectors_learn_and_the_table_stays(lora: LoraConfig, prepared: Callable[[TrainConfig], Any], settings: Settings) -> None:
    config = settings(
        lora=lora,
        data=DataConfig(path=settings().data.path, trigger="<ab>", caption_dropout=0.3),
        tokens=TokensConfig(add=[{"token": "<ab>", "init": "ox"}], share=1.0 if lora.kind == "none" else 0.5),
        optim=OptimConfig(lr=1e-2, token_lr=None if lora.kind == "none" else 5e-3),
        gradient_checkpointing=True,
    )
    state = prepared(config).state
    encoder = state.parts.text_encoders["text_encoder"]
    table, rows = encoder.get_input_embeddings().own.weight, state.vectors.rows["text_encoder"]
    base, first = table.detach().clone(), rows.detach().clone()
    rates = []
    for step in range(4):
        moved = rows.detach().clone()
        state.step(step)
        rates.append(state.optimizer.param_groups[-1]["lr"] / state.optimizer.param_groups[0]["lr"])
        assert rows.equal(moved) == (lora.kind != "none" and step >= 2)
    assert table.equal(base) and table.grad is None and not rows.equal(first)
    trained = {name for name, weight in encoder.named_parameters() if weight.requires_grad and ".lora_" not in name}
    assert all(name.endswith("token_embedding.rows") for name in trained) and len(trained) == 1
    assert rates == [1.0 if lora.kind == "none" else pytest.approx(0.5)] * 4
    names = {name.split(".")[0] for name, _ in state.weights}
    assert names == ({"tokens"} if lora.kind == "none" else {"unet", "tokens"} | ({"text_encoder"} if lora.text_encoder else set()))


@pytest.mark.slow
def test_another_rate_of_the_vectors_acts_on_them_alone(prepared: Callable[[TrainConfig], Any], settings: Settings, tmp_path: Path) -> None:
    data = DataConfig(path=settings().data.path, trigger="<ab>")
    config = settings(steps=8, data=data, tokens=TokensConfig(add=[{"token": "<ab>", "init": "ox"}]))
    state = prepared(config).state
    state.step(0)
    place = saved(state, tmp_path)

    def resumed(rate: float | None) -> list[torch.Tensor]:
        """The weights after one more step, as a new process builds and restores them."""
        state.config = changed(config, {"optim.token_lr": rate})
        groups = groups_of(state.modules, state.weights, state.config)
        state.optimizer = state.accelerator.prepare(build_optimizer(choose_optimizer(config.optim), groups, config.optim.lr))
        found = checkpoint.read(place)
        restore(state, found, export.read_adapter(found.adapter))
        state.step(1)
        return [weight.detach().clone() for _, weight in state.weights]

    same = [torch.equal(one, two) for one, two in zip(resumed(None), resumed(1e-2), strict=True)]
    assert same == [not name.startswith("tokens.") for name, _ in state.weights]
