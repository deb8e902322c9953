import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from registry.budget import trimmed
from tests import tiny
from train.config import DataConfig, LoraConfig, ObjectiveConfig, OptimConfig, Precision, TrainConfig
from train.loop.rng import draws_for
from train.lora import adapter_disabled, lora_tensors, set_lora_tensors

Settings = Callable[..., TrainConfig]
Prepared = Callable[[TrainConfig], Any]


def gradients(state: Any) -> torch.Tensor:
    return torch.cat([weight.grad.flatten() for _, weight in state.weights])


def spread(state: Any) -> None:
    """B away from zero, so that every weight has a gradient."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in state.weights:
            if "lora_B" in name:
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.1)


def after_a_step(prepared: Prepared, config: TrainConfig) -> tuple[Any, Any]:
    state = prepared(config).state
    spread(state)
    return state, state.step(0)


@pytest.mark.slow
def test_the_loss_is_the_formula_on_each_images_own_caption(prepared: Prepared, settings: Settings) -> None:
    import diffusers

    work = prepared(settings(batch_size=4))
    state = work.state
    trace = state.step(0)
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(work.plan.base.path, dtype=torch.float32)
    noising = diffusers.DDPMScheduler.from_config(pipeline.scheduler.config)
    draws = draws_for(0, 0, range(4), of=4, shape=(4, 8, 8))
    for place, number in enumerate(trace.items):
        caption = (Path(work.plan.dataset.path) / f"{number:03d}.txt").read_text(encoding="utf-8").strip()
        mean, logvar = (state.latents.rows[number][name][0] for name in ("mean", "logvar"))
        latents = (mean + (0.5 * logvar).exp() * draws.posterior[place]).unsqueeze(0)
        time = trace.timesteps[place].long().view(1)
        with torch.no_grad():
            text = pipeline.encode_prompt(caption, "cpu", 1, False)[0]
            noisy = noising.add_noise(latents, draws.noise[place : place + 1], time)
            answer = pipeline.unet(noisy, time, text).sample
        wanted = (answer.double() - draws.noise[place].double()).square().mean()
        assert float(trace.losses[place]) == pytest.approx(float(wanted), rel=1e-5)


@pytest.mark.slow
def test_accumulated_passes_are_one_big_batch(prepared: Prepared, settings: Settings) -> None:
    whole, one = after_a_step(prepared, settings(batch_size=4))
    parts, four = after_a_step(prepared, settings(batch_size=1, accumulate=4))
    assert one.items == four.items and torch.equal(one.timesteps, four.timesteps)
    torch.testing.assert_close(four.losses, one.losses, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradients(parts), gradients(whole), rtol=1e-3, atol=1e-6)  # sums in another order, fp32


@pytest.mark.slow
def test_gradient_checkpointing_gives_the_same_gradients(prepared: Prepared, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("train.loop.prepare.may_stack", lambda *_: False)  # weights formed at once would be other sums of the same
    plain, _ = after_a_step(prepared, settings())
    spared, _ = after_a_step(prepared, settings(gradient_checkpointing=True))
    assert spared.parts.denoiser.is_gradient_checkpointing
    torch.testing.assert_close(gradients(spared), gradients(plain), rtol=1e-5, atol=1e-8)


def test_weights_formed_at_once_give_the_gradients_of_peft(prepared: Prepared, settings: Settings) -> None:
    """Also where passes are accumulated, with the same names and shapes of weights and of the optimizer's state."""
    own, metrics = after_a_step(prepared, settings(accumulate=2))
    peft, expected = after_a_step(prepared, settings(accumulate=2, lora=LoraConfig(rank=2, product="plain")))
    assert own.stacks and not peft.stacks and own.flat.collected and peft.flat.collected
    wanted = gradients(peft)
    torch.testing.assert_close(gradients(own), wanted, rtol=1e-5, atol=1e-5 * float(wanted.abs().max()))
    assert float(metrics.gradient_norm) == pytest.approx(float(expected.gradient_norm), rel=1e-5)
    saved, other = own.optimizer.state_dict()["state"], peft.optimizer.state_dict()["state"]
    assert saved.keys() == other.keys()
    assert all(saved[number][name].shape == value.shape for number in other for name, value in other[number].items())


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{"precision": Precision.bf16}, {"gradient_checkpointing": True}], ids=str)
def test_half_precision_and_recomputed_blocks_form_none_at_once(prepared: Prepared, settings: Settings, changes: dict[str, Any]) -> None:
    state = prepared(settings(**changes)).state
    assert not state.stacks and state.flat is not None


@pytest.mark.slow
def test_clipping_sees_every_weight(prepared: Prepared, settings: Settings) -> None:
    free, trace = after_a_step(prepared, settings(optim=OptimConfig(clip=0.0)))
    norm = gradients(free).norm()
    assert float(trace.gradient_norm) == pytest.approx(float(norm), rel=1e-5)
    assert all(bool(weight.grad.any()) for _, weight in free.weights)
    clipped, reported = after_a_step(prepared, settings(optim=OptimConfig(clip=1e-3)))
    assert float(reported.gradient_norm) == pytest.approx(float(norm), rel=1e-5)
    assert float(gradients(clipped).norm()) == pytest.approx(1e-3, rel=1e-2)  # torch divides by norm + 1e-6


@pytest.mark.slow
def test_a_step_depends_on_its_number_alone(prepared: Prepared, settings: Settings) -> None:
    first, _ = after_a_step(prepared, settings())
    second = prepared(settings()).state
    set_lora_tensors(second.modules, lora_tensors(first.modules))
    assert torch.equal(first.step(3).losses, second.step(3).losses)


@pytest.mark.slow
def test_a_bf16_base_learns_with_fp32_weights(prepared: Prepared, settings: Settings) -> None:
    state = prepared(settings(precision=Precision.bf16)).state
    before = [weight.detach().clone() for _, weight in state.weights]
    trace = state.step(0)
    assert state.parts.dtype == torch.bfloat16 and bool(torch.isfinite(trace.losses).all())
    assert all(weight.dtype == weight.grad.dtype == torch.float32 for _, weight in state.weights)
    assert any(not torch.equal(weight, old) for (_, weight), old in zip(state.weights, before, strict=True))


@pytest.mark.slow
def test_only_lora_weights_move(prepared: Prepared, settings: Settings) -> None:
    state = prepared(settings(lora=LoraConfig(rank=2, targets="convolutions"))).state
    frozen = {name: weight.clone() for name, weight in state.parts.denoiser.named_parameters() if ".lora_" not in name}
    for step in range(2):
        state.step(step)
    now = dict(state.parts.denoiser.named_parameters())
    assert all(torch.equal(now[name], weight) for name, weight in frozen.items())
    assert all(bool(weight.any()) for name, weight in state.weights if "lora_B" in name)


@pytest.mark.slow
def test_held_out_loss_is_the_same_each_time_and_the_base_s_before_training(prepared: Prepared, settings: Settings) -> None:
    work = prepared(settings())

    def losses() -> dict[str, list[float]]:
        """What is measured, without the sizes of the adapter's change: they are there with the adapter disabled, too."""
        found = work.probe.measure(work.state, model=work.state.model)
        return {name: value for name, value in found.items() if not name.startswith("delta")}

    first, again = losses(), losses()
    counts = {name: len(found) for name, found in first.items()}
    assert first == again and counts.items() >= {"losses": 3, "bands": 3, "trained": 6, "others": 3, "own": 3}.items()
    with adapter_disabled(work.state.modules):
        assert losses() == first
    spread(work.state)
    changed = losses()
    with adapter_disabled(work.state.modules):
        assert losses() == first != changed


def test_held_out_loss_is_measured_where_the_run_trains(prepared: Prepared, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the middles of equally probable parts of logit-normal timesteps: sigmoid(z) of 1000, more of them in the middle."""
    work = prepared(settings(objective=ObjectiveConfig(timesteps="logit_normal")))
    seen: list[float] = []
    predict = work.state.predict

    def noted(model: Any, noisy: torch.Tensor, timesteps: torch.Tensor, *rest: Any) -> torch.Tensor:
        seen.extend(timesteps.tolist())
        prediction: torch.Tensor = predict(model, noisy, timesteps, *rest)
        return prediction

    monkeypatch.setattr(work.state, "predict", noted)
    work.probe.heldout.table(work.state, model=work.state.model)
    quantiles = (torch.arange(work.probe.heldout.points) + 0.5) / work.probe.heldout.points
    wanted = (1000 * torch.special.ndtri(quantiles.double()).sigmoid()).floor().tolist()
    assert seen == wanted * 3 and wanted[0] > 1000 * float(quantiles[0])


@pytest.mark.slow
def test_sdxl_is_conditioned_on_each_images_own_size_and_crop(prepared: Prepared, settings: Settings, tmp_path: Path) -> None:
    """The loss is that of diffusers' UNet with the time ids of diffusers' training script: size, crop, target."""
    import diffusers
    from PIL import Image

    folder = tmp_path / "set"
    folder.mkdir()
    for name, size in (("wide", (96, 48)), ("tall", (20, 40)), ("even", (32, 32))):
        Image.effect_noise(size, 60).convert("RGB").save(folder / f"{name}.png")
        (folder / f"{name}.txt").write_text(name)
    base = tiny.tiny_sdxl(tmp_path / "sdxl")
    work = prepared(settings(base=str(base), data=DataConfig(path=str(folder), buckets=False), batch_size=3))
    state = work.state
    trace = state.step(0)
    pipeline = diffusers.StableDiffusionXLPipeline.from_pretrained(base, dtype=torch.float32)
    noising = diffusers.DDPMScheduler.from_config(pipeline.scheduler.config)
    draws = draws_for(0, 0, range(3), of=3, shape=(4, 8, 8))
    ids = {  # height, width, crop's top and left once the short side is 32, target
        "wide.png": [48, 96, 0, 16, 32, 32],
        "tall.png": [40, 20, 16, 0, 32, 32],
        "even.png": [32, 32, 0, 0, 32, 32],
    }
    assert sorted(trace.items) == [0, 1, 2]
    for place, number in enumerate(trace.items):
        sample = work.plan.train[number]
        mean, logvar = (state.latents.rows[number][name][0] for name in ("mean", "logvar"))
        latents = (mean + (0.5 * logvar).exp() * draws.posterior[place]).unsqueeze(0)
        time = trace.timesteps[place].long().view(1)
        with torch.no_grad():
            text, _, pooled, _ = pipeline.encode_prompt(sample.caption, device="cpu", do_classifier_free_guidance=False)
            added = {"text_embeds": pooled, "time_ids": torch.tensor([ids[sample.name]], dtype=torch.float32)}
            noisy = noising.add_noise(latents, draws.noise[place : place + 1], time)
            answer = pipeline.unet(noisy, time, text, added_cond_kwargs=added).sample
        wanted = (answer.double() - draws.noise[place].double()).square().mean()
        assert float(trace.losses[place]) == pytest.approx(float(wanted), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("text_encoder", [False, True])
def test_clip_skip_trains_on_the_layer_that_diffusers_draws_with(prepared: Prepared, settings: Settings, text_encoder: bool) -> None:
    import diffusers

    work = prepared(settings(batch_size=1, clip_skip=1, lora=LoraConfig(rank=2, text_encoder=text_encoder)))
    state = work.state
    trace = state.step(0)
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(work.plan.base.path, dtype=torch.float32)
    noising = diffusers.DDPMScheduler.from_config(pipeline.scheduler.config)
    draws = draws_for(0, 0, range(1), of=1, shape=(4, 8, 8))
    (number,) = trace.items
    mean, logvar = (state.latents.rows[number][name][0] for name in ("mean", "logvar"))
    latents = (mean + (0.5 * logvar).exp() * draws.posterior[0]).unsqueeze(0)
    with torch.no_grad():
        tokens = pipeline.tokenizer(work.plan.prompts[number], padding="max_length", truncation=True, return_tensors="pt").input_ids
        outputs = pipeline.text_encoder(tokens, output_hidden_states=True)
        model = getattr(
            pipeline.text_encoder, "text_model", pipeline.text_encoder
        )  # diffusers 0.42 asks for text_model, gone in transformers 5
        text, other = model.final_layer_norm(outputs.hidden_states[-2]), outputs.last_hidden_state
        noisy = noising.add_noise(latents, draws.noise, trace.timesteps.long())
        losses = [
            float((pipeline.unet(noisy, trace.timesteps.long(), state_).sample.double() - draws.noise.double()).square().mean())
            for state_ in (text, other)
        ]
    assert float(trace.losses[0]) == pytest.approx(losses[0], rel=1e-5) != pytest.approx(losses[1], rel=1e-5)


@pytest.mark.slow
def test_a_run_with_a_memory_budget_is_held_to_its_plan(prepared: Prepared, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    resident = itertools.count(1 << 30, 1 << 26)  # 64 MiB more at each look
    monkeypatch.setattr(trimmed, "resident_bytes", lambda: next(resident))
    given: list[int] = []
    monkeypatch.setattr(trimmed, "give_back", lambda: given.append(1))
    plain, one = after_a_step(prepared, settings())
    assert not given
    held, other = after_a_step(prepared, settings(memory="64GiB"))
    assert len(given) > 10 and torch.equal(one.losses, other.losses) and torch.equal(gradients(held), gradients(plain))
