"""Which Renders can share forwards, and how far an image that did is from the one that is drawn alone."""

from __future__ import annotations

from collections.abc import Hashable

from infer.draw.render import Render
from infer.draw.resolve import Resolver

# Largest difference of 255 between an image of shared forwards and the same one drawn alone, by precision: sums in another order
# differ in the last bits, and those grow with the steps. Measured in bench/grid.
TOLERANCE = {"fp32": 2, "bf16": 64, "fp16": 24}


def why_alone(render: Render, resolver: Resolver) -> str | None:
    """Why a resolved Render is drawn alone; None: it can share forwards with others."""
    if render.steering:
        return "ControlNets steer them"
    if render.hires:
        return "a second pass follows the first one"
    if render.swap_blocks:
        return "their blocks are swapped"
    if any(one.is_ranged and not resolver.is_beside(one.reference) for one in render.active):
        return "an adapter that is added to the weights acts on a part of their steps"
    return None


def kind_of(render: Render, resolver: Resolver) -> Hashable:
    """Renders of one base with an equal one can share forwards: the size, and what adapters have done to the weights themselves."""
    changes = tuple((one.sha256, one.weight, one.text_weight) for one in render.active if not resolver.is_beside(one.reference))
    return (changes, render.width, render.height, render.prompt_chunks)
