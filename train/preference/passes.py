"""Learning from votes in a run: rejected images encoded, the state given its passes, the held-out measures made those of pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from registry.parts import Parts
from registry.progress import Report
from train.data.items import Item
from train.loop.cache import Cache
from train.loop.encode import Latents, encode_latents
from train.loop.probes import Probes
from train.loop.step import TrainState
from train.loop.validation import Probe
from train.measures.delta_norm import DeltaNorm
from train.measures.images import probed_images
from train.plan.plan import Plan
from train.preference.dataset import rejected_items
from train.preference.probe import PairMeasure, PairProbe
from train.preference.run import PreferenceRun, Reference
from train.run_types import Log

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class RejectedLatents:
    """The rejected images of the pairs that are trained on, and of the held-out ones."""

    trained: Latents
    heldout: Latents | None


def encode_rejected(plan: Plan, parts: Parts, *, device: torch.device, report: Report, out: Log) -> RejectedLatents | None:
    """The rejected images through the cache; None for a run that does not learn from votes."""
    if plan.preference is None:
        return None

    def encoded(items: Sequence[Item]) -> Latents:
        return encode_latents(
            plan.base.family,
            parts,
            rejected_items(items),
            device=device,
            cache=Cache("latents", note=out),
            report=report,
            in_memory=not plan.streams,
        )

    return RejectedLatents(encoded(plan.items), encoded(plan.heldout_items) if plan.heldout else None)


def set_preference(plan: Plan, state: TrainState, rejected: RejectedLatents | None) -> PreferenceRun | None:
    """Give the state the passes, the losses and the baseline of learning from votes; None where it does not."""
    if plan.preference is None or rejected is None:
        return None
    continued = plan.start is not None and plan.preference.reference == "start"
    began = [weight.detach().clone() for _, weight in state.weights] if continued else None
    run = PreferenceRun(preference=plan.preference, rejected=rejected.trained, reference=Reference(state=state, began=began))
    state.make_pass, state.pass_losses, state.as_began = run.make_pass, run.losses, run.reference.active
    return run


def with_pairs(plan: Plan, probes: Probes, run: PreferenceRun, rejected: RejectedLatents) -> Probes:
    """The measures of images as those of pairs. Captions are not exchanged: a pair is of one prompt."""
    assert rejected.heldout is not None
    first = {item.image: number for number, item in reversed(list(enumerate(plan.items)))}
    trained = rejected.trained.of([first[image] for image in probed_images(plan.train)])
    heldout = _pairs(probes.heldout, rejected.heldout, run)
    return replace(
        probes,
        heldout=heldout,
        trained=_pairs(probes.trained, trained, run),
        captions=None,
        beside=(*[one for one in probes.beside if isinstance(one, DeltaNorm)], PairMeasure(heldout)),
        seldom=(),
        image_names=(),
    )


def _pairs(probe: Probe, rejected: Latents, run: PreferenceRun) -> PairProbe:
    return PairProbe(
        latents=probe.latents,
        texts=probe.texts,
        sha256s=probe.sha256s,
        names=probe.names,
        points=probe.points,
        rejected=rejected,
        preference=run.preference,
        reference=run.reference,
    )
