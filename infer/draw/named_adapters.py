"""The adapters that a prompt names by <lora:...>: moved from the text into the Render, so that the text encoder never reads them."""

from __future__ import annotations

from dataclasses import replace

from infer.draw.files import Adapter
from infer.draw.render import Render
from infer.prompt.dialect import A1111
from infer.prompt.networks import networks


def with_networks(render: Render) -> Render:
    """The Render with the adapters of its prompt's tags behind its own, in A1111's dialects; else unchanged. Raises Refused."""
    if render.prompt_dialect not in A1111:
        return render
    text, named = networks(render.prompt)
    if not named:
        return render
    adapters = [Adapter(reference=one.name, weight=one.weight, text_weight=one.text_weight, blocks=one.blocks) for one in named]
    return replace(render, prompt=text, adapters=(*render.adapters, *adapters))
