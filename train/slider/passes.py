"""Passes of another kind than plain denoising: what they need encoded, and the state that makes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from registry.parts import Conditioning, Parts
from registry.progress import Report
from train.choices import choose_objective
from train.loop.cache import Cache
from train.loop.encode import Texts, encode_texts
from train.loop.preview import encode_no_prompt, encode_unconditional
from train.loop.step import TrainState
from train.plan.plan import Plan
from train.run_types import Log
from train.slider.contrast import contrasted
from train.slider.run import SliderRun
from train.slider.scale import AdapterScale

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Encoded:
    """A slider's prompts, and the encoding of no prompt; None what the objective does not need."""

    texts: Texts | None
    unconditional: Conditioning | None


def encode_passes(plan: Plan, parts: Parts, *, device: torch.device, report: Report, out: Log) -> Encoded:
    """What the passes of this objective need of the text encoders."""
    family, config = plan.base.family, plan.config
    if plan.slider is None:
        return Encoded(None, encode_no_prompt(family, parts, device=device) if config.objective.contrast == "guidance" else None)
    cache = Cache("texts", note=out)
    texts = encode_texts(family, parts, plan.slider.prompts, device=device, clip_skip=config.clip_skip, cache=cache, report=report)
    return Encoded(texts, encode_unconditional(family, parts, guidance=drawing_guidance(plan), device=device))


def set_passes(plan: Plan, state: TrainState, encoded: Encoded) -> SliderRun | None:
    """Give the state the passes of its objective; the slider, where it is one."""
    choices = choose_objective(plan.config.objective, str(plan.config.objective.timesteps))
    if choices["contrast"].name != "none":
        state.make_pass = contrasted(state.make_pass, choices["contrast"], encoded.unconditional)
    if plan.slider is None or encoded.texts is None:
        return None
    slider = SliderRun(
        slider=plan.slider,
        texts=encoded.texts,
        unconditional=encoded.unconditional,
        guidance=drawing_guidance(plan),
        scale=AdapterScale(state.modules),
        drawn=plan.drawn,
        pairs=0 if plan.slider.by_text else len(plan.items) // 2,
    )
    state.make_pass, state.extras = slider.make_pass, [*state.extras, slider.opposite]
    if plan.config.gradient_checkpointing:
        slider.scale.recompute()
    return slider


def drawing_guidance(plan: Plan) -> float:
    """The guidance that a slider's images are drawn with."""
    return plan.few_step.kind.guidance if plan.few_step else plan.base.family.guidance
