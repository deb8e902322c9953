"""The settings of a ComfyUI graph: what its image was made with, followed from the output."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Any

from infer.metadata.comfy.graph import DEEPEST, Graph, Node, api_graph
from infer.metadata.comfy.second_pass import second_pass
from infer.metadata.comfy.ui import ui_graph
from infer.metadata.comfy.walk import Walk, control_of
from infer.metadata.result import ControlName, ImageMetadata, LoraName, ModelName, bare_name

LEAST = 1e-9
TEXTS = ("text", "t5xxl", "text_g", "text_l", "clip_l", "prompt")  # inputs of the nodes that encode a text
EMBEDDING = re.compile(r"embedding:([^\s,()]{1,200})")


def read(value: Any, *, source: str) -> ImageMetadata | None:
    """The settings of a graph's JSON, `prompt` or `workflow`; None where it is none, or has no sampler."""
    graph = api_graph(value) or ui_graph(value)
    return None if graph is None else read_graph(graph, source=source)


@dataclass
class Sampled:
    """What a sampler is given by itself or by the nodes that a custom one is put together of."""

    seed: Node
    guider: Node  # has model, positive (or conditioning) and cfg
    sampler: Node | None
    sigmas: Node | None  # has scheduler, steps, denoise


def read_graph(graph: Graph, *, source: str) -> ImageMetadata | None:
    """The settings of a graph."""
    walk = Walk(graph)
    last = walk.sampler()
    if last is None:
        return None
    earlier, start, between = walk.latents(last)
    first = earlier[-1] if earlier else last
    given = _sampled(graph, first)
    model, on_model = walk.model(given.guider)
    positive = _conditioning(walk, given.guider, "positive" if "positive" in given.guider.inputs else "conditioning")
    negative = _conditioning(walk, given.guider, "negative")
    found = ImageMetadata(
        tool="ComfyUI",
        source=source,
        dialect="comfy",
        prompt=positive.text,
        negative=negative.text or None,
        seed=walk.whole(given.seed, "noise_seed" if "noise_seed" in given.seed.inputs else "seed"),
        steps=walk.whole(given.sigmas, "steps"),
        sampler=walk.text(given.sampler, "sampler_name"),
        schedule=_schedule(walk, given.sigmas),
        guidance=walk.real(given.guider, "cfg") if "cfg" in given.guider.inputs else 1.0,
        distilled=positive.distilled,
        clip_skip=positive.clip_skip,
        model=model,
        vae=_vae(walk, last),
        loras=_merged(on_model, positive.loras),
        controls=tuple(positive.controls),
        noise="CPU",
    )
    found = replace(found, **_size(walk, start), **_strength(walk, given.sigmas, first))
    found = replace(found, **_second(walk, last, earlier, found)) if earlier else found
    if found.second is None:
        for node in between:
            walk.pass_by(node, "it is of a second pass, which is not drawn here" if earlier else "this node is not drawn with here")
    _report_files(walk, positive.files)
    return replace(_with_embeddings(found), unread=tuple(walk.unread))


def _with_embeddings(found: ImageMetadata) -> ImageMetadata:
    """The settings with the textual inversion embeddings that the prompts name as embedding:NAME; the name alone is in the prompts then."""
    names = dict.fromkeys(name for text in (found.prompt, found.negative) if text for name in EMBEDDING.findall(text))
    prompt, negative = (EMBEDDING.sub(lambda match: bare_name(match[1]), text) if text else text for text in (found.prompt, found.negative))
    typed = found.prompt if prompt != found.prompt else None
    return replace(found, typed=typed, prompt=prompt, negative=negative, embeddings=tuple(ModelName(name=name) for name in names))


def _sampled(graph: Graph, node: Node) -> Sampled:
    def of(name: str, default: Node | None = None) -> Node | None:
        return graph.source(node, name) or default

    return Sampled(
        seed=of("noise") or node,
        guider=of("guider") or node,
        sampler=node if "sampler_name" in node.inputs else of("sampler"),
        sigmas=node if "steps" in node.inputs else of("sigmas"),
    )


def _schedule(walk: Walk, sigmas: Node | None) -> str | None:
    if sigmas is None:
        return None
    if "scheduler" in sigmas.inputs:
        return walk.text(sigmas, "scheduler")
    return sigmas.kind.removesuffix("Scheduler").lower()


def _strength(walk: Walk, sigmas: Node | None, first: Node) -> dict[str, Any]:
    """What of the noise levels is walked."""
    steps = walk.whole(sigmas, "steps")
    start, end = (walk.whole(first, name) for name in ("start_at_step", "end_at_step"))
    if (start or 0) > 0 or (end is not None and steps is not None and end < steps):
        walk.report(first.label, {"start_at_step": start, "end_at_step": end}, "a part of the steps is not drawn by itself here")
    denoise = walk.real(sigmas, "denoise")
    return {} if denoise is None or denoise >= 1 - LEAST else {"strength": denoise}


@dataclass
class Conditioned:
    """A prompt with what conditions it beside its text."""

    text: str | None = None
    distilled: float | None = None
    clip_skip: int | None = None
    loras: list[tuple[str, LoraName]] = field(default_factory=list)
    controls: list[ControlName] = field(default_factory=list)
    files: list[str] = field(default_factory=list)  # of text encoders


def _conditioning(walk: Walk, node: Node, name: str) -> Conditioned:
    found = Conditioned()
    one = walk.graph.source(node, name)
    for _ in range(DEEPEST):
        if one is None or _encoded(walk, one, found):
            return found
        one = _before(walk, one, found, name)
    return found


def _encoded(walk: Walk, node: Node, found: Conditioned) -> bool:
    """Whether a node encodes a text; what it encodes is kept."""
    if "clip" not in node.inputs:
        return False
    texts = {key: text for key in TEXTS if (text := walk.text(node, key)) is not None}
    if not texts:
        return False
    key = next(iter(texts))
    found.text = texts[key]
    for other, text in texts.items():
        if text != found.text:
            walk.report(f"{node.label} {other}", text, f"one text for all text encoders is drawn with here, that of {key}")
    if found.distilled is None:
        found.distilled = walk.real(node, "guidance")
    found.clip_skip, found.loras, found.files = walk.clip(node)
    return True


def _before(walk: Walk, node: Node, found: Conditioned, name: str) -> Node | None:
    """The node before one that changes a conditioning; what it does is kept or reported."""
    if "control_net" in node.inputs:
        if name != "negative":  # both of them go through the same node
            found.controls.insert(0, control_of(walk, node))
        return walk.graph.source(node, name) or walk.graph.source(node, "positive") or walk.graph.source(node, "conditioning")
    if node.kind == "FluxGuidance":
        found.distilled = walk.real(node, "guidance") if found.distilled is None else found.distilled
    elif node.kind == "ConditioningZeroOut":
        if name == "negative":
            return None
        walk.pass_by(node)
    else:
        walk.pass_by(node)
    follow = (name, "conditioning", "conditioning_1", "conditioning_to", "positive")
    return next((one for key in follow if (one := walk.graph.source(node, key)) is not None), None)


def _merged(on_model: list[tuple[str, LoraName]], on_clip: list[tuple[str, LoraName]]) -> tuple[LoraName, ...]:
    """The LoRAs in the order in which they are loaded, each with its weight on the denoiser and on the text encoders."""
    clip = dict(on_clip)
    found = {key: replace(one, text_weight=clip[key].weight if key in clip else 0.0) for key, one in reversed(on_model)}
    for key, one in clip.items():
        found.setdefault(key, replace(one, weight=0.0, text_weight=one.weight))
    return tuple(replace(one, text_weight=None) if one.text_weight == one.weight else one for one in found.values())


def _vae(walk: Walk, last: Node) -> ModelName | None:
    """The VAE that decodes, where it is loaded by itself."""
    for node in walk.graph.nodes.values():
        if "vae" in node.inputs and "samples" in node.inputs:
            behind = walk.graph.source(node, "samples")
            loader = walk.graph.source(node, "vae")
            if behind is not None and behind.id == last.id and loader is not None and "vae_name" in loader.inputs:
                return ModelName(name=walk.text(loader, "vae_name"))
    return None


def _second(walk: Walk, last: Node, earlier: list[Node], found: ImageMetadata) -> dict[str, Any]:
    """The second pass: as it can be drawn, or the settings of the samplers behind the first one."""
    one = second_pass(walk, last, earlier[0], (found.width, found.height)) if len(earlier) == 1 and found.init is None else None
    if one is None:
        return {
            "hires": {node.label: ", ".join(f"{name} {value}" for name, value in node.values().items()) for node in [last, *earlier][:-1]}
        }
    given = _sampled(walk.graph, last)
    strength = _strength(walk, given.sigmas, last).get("strength", 1.0)
    own = replace(
        one,
        steps=walk.whole(given.sigmas, "steps"),
        strength=strength,
        sampler=walk.text(given.sampler, "sampler_name"),
        schedule=_schedule(walk, given.sigmas),
        guidance=walk.real(given.guider, "cfg") if "cfg" in given.guider.inputs else 1.0,
        seed=walk.whole(given.seed, "noise_seed" if "noise_seed" in given.seed.inputs else "seed"),
    )
    same = {name: None for name in ("steps", "guidance", "seed") if getattr(own, name) == getattr(found, name)}
    if (own.sampler, own.schedule) == (found.sampler, found.schedule):
        same |= {"sampler": None, "schedule": None}
    return {"second": replace(own, **same)}


def _size(walk: Walk, start: Node | None) -> dict[str, Any]:
    """Size, and the image that is redrawn."""
    if start is None:
        return {}
    if "width" in start.inputs and "height" in start.inputs:
        if (walk.whole(start, "batch_size") or 1) > 1:
            walk.report(f"{start.label} batch_size", start.inputs["batch_size"], "which image of them this is, is not stated: the first")
        return {"width": walk.whole(start, "width"), "height": walk.whole(start, "height")}
    image = walk.graph.source(start, "pixels") or walk.graph.source(start, "image") or start
    name = image.inputs.get("image")
    return {"init": name if isinstance(name, str) else image.label}


def _report_files(walk: Walk, files: list[str]) -> None:
    """Text encoders in files of their own: here they are part of the base."""
    for name in files:
        walk.report("text encoder", name, "the base's own text encoders are drawn with here")
