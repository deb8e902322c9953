"""A second sampler behind an enlarged latent image, or behind an image that is decoded, enlarged and encoded again.

(ComfyUI, nodes.py: LatentUpscale, LatentUpscaleBy, ImageScale; comfy_extras: ImageScaleBy. A KSampler's `steps` are walked, of a schedule
of steps / denoise: comfy/samplers.py.)
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from infer.hires.upscalers import of_comfy
from infer.metadata.comfy.graph import DEEPEST, Graph, Link, Node
from infer.metadata.comfy.walk import Walk
from infer.metadata.result import SecondPass

LATENT, IMAGE = ("LatentUpscale", "LatentUpscaleBy"), ("ImageScale", "ImageScaleBy")
CODING = ("VAEDecode", "VAEDecodeTiled", "VAEEncode", "VAEEncodeTiled")
FOLLOWED = ("samples", "latent", "latent_image", "pixels", "image")
SHARED = ("model", "positive", "negative")
CELL = 8  # pixels of a latent cell in ComfyUI's nodes


@dataclass(frozen=True)
class Enlarged:
    """The one node between two samplers that enlarges."""

    node: Node
    upscaler: str


def second_pass(walk: Walk, last: Node, first: Node, size: tuple[int | None, int | None]) -> SecondPass | None:
    """The pass of the sampler `last` behind `first`, which draws `size`, without what its sampler has; None where it is of another kind.

    Why it is of another kind is reported.
    """
    between = _between(walk.graph, last, first)
    for name in SHARED:
        if name in last.inputs and not _same(walk.graph, last, first, name):
            walk.report(
                f"{last.label} {name}", _origin(walk.graph, last, name), "the second pass is drawn here with what the first one has"
            )
    found = [one for node in between if (one := _enlarging(walk, node)) is not None]
    other = [node for node in between if node.kind not in (*LATENT, *IMAGE, *CODING)]
    for node in other:
        walk.pass_by(node, "it is of a second pass of another kind")
    if len(found) != 1 or other:
        return None
    (one,) = found
    return _sized(walk, one, size)


def _between(graph: Graph, last: Node, first: Node) -> list[Node]:
    """The nodes from one sampler's latents back to the other."""
    found: list[Node] = []
    node = graph.source(last, "latent_image")
    for _ in range(DEEPEST):
        if node is None or node.id == first.id:
            break
        found.append(node)
        node = next((one for name in FOLLOWED if (one := graph.source(found[-1], name)) is not None), None)
    return found


def _origin(graph: Graph, node: Node, name: str) -> str:
    found = graph.source(node, name)
    return found.label if found is not None else "nothing"


def _same(graph: Graph, one: Node, other: Node, name: str) -> bool:
    mine, its = graph.source(one, name), graph.source(other, name)
    if mine is None or its is None:
        return mine is its
    links = one.inputs.get(name), other.inputs.get(name)
    return mine.id == its.id and all(isinstance(link, Link) for link in links)


def _enlarging(walk: Walk, node: Node) -> Enlarged | None:
    if node.kind not in (*LATENT, *IMAGE):
        return None
    method = walk.text(node, "upscale_method") or ""
    name = of_comfy(method, of_latents=node.kind in LATENT)
    if name is None:
        walk.report(f"{node.label} upscale_method", method, "there is no such upscaler here")
        return None
    return Enlarged(node, name)


def _sized(walk: Walk, one: Enlarged, size: tuple[int | None, int | None]) -> SecondPass | None:
    """The pass with its size: ComfyUI rounds the cells of a latent image, and the pixels of an image."""
    found, (wide, high) = SecondPass(upscaler=one.upscaler), size
    if "scale_by" in one.node.inputs:
        scale = walk.real(one.node, "scale_by")
        if not scale or not wide or not high:
            return None
        sides = [side * scale for side in (wide, high)]
        if all(side % CELL == 0 for side in sides):
            return replace(found, scale=scale)
        return replace(found, width=_rounded(sides[0]), height=_rounded(sides[1]))
    if walk.text(one.node, "crop") not in (None, "disabled"):
        walk.report(f"{one.node.label} crop", one.node.inputs["crop"], "nothing is cropped here")
    return replace(found, width=walk.whole(one.node, "width") or 0, height=walk.whole(one.node, "height") or 0)


def _rounded(side: float) -> int:
    return round(side / CELL) * CELL
