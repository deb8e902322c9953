"""The names and short hashes of what an image was drawn with, as A1111's text has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from infer.draw.render import Render
from infer.draw.resolve import Resolver
from infer.output.infotext import ModelNames


def model_names(resolver: Resolver, render: Render) -> ModelNames:
    """The names and short hashes of a resolved Render's files, for its `parameters` text."""
    base = resolver.base(render)
    adapters: Mapping[str, Any] = {one.reference: resolver.adapter(one.reference) for one in render.every_adapter}
    nets = {one.reference: resolver.controlnet(one.reference) for one in render.controls}
    embeddings = {one.reference: resolver.embedding(one.reference).record.name for one in render.embeddings}
    vae = resolver.vae(render.vae).record.name if render.vae is not None else None
    return ModelNames(
        vae=vae,
        embeddings=embeddings,
        base=base.record.name,
        scheduler=base.facts.scheduler_class,
        adapters={reference: (found.record.name, found.short_hash) for reference, found in adapters.items()},
        controls={
            one.reference: (nets[one.reference].record.name, nets[one.reference].record.hashes.autov1 or "") for one in render.controls
        },
        embedded_guidance=not base.facts.classifier_free,
        blocks=resolver.blocks(base)[0] if any(one.blocks for one in render.every_adapter) else (),
    )
