"""The order that cells are drawn in: what is costly to change (base, ControlNets, adapters) changes as rarely as can be."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

from infer.draw.render import Render


def loading(render: Render) -> tuple[Hashable, ...]:
    """What a model is loaded by: Renders with an equal one share a load."""
    kept = (render.precision, render.base_dtype, render.text_encoder_dtype, render.compute)
    return (render.base_sha256, render.base_config_sha256, render.prediction, *kept, render.device)


def added(render: Render) -> tuple[Hashable, ...]:
    """The ControlNets and adapters that a Render adds to its base."""
    return (*(one.sha256 for one in render.steering), None, *(one.sha256 for one in render.active))


def in_order(renders: Sequence[Render]) -> list[Render]:
    """The Renders in the order with the fewest changes of base, ControlNets, adapters, weights, embeddings and VAE; else as given."""
    levels: list[Callable[[Render], Hashable]] = [
        loading,
        lambda render: tuple(one.sha256 for one in render.steering),
        lambda render: tuple(one.sha256 for one in render.active),
        lambda render: tuple((one.weight, one.text_weight, one.start, one.end) for one in render.active),
        lambda render: render.embeddings,
        lambda render: render.vae_sha256,
    ]
    first: list[dict[Hashable, int]] = [{} for _ in levels]
    for render in renders:
        for seen, level in zip(first, levels, strict=True):
            seen.setdefault(level(render), len(seen))
    return sorted(renders, key=lambda render: tuple(seen[level(render)] for seen, level in zip(first, levels, strict=True)))


def grouped(renders: Sequence[Render], level: Callable[[Render], Hashable]) -> dict[Hashable, list[int]]:
    """The places of the Renders by what `level` gives, in the order of their first ones."""
    groups: dict[Hashable, list[int]] = {}
    for place, render in enumerate(renders):
        groups.setdefault(level(render), []).append(place)
    return groups
