from collections.abc import Callable
from typing import Any

import pytest

from train.config import DataConfig, TrainConfig
from train.loop.probes import probed_points
from train.measures.trigger import binding_json, binding_of, without_trigger
from train.tokens.wording import Trained

LORA = Trained(lr=1e-4)


@pytest.mark.parametrize(
    ("prompt", "bare"),
    [
        ("sks, a red disc", "a red disc"),
        ("a photo of SKS on a table", "a photo of on a table"),
        ("a cat, sks, outdoors", "a cat, outdoors"),
        ("a cat, sks", "a cat"),
        ("sks", ""),
        ("sksy, a cat", "sksy, a cat"),
        ("a  cat , here", "a  cat , here"),
    ],
)
def test_the_trigger_is_taken_out_with_its_comma(prompt: str, bare: str) -> None:
    assert without_trigger(prompt, "sks") == bare
    assert without_trigger(prompt, None) == prompt


def test_a_trigger_of_several_words_is_taken_out_whole() -> None:
    assert without_trigger("ink style, a cat in ink style", "ink  style") == "a cat in"


def row(with_it: list[float], without: list[float]) -> dict[str, Any]:
    return {"trigger": with_it, "no_trigger": without}


BEFORE = row([0.8, 0.9, 0.7], [0.8, 0.9, 0.71])


def test_a_trigger_that_carries_the_gain_has_a_share_of_it() -> None:
    found = binding_of(BEFORE, row([0.6, 0.7, 0.5], [0.7, 0.81, 0.59]))
    assert found is not None and found.verdict == "carries"
    assert (found.now.mean, found.gain, found.share, found.base) == pytest.approx((0.1, 0.2, 0.5, 0.01 / 3))
    assert "the trigger 'sks' carries 50% of the gain" in found.sentence(["sks"], LORA)
    assert binding_json(found, ["sks"])["share"] == pytest.approx(0.5)  # type: ignore[index]


def test_a_trigger_that_carries_nothing_says_what_to_do() -> None:
    found = binding_of(BEFORE, row([0.6, 0.7, 0.5], [0.601, 0.699, 0.5]))
    assert found is not None and found.verdict == "nothing"
    assert "carries nothing of the gain" in found.sentence(["sks"], LORA) and "objective.preserve_class" in found.sentence(["sks"], LORA)
    said = found.sentence(["sks"], Trained(title=None, tokens=("ab",), lr=1e-3))
    assert said.endswith(
        "The embedding 'ab' changed, and no other word: an image that is to change has it in its prompt. Give the token as the trigger"
        " (data.trigger), or none"
    )


def test_one_image_a_wide_interval_and_no_gain_cannot_tell() -> None:
    for after in (row([0.6, 0.7, 0.5], [0.9, 0.5, 0.6]), row([0.81, 0.91, 0.71], [0.9, 1.0, 0.8])):
        found = binding_of(BEFORE, after)
        assert found is not None and found.verdict == "cannot tell" and "trigger 'sks'" in found.sentence(["sks"], LORA)
    found = binding_of(row([0.8], [0.8]), row([0.6], [0.7]))
    assert found is not None and found.verdict == "cannot tell" and "interval" not in found.sentence(["sks"], LORA)
    assert binding_of({}, {}) is None and binding_of(BEFORE, {}) is None


@pytest.mark.slow
def test_the_images_with_a_trigger_are_measured_without_it(
    prepared: Callable[[TrainConfig], Any], settings: Callable[..., TrainConfig], images: Any
) -> None:
    work = prepared(settings(data=DataConfig(path=str(images), trigger="sks")))
    state, probe = work.state, work.probe
    found = probe.measure(state, model=state.model)
    table = probe.heldout.table(state, model=state.model)
    points = probed_points(table.shape[1])
    assert found["trigger"] == table[:, points].mean(1).tolist() and len(found["no_trigger"]) == 3
    prompts = [prompt.removeprefix("sks, ") for prompt in work.plan.heldout_prompts]
    assert all(prompt.startswith("sks, ") for prompt in work.plan.heldout_prompts)
    plain = prepared(settings(name="plain"))
    assert list(plain.plan.heldout_prompts) == prompts
    bare = plain.probe.heldout.table(plain.state, model=plain.state.model, points=points)
    assert found["no_trigger"] == pytest.approx(bare.mean(1).tolist(), abs=1e-6), "the same as of a set without a trigger"
    assert "no_trigger" not in plain.probe.measure(plain.state, model=plain.state.model)
