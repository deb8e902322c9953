"""docs/samplers.md: which schedulers of diffusers draw the data with a perfect denoiser, and which do not though nothing is said.

python -m bench.samplers.table > docs/samplers.md
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import isnan
from types import SimpleNamespace
from typing import Any

from bench.samplers.gaussian import BETAS, MEAN, SPREAD, sample
from infer.draw.samplers import SAMPLERS, build_scheduler, flow_samplers
from infer.draw.values import number

STEPS = (20, 100)
COUNT = 2000  # numbers: their mean is known to 0.007, their spread to 0.005
OFF = 0.1  # a mean or a spread further than this from the data's at the larger number of steps is wrong
FLOW: Mapping[str, Any] = {"prediction_type": "flow_prediction", "flow_shift": 3.0}
FLOW_SIGMAS: Mapping[str, Any] = {**FLOW, "use_flow_sigmas": True}
VP_FLOW = (
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "UniPCMultistepScheduler",
    "DEISMultistepScheduler",
    "SASolverScheduler",
)
EULER_FLOW = "`euler` (FlowMatchEulerDiscreteScheduler), `dpmpp_2m` and `unipc` with their flow sigmas, `heun` with a static shift"


@dataclass(frozen=True, kw_only=True)
class Combination:
    """A scheduler class of diffusers with options that it takes without a word."""

    name: str
    options: Mapping[str, Any]
    shown: str  # the options as the table shows them
    here: str
    prediction: str = "flow"
    zero_snr: bool = False
    betas: Mapping[str, Any] = field(default_factory=dict)


def combinations() -> Iterator[Combination]:
    """The combinations that are measured."""
    for name in VP_FLOW:
        here = "offered: `dpmpp_2m`, `unipc`" if name in ("DPMSolverMultistepScheduler", "UniPCMultistepScheduler") else EULER_FLOW
        yield Combination(name=name, options=FLOW_SIGMAS, shown="`use_flow_sigmas`, `flow_shift=3`", here=here)
    for name in VP_FLOW:
        yield Combination(name=name, options=FLOW, shown="`flow_prediction` without `use_flow_sigmas`", here="always with flow sigmas")
    for name in ("DPMSolverMultistepScheduler", "UniPCMultistepScheduler"):
        for sigmas in ("karras", "exponential", "beta"):
            option = f"use_{sigmas}_sigmas"
            yield Combination(
                name=name, options={**FLOW_SIGMAS, option: True}, shown=f"`use_flow_sigmas` and `{option}`", here="flow sigmas alone"
            )
    for option in ("invert_sigmas", "stochastic_sampling"):
        yield Combination(
            name="FlowMatchEulerDiscreteScheduler", options={"shift": 3.0, option: True}, shown=f"`{option}`", here="`euler` without it"
        )
    yield from _diffusion()


def _diffusion() -> Iterator[Combination]:
    unipc, euler = "UniPCMultistepScheduler", "EulerDiscreteScheduler"
    yield Combination(name=unipc, options={"solver_type": "bh1"}, shown="`solver_type=bh1`", here="`unipc` has bh2", prediction="epsilon")
    yield Combination(
        name=unipc, options={"predict_x0": False}, shown="`predict_x0=False`", here="`unipc` predicts x0", prediction="epsilon"
    )
    yield Combination(
        name=euler,
        options={"interpolation_type": "log_linear"},
        shown="`interpolation_type=log_linear`",
        here="linear",
        prediction="epsilon",
    )
    for name in ("HeunDiscreteScheduler", "LMSDiscreteScheduler", "KDPM2DiscreteScheduler"):
        yield Combination(
            name=name,
            options={"prediction_type": "v_prediction", "timestep_spacing": "trailing"},
            shown="a base with `rescale_betas_zero_snr`, which the class drops",
            here="the rescaled betas, as `trained_betas`",
            prediction="v_prediction",
            zero_snr=True,
        )
    zero = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    for name, prediction in (("DDIMScheduler", "epsilon"), ("TCDScheduler", "epsilon")):
        yield Combination(
            name=name,
            options={**zero, "clip_sample": False, "prediction_type": prediction},
            shown=f"`rescale_betas_zero_snr` with `{prediction}`",
            here="refused: 0 / 0 at the first step",
            prediction=prediction,
            zero_snr=True,
        )


def measure(one: Combination) -> list[str]:
    """What it draws at each number of steps: mean and spread, or the error that it raises."""
    import diffusers

    scheduler_class = getattr(diffusers, one.name)
    betas = {} if one.name.startswith("FlowMatch") else BETAS
    found: list[str] = []
    for steps in STEPS:
        try:
            mean, spread = sample(
                scheduler_class(**{**betas, **one.options}), steps, one.prediction, zero_snr=one.zero_snr, count=COUNT
            ).moments
            found.append(moments(mean, spread))
        except Exception as error:
            found.append(type(error).__name__)
    return found


def moments(mean: float, spread: float) -> str:
    """Mean and spread for the table."""
    if isnan(mean):
        return "NaN"
    return f"{mean:.2f}, {spread:.2f}" if abs(mean) < 1e3 else f"{mean:.0e}, {spread:.0e}"


def verdict(shown: str) -> str:
    """right, wrong, or loud where an error is raised."""
    if shown[0].isalpha() and shown != "NaN":
        return "an error"
    if shown == "NaN":
        return "**wrong**"
    mean, spread = map(float, shown.split(", "))
    return "right" if abs(mean - MEAN) < OFF and abs(spread - SPREAD) < OFF else "**wrong**"


def offered() -> Iterator[str]:
    """A row for each sampler: what it draws on three kinds of bases."""
    kinds = {
        "epsilon": {**BETAS, "prediction_type": "epsilon", "timestep_spacing": "leading", "steps_offset": 1},
        "zero": {**BETAS, "prediction_type": "v_prediction", "timestep_spacing": "trailing", "rescale_betas_zero_snr": True},
        "flow": {"shift": 3.0},
    }
    predictions = {"epsilon": "epsilon", "zero": "v_prediction", "flow": "flow"}
    for name in sorted(SAMPLERS):
        cells = []
        for kind, config in kinds.items():
            prediction = predictions[kind]
            if kind == "flow" and name not in flow_samplers():
                cells.append("")
                continue
            parts: Any = SimpleNamespace(scheduler_config=config, scheduler_class="EulerDiscreteScheduler", prediction=prediction)
            try:
                scheduler = build_scheduler(parts, name)
            except Exception:
                cells.append("refused")
                continue
            steps = 8 if name == "lcm" else 50
            drawn = sample(scheduler, steps, prediction, zero_snr=kind == "zero", count=COUNT, consistency=name == "lcm")
            cells.append(moments(*drawn.moments))
        yield f"| `{name}` | {SAMPLERS[name].scheduler} | {' | '.join(cells)} |"


PAGE = """# Samplers

A sampler is a scheduler class of diffusers with every option written out (`infer/draw/samplers.py`). Only combinations are offered that draw the data when the denoiser is
perfect: `bench/samplers/gaussian.py` has one in closed form for numbers of mean {mean} and spread {spread}, and `tests/infer/draw/test_sampler_solutions.py` holds every sampler on
every spacing (linspace, leading, trailing) and prediction (epsilon, v, v with zero terminal SNR, flow) against it, and its sigmas against the formulas of k-diffusion (Karras et al. 2022).

This page is written by `python -m bench.samplers.table > docs/samplers.md` with diffusers {version}. Each cell is mean, spread of what is drawn.

## What diffusers takes and steps wrongly

Nothing is printed by any of these, or no more than a line of the log.

| class | options | {few} steps | {many} steps | | drawn here |
|---|---|---|---|---|---|
{wrong}

## What a base keeps under a named sampler

- **Trailing spacing** stays, save under Karras and exponential sigmas: Euler, Heun, LMS and KDPM2 take the ends of these from the spaced sigmas, so that on a trailing base they
  would end at 0.46 at 10 steps and at 0.30 at 20 where the table ends at 0.039 (`pocket`). There they keep linspace, whose ends are the table's, as k-diffusion does.
- **Zero terminal SNR** stays: classes that do not take `rescale_betas_zero_snr` get the rescaled betas. `pndm` is refused on such a base, and so is what divides 0 by 0 for epsilon.
- **Rounded timesteps**: many Karras steps from sigma 4096 round to one timestep. diffusers looks the first step up by its timestep, takes the second of equal ones and fails
  at the end with an IndexError (`dpmpp_2m_karras` at 30 steps); here the first step is step 0.

Images of these combinations have other keys than before, with `noise schedule 2` among what they were drawn with; all other keys are as they were.

## What is offered

Mean, spread after 50 steps (`lcm`: 8, with a consistency function). A base with epsilon and leading spacing; one with v-prediction, trailing spacing and zero terminal SNR; a flow base, shift 3.

| sampler | class | epsilon | zero-SNR v | flow |
|---|---|---|---|---|
{offered}
"""


def main() -> None:
    """Print the page."""
    import diffusers

    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    rows = []
    for one in combinations():
        few, many = measure(one)
        rows.append(f"| {one.name} | {one.shown} | {few} | {many} | {verdict(many)} | {one.here} |")
    print(
        PAGE.format(
            mean=number(MEAN),
            spread=number(SPREAD),
            version=diffusers.__version__,
            few=STEPS[0],
            many=STEPS[1],
            wrong="\n".join(rows),
            offered="\n".join(offered()),
        ),
        end="",
    )


if __name__ == "__main__":
    main()
