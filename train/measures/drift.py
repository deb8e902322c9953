"""Drift: how the loss of generic captions, which the set has not, rises above the base's.

The captions' latents are drawn once by the base itself in a few steps, and kept in the cache: no images are needed, and where the adapter
answers such a prompt as the base does, the loss stays what it was.
"""

# C channels, H W latent size

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import fsum
from typing import TYPE_CHECKING, Any

from registry.errors import Faults
from registry.formats.hashing import value_sha256
from registry.parts import Conditioning
from registry.progress import Report
from train.config import TrainConfig
from train.data.captions import has_trigger
from train.loop.cache import Cache
from train.loop.encode import Latents, Prompts, Texts
from train.loop.preview import denoised, encoded
from train.loop.probes import Found, means
from train.loop.step import TrainState
from train.loop.validation import Difference, Probe, difference
from train.lora import adapter_disabled

if TYPE_CHECKING:
    from torch import Tensor

    from registry.family import Family

VERSION = 1  # of how they are drawn; other latents need another number
GENERIC = ("a horse", "a cup of coffee", "a bus", "a guitar")  # plain words that every base knows
STEPS = 8  # of drawing, at most
POINTS = 2  # timesteps at which each is measured
LARGE = 0.5  # of the gain on held-out images: a rise above it is large
LARGE_SHARE = 0.1  # of the base's loss: a rise above it is large where the gain is in another unit


def generic_prompts(config: TrainConfig, prompts: Iterable[str], triggers: Sequence[str]) -> list[str]:
    """heldout.generic, by default those of GENERIC that are no prompt of the set and have no trigger; none where no previews are drawn."""
    if config.heldout.generic is not None:
        return list(config.heldout.generic)
    if config.preview.prompts == []:
        return []
    own = {prompt.lower() for prompt in prompts}
    return [text for text in GENERIC if text not in own and not any(has_trigger(text, word) for word in triggers)]


def check_generic(config: TrainConfig, triggers: Sequence[str]) -> None:
    """Raise Faults for generic captions that have the trigger: they are what is trained."""
    held = [f"{text!r} has the trigger {word!r}" for text in config.heldout.generic or () for word in triggers if has_trigger(text, word)]
    if held:
        raise Faults("heldout.generic is for captions that are not trained. Leave the trigger out:", held)


def drawn_prompts(config: TrainConfig, heldout: int) -> list[str]:
    """The generic captions that are drawn and measured: none without held-out images."""
    return list(config.heldout.generic or ()) if heldout else []


def draw_steps(config: TrainConfig) -> int:
    """Sampling steps of each."""
    return min(STEPS, config.preview.steps or STEPS)


@dataclass(frozen=True)
class DriftProbe:
    """The generic captions on the base's own latents."""

    generic: Probe

    def measure(self, state: TrainState, *, model: Any, found: Found) -> dict[str, Any]:
        """Mean losses: {"generic": [...]}, one a caption."""
        return {"generic": means(self.generic.table(state, model=model))}


def drift_probe(
    state: TrainState, texts: Texts | Prompts, unconditional: Conditioning | None, *, base: str | None, cache: Cache, report: Report
) -> DriftProbe:
    """The captions of heldout.generic with their latents, from the cache or drawn. `base`: sha256 of the base; None: not kept."""
    prompts = list(state.config.heldout.generic or ())
    keys = [value_sha256(_known(state, prompt, number, base)) for number, prompt in enumerate(prompts)]
    rows = [None if base is None else cache.get(key) for key in keys]
    missing = [number for number, row in enumerate(rows) if row is None]
    if missing:
        drawn = _draw(state, texts, unconditional, missing, report)
        for number, mean in zip(missing, drawn, strict=True):
            rows[number] = {"mean": mean}
            if base is not None:
                cache.put(keys[number], {"mean": mean})
    kept = [row for row in rows if row is not None]
    shapes = tuple(tuple(row["mean"].shape[1:]) for row in kept)
    latents = Latents(kept, tuple(range(len(kept))), shapes)
    own = [value_sha256({"generic": prompt}) for prompt in prompts]
    return DriftProbe(Probe(latents=latents, texts=texts, sha256s=own, names=prompts, points=POINTS))


def _draw(
    state: TrainState, texts: Texts | Prompts, unconditional: Conditioning | None, places: Sequence[int], report: Report
) -> list[Tensor]:
    """Latents (1, C, H, W) of these captions, fp32 on the CPU, drawn without the adapter."""
    import torch

    guidance = float(state.config.preview.guidance or 0.0)
    with state.evaluating(), adapter_disabled(state.modules), torch.no_grad():
        found = denoised(
            state,
            [encoded(state, texts, place) for place in places],
            _no_prompt(state.family, state, unconditional),
            guidance=guidance,
            steps=draw_steps(state.config),
            seeds=[place + 1 for place in places],
            side=min(state.config.sides),
            report=report,
        )
    return [latents.detach().float().cpu().contiguous() for latents in found]


def _no_prompt(family: Family, state: TrainState, unconditional: Conditioning | None) -> Conditioning | None:
    """The conditioning of no prompt, encoded anew by text encoders that are trained."""
    if unconditional is None or not state.parts.text_encoders:
        return unconditional
    return family.encode_unconditional(state.parts, 1)


def _known(state: TrainState, prompt: str, number: int, base: str | None) -> dict[str, Any]:
    """All that a caption's latents depend on."""
    config, family, parts = state.config, state.family, state.parts
    drawn = {"steps": draw_steps(config), "guidance": config.preview.guidance, "side": min(config.sides), "seed": number + 1}
    read = {"clip_skip": config.clip_skip, "prompt_chunks": parts.prompt_chunks, "scheduler": repr(sorted(parts.scheduler_config.items()))}
    model = {"base": base, "family": family.name, "encoding": family.encoding_version, "prediction": parts.prediction}
    where = {"dtype": str(parts.dtype), "device": state.device.type}
    return {"kind": "generic", "version": VERSION, "prompt": prompt, **model, **drawn, **read, **where}


@dataclass(frozen=True)
class Drift:
    """The rise of the loss of generic captions above the base's, and what was gained on held-out images."""

    now: Difference
    base: float
    gain: float | None  # None: the held-out loss is that of pairs, which is in another unit

    @property
    def share(self) -> float:
        """Of the base's loss."""
        return self.now.mean / self.base

    @property
    def is_large(self) -> bool:
        """Whether it is worse than the base beyond chance, and by more than half of what was gained."""
        limit = LARGE_SHARE * self.base if self.gain is None else LARGE * max(self.gain, 0.0)
        return self.now.verdict == "worse" and self.now.mean > limit

    def sentence(self) -> str:
        """With its interval, and what to do where it is large."""
        low, high = self.now.low, self.now.high
        span = "" if low is None or high is None else f" (95% interval {low / self.base:+.1%} .. {high / self.base:+.1%})"
        whose = "reference" if self.gain is None else "base"
        text = f"drift {self.share:+.1%}: so much higher is the loss of generic captions than the {whose}'s{span}"
        if not self.is_large:
            return text
        if self.gain is None:
            return f"{text}, which is large: what was not voted on changes too. Fewer steps, a lower optim.lr or a larger beta keep more"
        return (
            f"{text}, which is large beside the gain of {self.gain:.4f}: what was not trained changes too. Fewer steps, a lower optim.lr or"
            " lora.rank, regularisation images (prior in data.sets) or objective.preserve_class keep more of the base"
        )


def drift_of(before: Mapping[str, Any], after: Mapping[str, Any]) -> Drift | None:
    """The drift by a measurement of the base and a later one; None where it was not measured."""
    if not before.get("generic") or len(after.get("generic", ())) != len(before["generic"]):
        return None
    gain = None if "margins" in after else _mean(before["losses"]) - _mean(after["losses"])
    return Drift(difference(after["generic"], before["generic"]), _mean(before["generic"]), gain)


def drift_json(found: Drift | None) -> dict[str, Any] | None:
    """`drift` of the verdict in result.json: shares of the base's loss."""
    if found is None:
        return None
    low, high = (None if end is None else end / found.base for end in (found.now.low, found.now.high))
    return {"share": found.share, "low": low, "high": high, "large": found.is_large}


def _mean(values: Sequence[float]) -> float:
    return fsum(values) / len(values)
