"""Notes of a plan on the optimizer, its rates and the average of the weights, and what of them is refused together."""

from __future__ import annotations

from collections.abc import Iterator

from registry.errors import Refused
from train.config import TrainConfig
from train.optim_state import estimates_rate
from train.optim_trial import Trial

ADAM_LIKE = ("adam", "adafactor", "rmsprop", "lion", "came", "muon")  # a weight moves by about the rate in each step, whatever its gradient
USUAL = (1e-6, 1e-2)  # rates of a LoRA with Adam's kind; 1e-4 suits rank 16


def check_average(config: TrainConfig, trial: Trial) -> None:
    """Refuse an average of weights of an optimizer that uses an average of its own."""
    if config.ema.decay is not None and trial.own_average:
        raise Refused(
            f"ema.decay={config.ema.decay:g}: {config.optim.name} is schedule-free, what it saves is an average of its steps already."
            " Leave ema.decay null, or take another optimizer."
        )


def check_norms(config: TrainConfig, trial: Trial) -> None:
    """Refuse to pull vectors back where the optimizer keeps the weights to use apart from those that it trains."""
    if config.tokens.add and config.tokens.keep_norm and trial.own_average:
        raise Refused(
            f"tokens.keep_norm=true: {config.optim.name} is schedule-free, and its average would not follow. Give"
            " tokens.keep_norm=false, or another optimizer."
        )


def check_loraplus(config: TrainConfig) -> None:
    """Refuse LoRA+ with an optimizer that estimates the rate, of all weights or of each group of them."""
    optim = config.optim
    if optim.loraplus_lr_ratio is not None and estimates_rate(optim.name):
        raise Refused(
            f"optim.loraplus_lr_ratio={optim.loraplus_lr_ratio:g}: {_last(optim.name)} estimates the rate itself, from the weights that it"
            " holds together. Leave the ratio null, or take another optimizer such as adamw."
        )


def optimizer_notes(config: TrainConfig, trial: Trial) -> Iterator[str]:
    """What is allowed and probably not intended, and what a resume cannot give back."""
    name, lr = config.optim.name, config.optim.lr
    if trial.own_average and config.schedule.name != "constant":
        yield f"{name} averages its steps in place of a schedule; schedule.name is {config.schedule.name}, not constant"
    if estimates_rate(name) and lr < 0.1:
        yield f"optim.lr is {lr:g}: {_last(name)} multiplies its own estimate by it, and 1 is usual"
    if name == "prodigy_plus_schedule_free" and config.optim.clip:
        yield f"optim.clip is {config.optim.clip:g}: {name} limits its updates itself, clipped gradients disturb its estimate; 0 is advised"
    if trial.inexact:
        yield f"a resume with {name} is not exact: {trial.inexact}"
    yield from unusual_rates(config)
    yield from _average(config)


def unusual_rates(config: TrainConfig) -> Iterator[str]:
    """Remarks on learning rates at which an Adam-like optimizer destroys a LoRA, or the vectors of tokens, or teaches them nothing."""
    name, alone = config.optim.name, config.lora.kind == "none"
    if estimates_rate(name) or not any(word in _last(name).lower() for word in ADAM_LIKE):
        return
    rates = [("optim.lr", config.optim.lr), ("optim.text_lr", config.optim.text_lr)]
    if ratio := config.optim.loraplus_lr_ratio:
        rates += [(f"{setting} x optim.loraplus_lr_ratio", rate * ratio) for setting, rate in rates if rate is not None]
    for setting, rate in rates:
        if rate is not None and not USUAL[0] <= rate <= USUAL[1]:
            destroys = f"destroys {'the vectors' if alone else 'a LoRA'} in a few steps"
            effect = destroys if rate > USUAL[1] else "changes next to nothing"
            suits = "1e-3 to 5e-3 suit vectors" if alone else "1e-4 suits rank 16"
            yield f"{setting} is {rate:g}: with {name} each weight moves by about that much a step, which {effect}; {suits}"


def _average(config: TrainConfig) -> Iterator[str]:
    """A remark on an average over more steps than a fifth of the run: the adapter would be that of much earlier weights."""
    decay = config.ema.decay
    if decay is None:
        return
    window = round(1.0 / (1.0 - decay))
    if window > config.steps / 5:
        late = "the vectors lag" if config.lora.kind == "none" else "the adapter lags"
        yield (
            f"ema.decay={decay:g} averages over some {window:,} steps, and the run has {config.steps:,}: {late} behind."
            f" At most {max(0.0, 1.0 - 5.0 / config.steps):.4g} suits it"
        )


def _last(name: str) -> str:
    return name.rpartition(".")[2]
