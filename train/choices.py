"""What the settings choose from the tables of optimizers, schedules and objectives, with every option checked."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Collection, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from typing import Any

from registry.errors import Faults, Refused
from registry.options import Entry, OptionTable, option_faults
from registry.settings import given_params
from train.config import ObjectiveConfig, OptimConfig, ScheduleConfig, TrainConfig
from train.dotted import constructor_options, find_class, is_dotted
from train.objective.contrast import CONTRASTS
from train.objective.losses import LOSSES
from train.objective.noise import NOISES, NORMAL, noise_names
from train.objective.preference import Preference
from train.objective.slider import OBJECTIVES, Slider
from train.objective.targets import ObjectiveFunctions
from train.objective.timesteps import TIMESTEPS
from train.objective.weighting import WEIGHTINGS
from train.optim import OPTIMIZERS, Groups
from train.optim_state import estimates_rate, has_evaluation_weights
from train.optim_trial import Trial, numbers_kept, try_steps
from train.schedule import SCHEDULES

LOG = logging.getLogger(__name__)

BESIDE_PARAMS = ("weight_decay", "betas")  # options of optimizers that are settings of optim itself
NOISE = "noise="  # begins the keys of what changes the noise
OBJECTIVE: Mapping[str, OptionTable[Any]] = {"timesteps": TIMESTEPS, "weighting": WEIGHTINGS, "loss": LOSSES, "noise": NOISES}
TABLES: Mapping[str, OptionTable[Any]] = {**OBJECTIVE, "name": OBJECTIVES, "contrast": CONTRASTS}  # all that have objective.params
WRONG = "These options do not fit:"
TOKEN_LR = 5e-4  # of textual inversion, in diffusers' examples
LARGEST_TRIED = 64  # rank of the weights on which an optimizer is tried


@dataclass(frozen=True)
class Choice:
    """An entry of a table with the value of each of its options, or a class with the options given for it."""

    name: str
    function: Callable[..., Any]
    values: Mapping[str, Any]

    @property
    def bound(self) -> Callable[..., Any]:
        """The function with its options filled."""
        return partial(self.function, **self.values)


def choose_optimizer(optim: OptimConfig) -> Choice:
    """The optimizer with its options. Raises Faults for options that do not fit, Refused for a name or class that is not there."""
    beside = {name: value for name in BESIDE_PARAMS if (value := getattr(optim, name)) is not None}
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in beside.items()} | given_params(optim.params)
    if is_dotted(optim.name):
        from torch.optim import Optimizer

        return _class_choice("optim", optim, find_class(optim.name, Optimizer, "optim.name"), given, besides=("params", "lr"))
    return _entry_choice("optim", optim, OPTIMIZERS, given)


def choose_schedule(schedule: ScheduleConfig) -> Choice:
    """The schedule with its options. Raises as `choose_optimizer` does."""
    given = given_params(schedule.params)
    if is_dotted(schedule.name):
        from torch.optim.lr_scheduler import LRScheduler

        found = find_class(schedule.name, LRScheduler, "schedule.name")
        return _class_choice("schedule", schedule, found, given, besides=("optimizer", "last_epoch", "verbose"))
    return _entry_choice("schedule", schedule, SCHEDULES, given)


def choose_objective(objective: ObjectiveConfig, timesteps: str) -> dict[str, Choice]:
    """The choices of `timesteps`, `weighting` and `loss`, and a `noise=NAME` for each change of the noise, with their options.

    Raises Faults.
    """
    named: dict[str, tuple[OptionTable[Any], str]] = {
        "timesteps": (TIMESTEPS, timesteps),
        "weighting": (WEIGHTINGS, objective.weighting),
        "loss": (LOSSES, objective.loss),
    }
    named |= {"name": (OBJECTIVES, objective.name), "contrast": (CONTRASTS, objective.contrast)}
    faults: list[str] = []
    try:
        named |= {f"{NOISE}{name}": (NOISES, name) for name in noise_names(objective.noise) if name != NORMAL}
    except Refused as error:
        faults.append(str(error))
    entries: dict[str, Entry[Any]] = {}
    for setting, (table, name) in named.items():
        try:
            entries[setting] = table[name]
        except Refused as error:
            faults.append(f"objective.{setting.partition('=')[0]}: {error}")
    given = given_params(objective.params)
    if len(entries) == len(named):
        options = {name: option for entry in entries.values() for name, option in entry.options.items()}
        owner = ", ".join(f"{setting.partition('=')[0]}={entry.name}" for setting, entry in entries.items())
        faults += [_with_owners(fault) for fault in option_faults(owner, options, given, where="objective.params.")]
    if faults:
        raise Faults(WRONG, faults)
    return {setting: Choice(entry.name, entry.function, entry.values(given)) for setting, entry in entries.items()}


def objective_functions(objective: ObjectiveConfig) -> ObjectiveFunctions:
    """The functions of a resolved objective, options filled."""
    return functions_of(objective, choose_objective(objective, str(objective.timesteps)))


def slider_of(objective: ObjectiveConfig) -> Slider | None:
    """The slider that the objective is; None: it is another. Raises Faults."""
    found = choose_objective(objective, objective.timesteps or "uniform")["name"].bound()
    return found if isinstance(found, Slider) else None


def preference_of(objective: ObjectiveConfig) -> Preference | None:
    """The options of learning from votes; None: the objective is another. Raises Faults."""
    found = choose_objective(objective, objective.timesteps or "uniform")["name"].bound()
    return found if isinstance(found, Preference) else None


def functions_of(objective: ObjectiveConfig, chosen: Mapping[str, Choice]) -> ObjectiveFunctions:
    """The functions of what was chosen, options filled."""
    return ObjectiveFunctions(
        timesteps=chosen["timesteps"].bound,
        weighting=chosen["weighting"].bound,
        loss=chosen["loss"].bound,
        noises=tuple((choice.name, choice.bound) for setting, choice in chosen.items() if setting.startswith(NOISE)),
        band=(objective.min_timestep, objective.max_timestep),
    )


def _with_owners(fault: str) -> str:
    """The fault, and which entries have the option when those chosen have not."""
    option = fault.partition("has no option '")[2].partition("'")[0]
    owners = [f"{setting}={name}" for setting, table in TABLES.items() for name, entry in table.items() if option in entry.options]
    return f"{fault.partition('. ')[0]}; {' and '.join(owners)} {'has' if len(owners) == 1 else 'have'} it." if option and owners else fault


def _entry_choice(section: str, settings: OptimConfig | ScheduleConfig, table: OptionTable[Any], given: Mapping[str, Any]) -> Choice:
    try:
        entry = table[settings.name]
    except Refused as error:
        raise Refused(f"{section}.name: {error}") from None
    faults = option_faults(entry.name, entry.options, given, where=f"{section}.params.")
    if settings.args:
        faults.append(f"{section}.args is for a class named by its import path; {entry.name}'s options are {section}.params.NAME.")
    if faults:
        raise Faults(WRONG, faults)
    return Choice(entry.name, entry.function, entry.values(given))


def _class_choice(
    section: str, settings: OptimConfig | ScheduleConfig, found: type, given: Mapping[str, Any], *, besides: Collection[str]
) -> Choice:
    options, more = constructor_options(found, besides=besides), dict(settings.args or {})
    faults = option_faults(settings.name, options, given, where=f"{section}.params.")
    faults += option_faults(settings.name, options, more, where=f"{section}.args.")
    faults += [f"{section}.args.{name} is given by {section}.params.{name} or {section}.{name} too." for name in more if name in given]
    missing = [name for name, option in options.items() if option.required and name not in given and name not in more]
    faults += [f"{settings.name} needs {name}: '{section}.args={{{name}: ...}}'." for name in missing]
    if faults:
        raise Faults(WRONG, faults)
    return Choice(settings.name, found, {**given, **more})


def build_optimizer(choice: Choice, groups: Groups, lr: float) -> Any:
    """The optimizer over these weights, ready to train. Raises Refused for what its constructor refuses."""
    try:
        with redirect_stdout(printed := io.StringIO()):  # some print, where a command's JSON goes
            optimizer = choice.function(list(groups), lr=lr, **choice.values)
    except Refused:
        raise
    except Exception as error:  # whatever a class from elsewhere raises
        raise Refused(f"optim.name={choice.name} does not work with these options: {type(error).__name__}: {error}") from error
    if text := printed.getvalue().strip():
        LOG.info("%s: %s", choice.name, text)
    if has_evaluation_weights(optimizer):
        optimizer.train()
    return optimizer


def try_optimizer(config: TrainConfig) -> Trial:
    """Take steps on small weights, and again from a checkpoint: what the optimizer keeps for each weight, and whether a resume is exact.

    Raises Refused for what its constructor, its step or its state refuses, so that this is known before a model is loaded.
    """
    optim, choice = config.optim, choose_optimizer(config.optim)
    rates = group_rates(optim, 2 if config.lora.text_encoder else 1) if config.lora.kind != "none" else []
    rates += [token_rate(config)] if config.tokens.add else []
    return try_steps(
        lambda groups: build_optimizer(choice, groups, optim.lr),
        rank=min(config.lora.rank, LARGEST_TRIED),
        rates=rates,
        lr=optim.lr,
        setting=f"optim.name={optim.name}",
    )


def moments_of(config: TrainConfig, shapes: Mapping[tuple[int, ...], int]) -> float | None:
    """Numbers of fp32 that the optimizer keeps for each weight of a LoRA of these shapes; None: it cannot be told."""
    choice = choose_optimizer(config.optim)
    return numbers_kept(lambda groups: build_optimizer(choice, groups, config.optim.lr), shapes, config.optim.lr)


def group_rates(optim: OptimConfig, modules: int) -> list[float]:
    """The factors on the learning rate of all groups of weights: of each module one, with LoRA+ another behind it for its up matrices."""
    own = [1.0] + [text_rate(optim)] * (modules - 1)
    ratio = optim.loraplus_lr_ratio
    return own if ratio is None else [factor for rate in own for factor in (rate, rate * ratio)]


def text_rate(optim: OptimConfig) -> float:
    """The factor on the learning rate for text encoders."""
    return (optim.text_lr or optim.lr) / optim.lr


def token_rate(config: TrainConfig) -> float:
    """The factor on the learning rate for the vectors of new tokens; of vectors alone optim.lr is the rate."""
    optim = config.optim
    if config.lora.kind == "none":
        return 1.0
    usual = optim.lr if estimates_rate(optim.name) else TOKEN_LR
    return (optim.token_lr or usual) / optim.lr
