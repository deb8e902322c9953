"""Runs of sliders: by prompts without images, by prompts with images, by pairs of images; the same bits again."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors import safe_open

from registry.errors import Faults, Refused
from registry.store import Store
from tests import tiny
from tests.tiny_families import module_of
from train import run
from train.config import CheckpointConfig, DataConfig, ObjectiveConfig, ObjectiveParams, PreviewConfig, TrainConfig, changed

Settings = Callable[..., TrainConfig]
Prepared = Callable[[TrainConfig], Any]
pytestmark = pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning")


def objective(**params: Any) -> ObjectiveConfig:
    return ObjectiveConfig(name="slider", params=ObjectiveParams(**({"draw_steps": 3} | params)))


@pytest.fixture
def by_text(settings: Settings) -> Callable[..., TrainConfig]:
    """Settings of a slider between two prompts, without images."""

    def make(**given: Any) -> TrainConfig:
        values: dict[str, Any] = {
            "data": DataConfig(),
            "objective": objective(positive="a red disc", negative="a blue disc"),
            "name": "discs",
        }
        return settings(**(values | given))

    return make


def test_the_plan_has_no_images_and_says_how_a_slider_is_used(by_text: Settings, store: Store) -> None:
    made = run.plan(by_text(name=None), store)
    assert made.drawn and made.to_json()["pictures"] == 0 and made.config.name == "a red disc slider"
    text = made.to_text()
    assert "'a red disc' at weight +1, 'a blue disc' at -1, 3 apart, on whatever is drawn" in text
    assert "none: drawn by the base, at 32x32 pixels" in text and "a slider has no held-out loss" in text
    assert any("weights between -2 and 2" in note for note in made.notes)
    assert made.config.objective.params.draw_steps == 3
    assert run.plan(changed(by_text(), {"objective.params.draw_steps": None}), store).config.objective.params.draw_steps == 20


def test_faults_of_a_slider_are_found_by_the_plan(by_text: Settings, store: Store) -> None:
    with pytest.raises(Refused, match="there is no direction"):
        run.plan(by_text(objective=objective(positive="x", negative="x")), store)
    with pytest.raises(Refused, match=r"needs objective\.params\.positive or negative"):
        run.plan(by_text(objective=objective(draw_steps=None)), store)
    with pytest.raises(Refused, match="'positive'; name=slider has it"):
        run.plan(by_text(objective=ObjectiveConfig(params=ObjectiveParams(positive="x"))), store)


@pytest.mark.slow
def test_a_run_without_images_ends_as_a_plain_lora_that_names_its_ends(
    by_text: Settings, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1767225600")
    previews = PreviewConfig(prompts=["a disc"], steps=2)
    straight = run.run(by_text(preview=previews, checkpoint=CheckpointConfig(every=2), out=str(tmp_path / "a")), store)
    reached = straight.result["slider"]
    assert reached["guidance"] == 3.0 and reached["reached"]["low"] <= reached["reached"]["mean"] <= reached["reached"]["high"]
    assert straight.result["heldout"] is None and len(straight.result["files"]) == 2
    with safe_open(straight.folder / "discs.safetensors", "pt") as file:
        header = file.metadata()
        assert all(".lora_A." in key or ".lora_B." in key for key in file.keys())  # noqa: SIM118
    assert json.loads(header["loraloom.manifest"])["slider"] == {"positive": "a red disc", "negative": "a blue disc", "target": ""}
    assert header["modelspec.usage_hint"] == "a slider: weights -2 .. 2, above 0 a red disc, below 0 a blue disc"
    first, last = (Image.open(straight.folder / "samples" / f"step-{step:06d}-01.png") for step in (0, 4))
    assert first.size == last.size == (96, 32)
    parts = [[image.crop((32 * place, 0, 32 * place + 32, 32)).tobytes() for place in range(3)] for image in (first, last)]
    assert parts[0][0] == parts[0][1] == parts[0][2] == parts[1][1], "weight 0 is the base"
    assert len({parts[1][0], parts[1][1], parts[1][2]}) == 3

    folder = Path(shutil.copytree(straight.folder, tmp_path / "b"))
    (folder / "result.json").unlink()
    shutil.rmtree(folder / "checkpoints" / "step-000004")
    torch.manual_seed(5)
    run.resume(folder, {}, store)
    for name in ("discs.safetensors", "checkpoints/step-000004/training.pt"):
        assert (folder / name).read_bytes() == (straight.folder / name).read_bytes(), name


@pytest.mark.slow
def test_what_a_place_draws_depends_on_no_batch(by_text: Settings, prepared: Prepared) -> None:
    held = objective(positive="red", negative="blue", preserve=["a disc", "a cat"])
    whole = prepared(by_text(batch_size=4, objective=held))
    parts = prepared(by_text(batch_size=2, accumulate=2, objective=held))
    (batch,), halves = whole.state.order.step(1)[0], [each[0] for each in parts.state.order.step(1)]
    one = whole.slider.make_pass(whole.state, 1, batch, 4)
    others = [parts.slider.make_pass(parts.state, 1, half, 4) for half in halves]
    for name in ("noisy", "target", "opposite_target"):
        assert torch.allclose(getattr(one, name), torch.cat([getattr(other, name) for other in others]), atol=1e-4), name
    assert one.timesteps.equal(torch.cat([other.timesteps for other in others]))
    assert len(set(one.timesteps.tolist())) > 1, "drawings stop at several steps"
    assert torch.allclose(whole.state.step(1).losses, parts.state.step(1).losses, rtol=1e-3)


@pytest.mark.slow
def test_the_loss_of_an_untrained_adapter_is_that_of_the_direction(by_text: Settings, prepared: Prepared) -> None:
    work = prepared(by_text(batch_size=2))
    made = work.slider.make_pass(work.state, 0, work.state.order.step(0)[0][0], 2)
    half = (made.target - made.opposite_target) / 2  # guidance times the difference of the two prompts
    expected = half.square().flatten(1).mean(1)
    assert torch.allclose(work.state.step(0).losses, expected, rtol=1e-4) and bool((expected > 0).all())


@pytest.mark.slow
@pytest.mark.parametrize(("family", "variant"), [("flux1", "dev"), ("z_image", None), ("sdxl", None)])
def test_other_families_learn_sliders_too(family: str, variant: str | None, by_text: Settings, prepared: Prepared) -> None:
    options = {"variant": variant} if variant else {}
    base = tiny.shared_folder(family, **options)
    size = tiny.SIZES.get(family) or module_of(family).SIZE
    work = prepared(by_text(base=str(base), resolution=size, gradient_checkpointing=True))
    before = [weight.detach().clone() for _, weight in work.state.weights]
    metrics = work.state.step(0)
    assert bool(metrics.losses.isfinite().all()) and bool((metrics.losses > 0).all())
    assert any(not old.equal(weight) for old, (_, weight) in zip(before, work.state.weights, strict=True))


def test_a_prompt_slider_on_images_noises_them(by_text: Settings, images: Path, store: Store, prepared: Prepared) -> None:
    config = by_text(data=DataConfig(path=str(images)))
    assert any("captions are not used" in note for note in run.plan(config, store).notes)
    work = prepared(config)
    from train.loop.step import denoising_pass

    batch = work.state.order.step(0)[0][0]
    made, plain = work.slider.make_pass(work.state, 0, batch, 2), denoising_pass(work.state, 0, batch, 2)
    assert made.noisy.equal(plain.noisy) and made.opposite_noisy.equal(plain.noisy) and not made.target.equal(plain.target)
    assert work.probe is None


@pytest.mark.slow
def test_pairs_of_images_share_noise_and_timestep(settings: Settings, store: Store, tmp_path: Path, prepared: Prepared) -> None:
    for number, end in enumerate(("positive", "negative")):
        tiny.tiny_dataset(tmp_path / "pairs" / end, 3, seed=number)
    config = settings(data=DataConfig(path=str(tmp_path / "pairs")), objective=objective(draw_steps=None))
    work = prepared(config)
    state = work.state
    assert state.order.occurrences == 3 and len(state.items) == 6
    batch = state.order.step(0)[0][0]
    made = work.slider.make_pass(state, 0, batch, 2)
    signal, noise = (column[made.rows].float().view(-1, 1, 1, 1) for column in (state.objective.signal, state.objective.noise))
    clean = (made.noisy - noise * made.target) / signal
    assert float((clean - state.latents.view(batch.items).posterior.mean).abs().mean()) < 0.2, "the posterior's deviation is 0.18"
    assert made.target.equal(made.opposite_target), "epsilon's target is the noise, which a pair shares"
    assert not made.noisy.equal(made.opposite_noisy)
    outcome = run.run(config, store)
    assert outcome.result["slider"]["guidance"] is None and outcome.result["slider"]["reached"]["mean"] != 0.0
    assert {row["file"].partition("/")[0] for row in json.loads((outcome.folder / "inputs.json").read_text())["dataset"]["files"]} == {
        "positive",
        "negative",
    }


def test_a_slider_has_no_contrast(by_text: Settings, store: Store) -> None:
    config = changed(by_text(), {"objective.contrast": "guidance"})
    with pytest.raises((Faults, Refused), match="a slider has its own"):
        run.plan(config, store)
