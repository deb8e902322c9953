"""Histories as short literals: what each kind of run looks like in its measurements, and the sentence that it gets."""

from typing import Any

import pytest

from train.loop.history import History
from train.output.judgement import judge, judgement_json
from train.output.style import StyleCurve
from train.tokens.wording import Trained

LORA = Trained(lr=1e-3)
SPREAD = (-0.02, -0.01, 0.0, 0.01, 0.02)  # of five held-out images around their mean
NOISE = (0.001, -0.002, 0.0, 0.002, -0.001)  # of their differences from step to step


def row(held: float, trained: float, share: float = 0.2, *, wobble: float = 1.0) -> dict[str, Any]:
    own = [held + s + wobble * n for s, n in zip(SPREAD, NOISE, strict=True)]
    others = [loss + share + wobble * n for loss, n in zip(own, NOISE, strict=True)]
    return {"losses": own, "bands": [held] * 3, "trained": [trained] * 4, "others": others, "own": own}


def history(*points: tuple[float, ...], base: tuple[float, ...] = (0.86, 0.86, 0.2), wobble: float = 1.0) -> History:
    """Measurements at steps 100, 200, ...; a point is (held-out loss, training images' loss, prompt's share)."""
    before = row(*base, wobble=0.0)
    rows = [{"step": 100 * number, **row(*point, wobble=wobble * number)} for number, point in enumerate(points, 1)]
    return History(base=before["losses"], before=before, heldout=rows)


CASES = {
    "done": history((0.70, 0.69), (0.62, 0.60), (0.605, 0.57), (0.604, 0.56), (0.604, 0.555)),
    "unfinished": history((0.82, 0.82), (0.78, 0.78), (0.74, 0.73), (0.70, 0.69), (0.66, 0.65)),
    "over_fitted": history((0.65, 0.60), (0.62, 0.5), (0.70, 0.40), (0.80, 0.30), (0.86, 0.25)),
    "rate_too_high": history((0.95, 0.94), (1.2, 1.1), (1.1, 1.05), (1.05, 1.04), (1.02, 1.01)),
    "nothing_learned": history(*[(0.8601, 0.8599)] * 5),
    "captions": history((0.78, 0.76, 0.15), (0.74, 0.70, 0.09), (0.73, 0.68, 0.05), (0.73, 0.67, 0.04), (0.73, 0.66, 0.04)),
    "not_better": history((0.861, 0.80), (0.865, 0.7), (0.88, 0.6), (0.90, 0.5), (0.91, 0.45)),
    "cannot_tell": history((0.85, 0.84), (0.845, 0.84), (0.844, 0.83), wobble=40.0),
}


@pytest.mark.parametrize("kind", CASES)
def test_each_kind_of_run_is_known_by_its_measurements(kind: str) -> None:
    found = judge(CASES[kind], trained=LORA)
    assert found is not None and found.kind == kind, found


def test_the_sentence_names_the_step_the_numbers_and_what_to_do() -> None:
    wrecked, fitted, rising = (judge(CASES[kind], trained=LORA) for kind in ("rate_too_high", "over_fitted", "unfinished"))
    assert wrecked is not None and wrecked.sentence.startswith(
        "the learning rate is too high: at step 100 the loss of held-out images is 0.9500"
    )
    assert "Try a third to a tenth of optim.lr (it is 0.001)" in wrecked.sentence
    assert fitted is not None and "lowest at step 200 (0.6200)" in fitted.sentence and "100% of the gain is lost again" in fitted.sentence
    assert fitted.steps == (200, 300)
    assert rising is not None and "Resume with more steps" in rising.sentence and "40% of the whole gain" in rising.sentence


def test_a_rate_that_is_too_high_names_the_jump_of_the_change() -> None:
    found = history((0.80, 0.79), (1.2, 1.1), (1.1, 1.05))
    for measured, delta in zip(found.heldout, (0.012, 0.34, 0.35), strict=True):
        measured["delta"] = delta
    wrecked = judge(found, trained=LORA)
    assert wrecked is not None and "changes the weights by 34% of their norm there, up from 1.2% at step 100" in wrecked.sentence


def test_content_and_style_that_disagree_give_a_range() -> None:
    """As on a style of ten pairs: the loss is lowest at 100, the colours are there at 200 or 300."""
    style = StyleCurve(5.0, {100: 2.6, 200: 1.0, 300: 0.6, 400: 0.55})
    found = judge(history((0.60, 0.55), (0.61, 0.54), (0.62, 0.53), (0.63, 0.53)), trained=LORA, style=style)
    assert found is not None and found.kind == "done" and found.steps == (100, 300)
    assert "89% of the way to the held-out images at step 400, 48% at step 100. Choose between step 100 and step 300" in found.sentence


def test_a_style_that_comes_no_nearer_is_said_so() -> None:
    found = judge(history((0.60, 0.55), (0.61, 0.54), (0.62, 0.53)), trained=LORA, style=StyleCurve(1.0, {100: 1.25, 200: 1.5}))
    assert (
        found is not None
        and found.steps == (100, 100)
        and "no step's previews are nearer to the held-out images in style" in found.sentence
    )


def test_one_held_out_image_cannot_tell() -> None:
    one = history((0.8, 0.8), (0.7, 0.7))
    for measured in (one.before, *one.heldout):
        measured |= {name: measured[name][:1] for name in ("losses", "others", "own")}
    found = judge(one, trained=LORA)
    assert found is not None and found.kind == "cannot_tell" and "1 held-out image gives no interval; hold out more" in found.sentence
    assert found.sentence.startswith("these images cannot tell step 200 from the base (difference -0.1580): ")
    several = judge(CASES["cannot_tell"], trained=LORA)
    assert several is not None and "from the base (difference -0.0160, 95% interval " in several.sentence


def test_histories_without_training_images_are_not_judged() -> None:
    old = History(base=[0.8, 0.9], heldout=[{"step": 10, "losses": [0.7, 0.8]}])
    assert judge(old, trained=LORA) is None and judge(History(), trained=LORA) is None


def test_machines_read_the_kind_and_the_numbers() -> None:
    found = judgement_json(judge(CASES["captions"], trained=LORA), CASES["captions"], None)
    assert found is not None and found["kind"] == "captions" and found["style"] is None
    assert found["prompt_share"] == pytest.approx({"base": 0.2, "final": 0.04}) and found["trained"] == pytest.approx(
        {"base": 0.86, "final": 0.66}
    )


def test_advice_to_a_run_of_tokens_alone_is_about_their_vectors() -> None:
    tokens = Trained(title=None, tokens=("inkstyl",), lr=5e-3)
    found = {kind: judge(CASES[kind], trained=tokens) for kind in CASES}
    sentences = {kind: one.sentence for kind, one in found.items() if one is not None}
    assert {kind: one.kind for kind, one in found.items() if one is not None} == {kind: kind for kind in CASES}
    assert sentences["nothing_learned"].endswith(
        "Raise optim.lr (it is 0.005), which is the rate of the vectors, or steps, or give the tokens more vectors (tokens.add)"
    )
    assert "the embedding 'inkstyl' took over the prompts: give fewer vectors" in sentences["captions"]
    assert sentences["not_better"].endswith("or an adapter beside the tokens (lora.kind=lora) where they hold too little")
    assert not any("lora.targets" in sentence or "LoRA" in sentence or "adapter changes" in sentence for sentence in sentences.values())
    beside = judge(CASES["rate_too_high"], trained=Trained(title="LoRA", tokens=("a", "b"), lr=1e-3, token_lr=0.5))
    assert beside is not None and beside.sentence.endswith("of optim.lr (it is 0.001) and optim.token_lr (it is 0.5)")
