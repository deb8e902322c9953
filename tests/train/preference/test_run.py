"""Runs that learn from votes: passes, the reference, plans, refusals, the same bits again, every family."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from registry.errors import Faults, Refused
from registry.store import Store
from tests import tiny
from tests.tiny_families import module_of
from tests.train.preference.voted import voted_grid
from train import run
from train.config import (
    CheckpointConfig,
    DataConfig,
    HeldoutConfig,
    LoraConfig,
    ObjectiveConfig,
    OptimConfig,
    PreviewConfig,
    ScheduleConfig,
    TokensConfig,
    TrainConfig,
    changed,
)
from train.loop.step import denoising_pass
from train.settings.ema import EmaConfig

Run = Callable[..., TrainConfig]
Prepared = Callable[[TrainConfig], Any]
pytestmark = pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning")


def test_the_plan_counts_the_votes_and_says_what_is_held_to(votes_run: Run, store: Store, grid: Path) -> None:
    made = run.plan(votes_run({"dpo_beta": 500.0, "sft": 0.1}, name=None), store)
    text = made.to_text()
    assert "votes      8 pairs of 8 votes by 1 voter" in text and f"pairs      6 from {grid.parent.name}/grid, at 32x32 pixels" in text
    assert "DPO against the base, beta 500 on mean squared errors, SFT 0.1, weighting none" in text
    assert "2 of 8 pairs, on 1 prompt that are not trained on (heldout.share=0.3)" in text
    assert "steps      4 of 2 x 1 pairs" in text and any("8 pairs are few" in note for note in made.notes)
    assert made.config.name == f"{grid.parent.name} dpo" and made.config.data.preferences == str(grid)
    found = made.to_json()["preferences"]
    assert (found["votes"], found["pairs"], found["tie"]) == (8, 8, 0)
    plain = run.plan(votes_run(data=DataConfig(path=str(tiny.tiny_dataset(grid.parent / "plain", 6))), objective=ObjectiveConfig()), store)
    assert plain.to_json()["preferences"] is None
    assert made.estimate.activations == 2 * (plain.estimate.activations or 0) > 0


def test_what_has_no_meaning_beside_votes_is_refused_all_at_once(grid: Path) -> None:
    with pytest.raises(Faults) as error:
        TrainConfig(
            data=DataConfig(path="images", preferences=str(grid), masks="auto", prior="people"),
            objective=ObjectiveConfig(name="dpo", loss="l1", noise="offset", contrast="guidance", preserve_class="a cat"),
            tokens=TokensConfig(add=[{"token": "zork"}]),
        )
    assert [fault.split()[0] for fault in error.value.faults if "objective.name=dpo" in fault] == [
        "data.path",
        "data.prior",
        "data.masks",
        "tokens.add",
        "objective.preserve_class",
        "objective.contrast",
        "objective.loss",
        "objective.noise",
    ]
    with pytest.raises(Faults, match=r"data\.preferences is needed with objective\.name=dpo"):
        TrainConfig(objective=ObjectiveConfig(name="dpo"))
    with pytest.raises(Faults, match=r"data\.preferences needs objective\.name=dpo"):
        TrainConfig(data=DataConfig(preferences=str(grid)))
    for bad in ([], "", [1], {"a": 1}, 3):
        with pytest.raises(Faults, match=r"data\.preferences must be the folder of a grid"):
            TrainConfig(data=DataConfig(preferences=bad), objective=ObjectiveConfig(name="dpo"))


def test_options_have_ranges_and_are_those_of_dpo(votes_run: Run, store: Store) -> None:
    with pytest.raises((Faults, Refused), match=r"dpo_beta must be a number from above 0 to 1e\+07, got 0"):
        run.plan(votes_run({"dpo_beta": 0.0}), store)
    with pytest.raises((Faults, Refused), match="reference must be start or base, got 'x'"):
        run.plan(votes_run({"reference": "x"}), store)
    with pytest.raises((Faults, Refused), match="'dpo_beta'; name=dpo has it"):
        run.plan(changed(votes_run({"dpo_beta": 5.0}), {"objective.name": "denoise", "data.preferences": None, "data.path": "x"}), store)


def test_both_images_get_the_same_noise_timestep_and_prompt(votes_run: Run, prepared: Prepared) -> None:
    state = prepared(votes_run()).state
    batch = state.order.step(0)[0][0]
    made, plain = state.make_pass(state, 0, batch, 2), denoising_pass(state, 0, batch, 2)
    half = len(batch.items)
    assert made.noisy[:half].equal(plain.noisy) and not made.noisy[half:].equal(plain.noisy)
    assert made.target[:half].equal(made.target[half:]), "epsilon's target is the noise"
    assert made.rows[:half].equal(made.rows[half:]) and made.timesteps[:half].equal(plain.timesteps)
    for states in made.text.values():
        assert states[:half].equal(states[half:])
    signal, noise = (column[made.rows].float().view(-1, 1, 1, 1) for column in (state.objective.signal, state.objective.noise))
    clean = (made.noisy - noise * made.target) / signal
    items = [state.items[item] for item in batch.items]
    assert all(item.sample.rejected is not None for item in items)
    assert not torch.allclose(clean[:half], clean[half:], atol=1e-2)


@pytest.mark.slow
def test_the_first_loss_is_log_2_and_a_step_prefers_what_was_preferred(votes_run: Run, prepared: Prepared) -> None:
    slow = {"optim": OptimConfig(lr=1e-3), "schedule": ScheduleConfig(name="constant", warmup=0.0)}
    state = prepared(votes_run({"dpo_beta": 5000.0}, **slow)).state
    first = state.step(0)
    assert first.losses.tolist() == pytest.approx([math.log(2)] * 2, abs=1e-6) and len(first.timesteps) == 2
    losses = [float(state.step(0).losses.mean()) for _ in range(5)]  # the same pairs, noise and timesteps again
    assert losses == sorted(losses, reverse=True) and losses[-1] < math.log(2) - 0.01


@pytest.mark.slow
def test_a_steps_loss_is_the_formula_on_what_both_models_predict(votes_run: Run, prepared: Prepared) -> None:
    state = prepared(votes_run({"dpo_beta": 3000.0, "sft": 2.0})).state
    for step in range(3):
        state.step(step)
    batch = state.order.step(3)[0][0]
    made = state.make_pass(state, 3, batch, 2)
    with torch.no_grad():
        own = state.predict(state.model, made.noisy, made.timesteps, made.text, made.crops).double()
        state.parts.denoiser.disable_adapters()
        other = state.predict(state.model, made.noisy, made.timesteps, made.text, made.crops).double()
        state.parts.denoiser.enable_adapters()
    errors, reference = (((one - made.target.double()) ** 2).flatten(1).mean(1) for one in (own, other))
    inside = -1500.0 * ((errors[:2] - reference[:2]) - (errors[2:] - reference[2:]))
    expected = torch.log1p(torch.exp(-inside)) + 2.0 * errors[:2]
    assert state.step(3).losses.double().tolist() == pytest.approx(expected.tolist(), rel=1e-3)


@pytest.mark.slow
def test_accumulated_passes_are_one_batch(votes_run: Run, prepared: Prepared) -> None:
    whole, parts = prepared(votes_run(batch_size=4)).state, prepared(votes_run(batch_size=2, accumulate=2)).state
    for step in range(3):
        one, other = whole.step(step), parts.step(step)
        assert torch.allclose(one.losses, other.losses, rtol=1e-3, atol=1e-4)
        assert float(one.gradient_norm) == pytest.approx(float(other.gradient_norm), rel=1e-2)


@pytest.mark.slow
def test_crops_and_mirror_images_are_the_same_of_both(votes_run: Run, tmp_path: Path, prepared: Prepared) -> None:
    folder = voted_grid(tmp_path / "wide", size=48)
    work = prepared(votes_run(data=DataConfig(preferences=str(folder), buckets=False, flip=True, crops=2), resolution=32))
    plan = work.plan
    from train.preference.dataset import rejected_items

    for item, other in zip(plan.items, rejected_items(plan.items), strict=True):
        assert item.views == other.views and item.bucket == other.bucket and other.sample is item.sample.rejected
    assert bool(work.state.step(0).losses.isfinite().all())


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, base: Path, grid: Path) -> tuple[Any, Store]:
    """A finished run with EMA and checkpoints."""
    from tests.train.conftest import short_run
    from train.config import ObjectiveParams

    place = tmp_path_factory.mktemp("finished")
    config = short_run(
        base,
        grid,
        place / "runs",
        data=DataConfig(preferences=str(grid)),
        objective=ObjectiveConfig(name="dpo", params=ObjectiveParams(dpo_beta=5000.0)),
        heldout=HeldoutConfig(every=2, share=0.3, generic=["a horse", "a bus"]),
        preview=PreviewConfig(prompts=["a disc"], steps=1, every=100),
        checkpoint=CheckpointConfig(every=2),
        ema=EmaConfig(decay=0.9),
    )
    store = Store(place / "home")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("SOURCE_DATE_EPOCH", "1767225600")
        return run.run(config, store), store


@pytest.mark.slow
def test_a_run_says_what_it_learned_of_the_votes(finished: tuple[Any, Store]) -> None:
    outcome, _ = finished
    found = outcome.result["preferences"]
    assert found["pairs"] == 2 and found["prompts"] == 1 and 0 <= found["low"] <= found["accuracy"] <= found["high"] <= 1
    kinds = ("cannot_tell", "nothing_learned", "rate_too_high", "not_better")
    assert found["verdict"] == "cannot tell" and outcome.result["verdict"]["kind"] in kinds
    assert "nobody can tell" in outcome.result["sentences"][0] and outcome.result["verdict"]["drift"] is not None
    assert outcome.result["heldout"]["base"] == pytest.approx(math.log(2)), "the reference's own loss"
    rows = [json.loads(line) for line in (outcome.folder / "metrics.jsonl").read_text().splitlines()]
    measured = [row for row in rows if "preference_accuracy" in row]
    assert [row["step"] for row in measured] == [0, 2, 4] and measured[0]["preference_margin"] == 0.0
    assert measured[-1]["heldout_preferred"] > 0 and rows[1]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    with safe_open(outcome.folder / "discs.safetensors", "pt") as file:
        manifest = json.loads(file.metadata()["loraloom.manifest"])
    assert manifest["config"]["data"]["preferences"] == ["grid"] and manifest["dataset"]["path"] == "grid"
    assert all("rejected" in row for row in json.loads((outcome.folder / "inputs.json").read_text())["dataset"]["files"])
    assert "nobody can tell" in (outcome.folder / "report.html").read_text()


@pytest.mark.slow
def test_a_resume_has_the_same_bytes(finished: tuple[Any, Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1767225600")
    straight, store = finished
    folder = Path(shutil.copytree(straight.folder, tmp_path / "b"))
    (folder / "result.json").unlink()
    shutil.rmtree(folder / "checkpoints" / "step-000004")
    torch.manual_seed(5)
    again = run.resume(folder, {}, store)
    for name in ("discs.safetensors", "checkpoints/step-000004/training.pt"):
        assert (folder / name).read_bytes() == (straight.folder / name).read_bytes(), name
    assert again.result["preferences"] == straight.result["preferences"]
    assert again.result["heldout"] == straight.result["heldout"]


@pytest.mark.slow
def test_other_votes_are_refused_by_a_resume(finished: tuple[Any, Store], tmp_path: Path) -> None:
    from train.output import folder as folders

    straight, store = finished
    place = Path(shutil.copytree(straight.folder, tmp_path / "run"))
    other = voted_grid(tmp_path / "grid", ["a cat", "a dog", "a house", "a bus"])
    config = folders.read_config(place)
    (place / folders.CONFIG).write_text((place / folders.CONFIG).read_text().replace(str(config.data.preferences), str(other)))
    (place / "result.json").unlink()
    with pytest.raises(Faults, match="was started with other inputs"):
        run.resume(place, {}, store)


# With layers whose weights are formed at once the reference still computes one by one, which some processors round otherwise: 1e-7 of an
# error, times beta / 2.
@pytest.mark.slow
@pytest.mark.parametrize(("checkpointing", "rounding"), [(True, 1e-6), (False, 5e-4)], ids=["one by one", "at once"])
def test_a_continued_adapter_is_held_to_itself_or_to_the_base(
    checkpointing: bool, rounding: float, finished: tuple[Any, Store], votes_run: Run, store: Store, prepared: Prepared
) -> None:
    straight, _ = finished
    path = str(straight.folder / "discs.safetensors")
    states = {}
    for name in ("start", "base"):
        given = {"lora": LoraConfig(rank=2, start=path), "gradient_checkpointing": checkpointing}  # it forms no weights at once
        config = votes_run({"reference": name, "dpo_beta": 5000.0}, **given)
        text = run.plan(config, store).to_text()
        assert ("DPO against the adapter as the run begins" in text) == (name == "start")
        states[name] = prepared(config)
        assert bool(states[name].state.stacks) != checkpointing
    first = {name: work.state.step(0).losses.tolist() for name, work in states.items()}
    assert first["start"] == pytest.approx([math.log(2)] * 2, abs=rounding) and first["base"] != pytest.approx(first["start"], abs=5e-3)
    work = states["start"]
    began = [weight.detach().clone() for _, weight in work.state.weights]
    batch = work.state.order.step(1)[0][0]
    with work.state.baseline():
        inside = work.state.make_pass(work.state, 1, batch, 2).reference
    outside = work.state.make_pass(work.state, 1, batch, 2).reference
    assert inside.equal(outside), "blocks may be nested"
    assert all(weight.equal(old) for (_, weight), old in zip(work.state.weights, began, strict=True))


SLOW = [("sdxl", {}), ("sd2", {"variant": "v"}), ("sd3", {"variant": "3.5"}), ("qwen_image", {}), ("lumina2", {}), ("sana", {})]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "options"), [("flux1", {"variant": "dev"}), *(pytest.param(*each, marks=pytest.mark.slow) for each in SLOW)]
)
def test_other_families_learn_from_votes(family: str, options: dict[str, str], votes_run: Run, tmp_path: Path, prepared: Prepared) -> None:
    size = tiny.SIZES.get(family) or module_of(family).SIZE
    folder = voted_grid(tmp_path / "grid", size=size)
    data = DataConfig(preferences=str(folder))
    work = prepared(votes_run(base=str(tiny.shared_folder(family, **options)), data=data, resolution=size, gradient_checkpointing=True))
    before = [weight.detach().clone() for _, weight in work.state.weights]
    metrics = work.state.step(0)
    assert metrics.losses.tolist() == pytest.approx([math.log(2)] * 2, abs=1e-5) and float(metrics.gradient_norm) > 0
    assert any(not old.equal(weight) for old, (_, weight) in zip(before, work.state.weights, strict=True))


@pytest.mark.slow
def test_text_encoders_learn_too_and_are_off_in_the_reference(votes_run: Run, prepared: Prepared) -> None:
    state = prepared(votes_run({"dpo_beta": 5000.0}, lora=LoraConfig(rank=2, text_encoder=True))).state
    batch = state.order.step(5)[0][0]
    before = state.make_pass(state, 5, batch, 2).reference
    for step in range(3):
        state.step(step)
    assert state.make_pass(state, 5, batch, 2).reference.equal(before)
