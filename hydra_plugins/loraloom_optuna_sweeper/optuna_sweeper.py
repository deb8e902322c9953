"""`hydra/sweeper=optuna`: values chosen by an Optuna study (TPE, Bergstra et al. 2011) from what the trials before gave.

Written as hydra-optuna-sweeper 1.3.0 is used, which pip does not install beside Optuna 3 or newer. The first trial is the
config's own values, so that a search is never worse than what it began with.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep, Transformer
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from omegaconf import DictConfig, OmegaConf

if TYPE_CHECKING:
    from hydra.core.utils import JobReturn
    from hydra.plugins.launcher import Launcher
    from hydra.types import HydraContext, TaskFunction
    from optuna.distributions import BaseDistribution
    from optuna.study import Study


@dataclass
class OptunaSweeperConf:
    """hydra.sweeper.*"""

    _target_: str = "hydra_plugins.loraloom_optuna_sweeper.optuna_sweeper.OptunaSweeper"
    direction: str = "minimize"  # or maximize, of what a run gives: the held-out loss of loraloom train
    n_trials: int = 8
    n_jobs: int = 1  # trials handed to the launcher at once: 2 with hydra/launcher=joblib
    startup: int = 3  # trials before TPE chooses: the config's own values, then random ones
    seed: int | None = 0  # of the study; null is another one each time
    storage: str | None = None  # sqlite:///search.db keeps the study, and continues it when study_name is the same
    study_name: str | None = None
    params: dict[str, str] = field(default_factory=dict)  # {optim.lr: "tag(log, interval(1e-5, 1e-2))"}, as an experiment may have them


ConfigStore.instance().store(group="hydra/sweeper", name="optuna", node=OptunaSweeperConf, provider="loraloom")


class OptunaSweeper(Sweeper):
    """interval(a,b), tag(log, interval(a,b)), range(a,b,step), choice(a,b) and glob(*) as one study."""

    def __init__(
        self,
        *,
        direction: str,
        n_trials: int,
        n_jobs: int,
        startup: int,
        seed: int | None,
        storage: str | None,
        study_name: str | None,
        params: Mapping[str, str] | None,
    ) -> None:
        self.direction = direction
        self.n_trials = n_trials
        self.n_jobs = n_jobs
        self.startup = startup
        self.seed = seed
        self.storage = storage
        self.study_name = study_name
        self.params = dict(params or {})

    def setup(self, *, hydra_context: "HydraContext", task_function: "TaskFunction", config: DictConfig) -> None:
        self.context, self.settings = hydra_context, config
        self.launcher: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> dict[str, Any] | None:
        """Run the trials; gives the best one's parameters and value, None where every trial failed."""
        words = [*(f"{key}={value}" for key, value in self.params.items()), *arguments]
        parsed = OverridesParser.create(config_loader=self.context.config_loader).parse_overrides(words)
        overrides = {one.get_key_element(): one for one in parsed}
        space = {key: distribution(one) for key, one in overrides.items() if one.is_sweep_override()}
        fixed = [str(one.input_line) for one in overrides.values() if not one.is_sweep_override()]
        study = self._study(space)
        for done in range(0, self.n_trials, self.n_jobs):
            trials = [study.ask(space) for _ in range(min(self.n_jobs, self.n_trials - done))]
            batch = [[*fixed, *(f"{key}={value}" for key, value in trial.params.items())] for trial in trials]
            for point in batch:
                self.context.config_loader.load_sweep_config(self.settings, point)  # refuses what cannot be composed
            for trial, ended in zip(trials, self.launcher.launch(batch, initial_job_idx=done), strict=True):
                _tell(study, trial, ended)
        return self._result(study)

    def _study(self, space: Mapping[str, "BaseDistribution"]) -> "Study":
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        sampler = optuna.samplers.TPESampler(seed=self.seed, n_startup_trials=self.startup)
        study = optuna.create_study(
            storage=self.storage, study_name=self.study_name, sampler=sampler, direction=self.direction, load_if_exists=True
        )
        if not study.trials:
            study.enqueue_trial(self._own_values(space))
        return study

    def _own_values(self, space: Mapping[str, "BaseDistribution"]) -> dict[str, Any]:
        """What the config has for the searched settings, where the search may try it."""
        own: dict[str, Any] = {}
        for key, allowed in space.items():
            name = key.lstrip("+")
            value = self.settings.hydra.runtime.choices.get(name, OmegaConf.select(self.settings, name))
            choices = getattr(allowed, "choices", None)
            if choices is not None:
                spelled = value.name if isinstance(value, Enum) else Transformer.str(value)
                own |= {key: spelled} if spelled in choices else {}
            elif isinstance(value, (int, float)) and allowed._contains(allowed.to_internal_repr(value)):
                own[key] = value
        return own

    def _result(self, study: "Study") -> dict[str, Any] | None:
        from optuna.trial import TrialState

        if not study.get_trials(states=[TrialState.COMPLETE]):
            return None
        result = {"name": "optuna", "best_params": dict(study.best_params), "best_value": study.best_value}
        OmegaConf.save(OmegaConf.create(result), Path(self.settings.hydra.sweep.dir) / "optimization_results.yaml")
        return result


def distribution(override: Override) -> "BaseDistribution":
    """What a sweep's override may be, as Optuna has it; texts and choices keep Hydra's spelling."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    value: Any = override._value
    if isinstance(value, IntervalSweep):
        ends: Any = (value.start, value.end)
        kind: Any = IntDistribution if all(isinstance(end, int) for end in ends) else FloatDistribution
        return kind(*ends, log="log" in value.tags)
    values: list[Any] = list(override.sweep_iterator(Transformer.identity))
    if isinstance(value, RangeSweep) and len(values) > 1:
        step = abs(values[1] - values[0])
        kind = IntDistribution if all(isinstance(one, int) for one in values) else FloatDistribution
        return kind(min(values), max(values), step=step)
    return CategoricalDistribution([Transformer.str(one) for one in values])


def _tell(study: "Study", trial: Any, ended: "JobReturn") -> None:
    """The trial's value, or that it failed: nothing, or no number, came back."""
    from optuna.trial import TrialState

    value = ended.return_value
    if isinstance(value, (int, float)) and math.isfinite(value):
        study.tell(trial, float(value))
    else:
        study.tell(trial, state=TrialState.FAIL)


__all__: Sequence[str] = ["OptunaSweeper", "distribution"]
