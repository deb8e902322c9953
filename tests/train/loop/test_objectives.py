"""Every part of an objective acts on the loss of a step, and what is drawn for it is drawn again after a stop."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from registry.store import Store
from tests import tiny
from tests.train.loop.test_resume import only_run, same_file
from train import run
from train.choices import objective_functions
from train.config import CheckpointConfig, ObjectiveConfig, ObjectiveParams, PreviewConfig, TrainConfig
from train.loop.step import TrainState
from train.objective.targets import objective_of

Settings = Callable[..., TrainConfig]
Prepared = Callable[[TrainConfig], Any]

OPTIONS: dict[str, dict[str, Any]] = {
    "min_snr": {"weighting": "min_snr", "params": {"gamma": 1.0}},
    "debiased": {"weighting": "debiased"},
    "p2": {"weighting": "p2", "params": {"gamma": 0.5, "k": 2.0}},
    "huber": {"loss": "huber", "params": {"delta": 0.1}},
    "huber, exponential": {"loss": "huber", "params": {"delta": 0.1, "schedule": "exponential"}},
    "huber, snr": {"loss": "huber", "params": {"delta": 0.1, "schedule": "snr"}},
    "pseudo_huber": {"loss": "pseudo_huber"},
    "smooth_l1": {"loss": "smooth_l1"},
    "offset": {"noise": "offset"},
    "offset, random": {"noise": "offset", "params": {"offset_random": True}},
    "offset, adaptive": {"noise": "offset", "params": {"offset_adaptive": 0.5}},
    "pyramid": {"noise": "pyramid"},
    "pyramid, other discount": {"noise": "pyramid", "params": {"discount": 0.6}},
    "perturbation": {"noise": "perturbation"},
    "perturbation, random": {"noise": "perturbation", "params": {"perturbation_random": True}},
    "offset and perturbation": {"noise": "offset+perturbation"},
    "logit_normal": {"timesteps": "logit_normal"},
    "mode": {"timesteps": "mode"},
    "cosmap": {"timesteps": "cosmap"},
    "beta": {"timesteps": "beta"},
    "a band": {"min_timestep": 600.0, "max_timestep": 900.0},
}


def objective(options: dict[str, Any], **more: Any) -> ObjectiveConfig:
    params = ObjectiveParams(**options.get("params", {}))
    return ObjectiveConfig(**{"timesteps": "uniform", **options, **more, "params": params})


def losses(state: TrainState) -> tuple[float, ...]:
    """Of the images of the first pass, and the norm of their gradient."""
    (batch, *_), *_ = state.order.step(0)
    found, _times = state._pass(0, batch, of=len(batch.items))
    gradients = torch.autograd.grad(found.sum(), [weight for _, weight in state.weights], allow_unused=True)
    norm = torch.stack([gradient.norm() for gradient in gradients if gradient is not None]).norm()
    return (*found.tolist(), float(norm))


@pytest.mark.slow
def test_each_option_gives_another_loss_and_another_gradient(prepared: Prepared, settings: Settings) -> None:
    state = prepared(settings()).state
    parts, seen = state.parts, {"default": losses(state)}
    assert losses(state) == seen["default"]
    for name, options in OPTIONS.items():
        functions = objective_functions(objective(options))
        state.objective = objective_of(parts.prediction, parts.scheduler_class, parts.scheduler_config, functions)
        seen[name] = losses(state)
        assert all(value > 0 for value in seen[name])
    assert len({values[-1] for values in seen.values()}) == len({values[0] for values in seen.values()}) == len(seen)


@pytest.mark.slow
def test_held_out_loss_is_on_plain_noise(prepared: Prepared, settings: Settings) -> None:
    plain, changed = (prepared(settings(objective=ObjectiveConfig(noise=noise))) for noise in ("normal", "offset+pyramid+perturbation"))
    assert plain.probe.measure(plain.state, model=plain.state.model) == changed.probe.measure(changed.state, model=changed.state.model)


EVERYTHING = objective(
    {
        "noise": "offset+pyramid+perturbation",
        "timesteps": "beta",
        "loss": "huber",
        "weighting": "debiased",
        "params": {"offset_random": True, "perturbation_random": True, "offset_adaptive": 0.1, "schedule": "snr"},
    },
    max_timestep=950.0,
)
ZERO_SNR = objective({"noise": "perturbation", "weighting": "min_snr", "loss": "pseudo_huber"}, zero_terminal_snr=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("prediction", "chosen"), [("epsilon", EVERYTHING), ("v_prediction", ZERO_SNR)], ids=["noises", "zero_terminal_snr"]
)
def test_a_run_that_was_stopped_goes_on_with_the_same_noise(
    prediction: str, chosen: ObjectiveConfig, settings: Settings, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1767225600")
    base = str(tiny.tiny_sd1(tmp_path / "tiny", prediction=prediction))
    fixed = {"checkpoint": CheckpointConfig(every=2), "preview": PreviewConfig(prompts=["a disc"], steps=2, every=4)}

    def config(out: str) -> TrainConfig:
        return settings(base=base, objective=chosen, steps=4, out=str(tmp_path / out), **fixed)

    straight = Path(run.run(config("straight"), store).result["files"]["diffusers"])
    honest = TrainState.step

    def dies(self: TrainState, number: int) -> Any:
        if number == 3:
            raise ZeroDivisionError
        return honest(self, number)

    with monkeypatch.context() as patched:
        patched.setattr(TrainState, "step", dies)
        with pytest.raises(ZeroDivisionError):
            run.run(config("stopped"), store)
    folder = only_run(tmp_path / "stopped")
    run.resume(folder, {}, store)
    assert same_file(straight, folder / straight.name)
    with safe_open(straight, "pt") as file:
        header = file.metadata()
    expected = (
        {"ss_zero_terminal_snr": "True"} if chosen.zero_terminal_snr else {"ss_noise_offset": "0.05", "ss_multires_noise_discount": "0.3"}
    )
    assert expected.items() <= header.items() and ("ss_zero_terminal_snr" in header) == chosen.zero_terminal_snr
