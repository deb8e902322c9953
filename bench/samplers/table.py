"""docs/samplers.md: which schedulers of diffusers draw the data with a perfect denoiser, and which do not though nothing is said.

python -m bench.samplers.table > docs/samplers.md
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from bench.samplers.gaussian import BETAS, MEAN, SPREAD, sample
from infer.draw.samplers import SAMPLERS, build_scheduler, flow_samplers
from infer.draw.values import number

STEPS = (20, 100)
COUNT = 2000  # numbers: their mean is known to 0.007, their spread to 0.005
OFF = 0.08  # a mean or a spread further than this from the data's is wrong
FLOW: Mapping[str, Any] = {"prediction_type": "flow_prediction", "flow_shift": 3.0}
FLOW_SIGMAS: Mapping[str, Any] = {**FLOW, "use_flow_sigmas": True}
OFFERED_FLOW = ("DPMSolverMultistepScheduler", "UniPCMultistepScheduler")
VP_FLOW = (*OFFERED_FLOW, "DPMSolverSinglestepScheduler", "DEISMultistepScheduler", "SASolverScheduler")


@dataclass(frozen=True, kw_only=True)
class Combination:
    """A scheduler class of diffusers with options that it takes without a word."""

    name: str
    options: Mapping[str, Any]
    shown: str  # the options as the table shows them
    here: str
    prediction: str = "flow"
    zero_snr: bool = False


def combinations() -> Iterator[Combination]:
    """The combinations that are measured."""
    for name in VP_FLOW:
        here = "offered: `dpmpp_2m`, `unipc`" if name in OFFERED_FLOW else "not offered; `euler`, `dpmpp_2m`, `unipc` instead"
        yield Combination(name=name, options=FLOW_SIGMAS, shown="`use_flow_sigmas`, `flow_shift=3`", here=here)
    for name in VP_FLOW:
        yield Combination(name=name, options=FLOW, shown="`flow_prediction` without `use_flow_sigmas`", here="always with flow sigmas")
    for name in OFFERED_FLOW:
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
    yield Combination(
        name="DDIMScheduler",
        options={"rescale_betas_zero_snr": True, "timestep_spacing": "trailing", "clip_sample": False},
        shown="`rescale_betas_zero_snr` with epsilon",
        here="refused: 0 / 0 at the first step",
        prediction="epsilon",
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


def verdict(few: str, many: str) -> str:
    """right, off (only at the smaller number of steps, where others are right) or wrong."""
    if _is_off(many):
        return "**wrong**"
    return f"**off** at {STEPS[0]} steps" if _is_off(few) else "right"


def _is_off(shown: str) -> bool:
    if not shown[0].isdigit():
        return True
    mean, spread = map(float, shown.split(", "))
    return abs(mean - MEAN) > OFF or abs(spread - SPREAD) > OFF


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


def main() -> None:
    """Print the page."""
    import diffusers

    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    rows = []
    for one in combinations():
        few, many = measure(one)
        rows.append(f"| {one.name} | {one.shown} | {few} | {many} | {verdict(few, many)} | {one.here} |")
    print(
        (Path(__file__).parent / "page.md")
        .read_text(encoding="utf-8")
        .format(
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
