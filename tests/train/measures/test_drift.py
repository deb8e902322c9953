from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from registry.errors import Faults, Refused
from train.config import DataConfig, HeldoutConfig, LoraConfig, PreviewConfig, TrainConfig
from train.loop.prepare import base_key
from train.lora import adapter_disabled
from train.measures.drift import GENERIC, check_generic, drawn_prompts, drift_json, drift_of, generic_prompts

Settings = Callable[..., TrainConfig]
Prepared = Callable[[TrainConfig], Any]
DRAWN = PreviewConfig(prompts=["a disc"], steps=2)


def test_the_default_leaves_out_what_the_set_has() -> None:
    assert generic_prompts(TrainConfig(), ["A Bus", "a house"], ["guitar"]) == ["a horse", "a cup of coffee"]
    given = TrainConfig(heldout=HeldoutConfig(generic=["a bus"]))
    assert generic_prompts(given, ["a bus"], []) == ["a bus"]


def test_generic_captions_with_the_trigger_are_refused() -> None:
    config = TrainConfig(heldout=HeldoutConfig(generic=["a dog", "SKS, a dog"]))
    with pytest.raises(Faults, match="'SKS, a dog' has the trigger 'sks'"):
        check_generic(config, ["sks"])
    check_generic(config, ["other"])
    with pytest.raises(Faults, match=r"heldout\.generic must be texts"):
        TrainConfig(heldout=HeldoutConfig(generic=[" "]))


def test_what_is_drawn_without_held_out_images_or_previews() -> None:
    config = TrainConfig(heldout=HeldoutConfig(generic=["a bus"]), preview=DRAWN)
    assert drawn_prompts(config, 3) == ["a bus"] and drawn_prompts(config, 0) == []
    without_previews = TrainConfig(heldout=config.heldout, preview=PreviewConfig(prompts=[]))
    assert drawn_prompts(without_previews, 3) == ["a bus"], "what is asked for is measured"
    assert generic_prompts(TrainConfig(preview=PreviewConfig(prompts=[])), [], []) == []


def measured(generic: list[float], held: float) -> dict[str, Any]:
    return {"generic": generic, "losses": [held, held]}


def test_drift_is_a_share_of_the_bases_loss_and_large_beside_a_small_gain() -> None:
    before = measured([0.10, 0.20, 0.30], 0.80)
    small, large = (drift_of(before, measured([0.12, 0.221, 0.319], held)) for held in (0.6, 0.79))
    assert small is not None and large is not None
    assert small.share == pytest.approx(0.1) and not small.is_large and large.is_large
    assert small.sentence().startswith("drift +10.0%") and "objective.preserve_class" in large.sentence()
    assert drift_json(large)["large"] is True and drift_json(None) is None  # type: ignore[index]
    noisy = drift_of(before, measured([0.3, 0.1, 0.3], 0.79))
    assert noisy is not None and not noisy.is_large, "not beyond chance"
    assert drift_of({}, before) is None and drift_of(before, {}) is None


@pytest.mark.slow
def test_the_base_draws_the_captions_once_and_its_loss_is_the_measure(prepared: Prepared, settings: Settings, tmp_path: Path) -> None:
    work = prepared(settings(preview=DRAWN))
    state, probe = work.state, work.probe
    drift = probe.seldom[-1].generic
    assert drift.names == list(GENERIC) and drift.latents.shapes[0] == state.latents.shapes[0]
    probe.measure(state, model=state.model)
    first = probe.measure_seldom(state, model=state.model, others=False)["generic"]
    assert len(first) == 4 and first == drift.table(state, model=state.model).mean(1).tolist()
    state.step(0)
    probe.measure(state, model=state.model)
    assert probe.measure_seldom(state, model=state.model, others=False)["generic"] != first
    with adapter_disabled(state.modules):
        assert probe.measure_seldom(state, model=state.model, others=False)["generic"] == first
    again = prepared(settings(name="again", preview=DRAWN)).probe.seldom[-1].generic
    pairs = zip(drift.latents.rows, again.latents.rows, strict=True)
    assert all(torch.equal(one["mean"], other["mean"]) for one, other in pairs)


@pytest.mark.slow
def test_text_encoders_that_learn_read_the_captions_anew(prepared: Prepared, settings: Settings, images: Path) -> None:
    config = settings(
        preview=DRAWN,
        lora=LoraConfig(rank=2, text_encoder=True),
        heldout=HeldoutConfig(generic=["a cup"]),
        data=DataConfig(path=str(images), trigger="sks"),
    )
    work = prepared(config)
    work.probe.measure(work.state, model=work.state.model)
    assert len(work.probe.measure_seldom(work.state, model=work.state.model, others=True)["generic"]) == 1
    with pytest.raises(Refused, match="has the trigger"):
        prepared(settings(heldout=HeldoutConfig(generic=["sks"]), data=DataConfig(path=str(images), trigger="sks")))


def test_of_pairs_drift_is_large_by_its_own_share_as_the_gain_is_in_another_unit() -> None:
    before, pairs = {"generic": [0.2] * 4, "losses": [0.69]}, {"losses": [0.1], "margins": [1.0]}
    for rise, large in ((0.01, False), (0.05, True)):
        generic = [0.2 + rise + number * 1e-4 for number in range(4)]
        found = drift_of(before, {"generic": generic, **pairs})
        assert found is not None and found.is_large is large and "than the reference's" in found.sentence()
        assert ("what was not voted on changes too" in found.sentence()) is large


def test_the_images_of_another_quantised_base_are_drawn_anew() -> None:
    given: tuple[tuple[str | None, str | None], ...] = ((None, None), ("int8", None), (None, "int8"), ("int8", "int8"), ("nf4", "int8"))
    keys = [base_key("abc", TrainConfig(base_dtype=base, text_encoder_dtype=texts)) for base, texts in given]
    assert keys[0] == "abc" and len(set(keys)) == len(given)
    assert base_key(None, TrainConfig(base_dtype="int8")) is None
