"""The graph as ComfyUI's page holds it: values by place instead of by name, links in a list, nodes that are muted or bypassed.

(ComfyUI_frontend, the workflow JSON of versions 0.4 and 1; the widgets' order is that of each node's INPUT_TYPES.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from infer.metadata.comfy.graph import DEEPEST, MOST_NODES, Graph, Link, Node
from infer.metadata.comfy.group_nodes import group_nodes_of
from infer.metadata.comfy.subgraphs import BYPASSED, MUTED, Flat, flattened, slots_of, subgraphs_of

FIXED = ("fixed", "increment", "decrement", "randomize")  # of the widget behind a seed
ADVANCED = "add_noise noise_seed steps cfg sampler_name scheduler start_at_step end_at_step return_with_leftover_noise"

# the widgets of a node in their order, without the one behind a seed
WIDGETS = {
    "KSampler": "seed steps cfg sampler_name scheduler denoise",
    "KSamplerAdvanced": ADVANCED,
    "SamplerCustom": "add_noise noise_seed cfg",
    "RandomNoise": "noise_seed",
    "BasicScheduler": "scheduler steps denoise",
    "KarrasScheduler": "steps sigma_max sigma_min rho",
    "ExponentialScheduler": "steps sigma_max sigma_min",
    "KSamplerSelect": "sampler_name",
    "CFGGuider": "cfg",
    "FluxGuidance": "guidance",
    "CheckpointLoaderSimple": "ckpt_name",
    "UNETLoader": "unet_name weight_dtype",
    "UnetLoaderGGUF": "unet_name",
    "VAELoader": "vae_name",
    "CLIPLoader": "clip_name type device",
    "DualCLIPLoader": "clip_name1 clip_name2 type device",
    "TripleCLIPLoader": "clip_name1 clip_name2 clip_name3",
    "LoraLoader": "lora_name strength_model strength_clip",
    "LoraLoaderModelOnly": "lora_name strength_model",
    "CLIPSetLastLayer": "stop_at_clip_layer",
    "CLIPTextEncode": "text",
    "CLIPTextEncodeSDXL": "width height crop_w crop_h target_width target_height text_g text_l",
    "CLIPTextEncodeFlux": "clip_l t5xxl guidance",
    "EmptyLatentImage": "width height batch_size",
    "EmptySD3LatentImage": "width height batch_size",
    "LatentUpscale": "upscale_method width height crop",
    "LatentUpscaleBy": "upscale_method scale_by",
    "ImageScale": "upscale_method width height crop",
    "ImageScaleBy": "upscale_method scale_by",
    "ControlNetLoader": "control_net_name",
    "ControlNetApply": "strength",
    "ControlNetApplyAdvanced": "strength start_percent end_percent",
    "LoadImage": "image",
    "ModelSamplingSD3": "shift",
    "ModelSamplingFlux": "max_shift base_shift width height",
    **dict.fromkeys(
        ("PrimitiveNode", "PrimitiveInt", "PrimitiveFloat", "PrimitiveBoolean", "PrimitiveString", "PrimitiveStringMultiline"), "value"
    ),
    "StringConcatenate": "string_a string_b delimiter",
}


def ui_graph(value: Any) -> Graph | None:
    """The graph of a workflow, its subgraphs and group nodes expanded; None of anything else."""
    if not isinstance(value, Mapping) or not isinstance(value.get("nodes"), list) or len(value["nodes"]) > MOST_NODES:
        return None
    flat = flattened(value, {**group_nodes_of(value), **subgraphs_of(value)})
    kept = {name: node for name, node in flat.nodes.items() if node.get("mode") not in (MUTED, BYPASSED)}
    return Graph({name: Node(name, node["type"], _inputs(name, node, flat)) for name, node in kept.items()}) if kept else None


def _inputs(name: str, node: Mapping[str, Any], flat: Flat) -> dict[str, Any]:
    """The widgets' values, over them those that an outer node gives, and what is linked."""
    found = _widgets(node) | flat.given.get(name, {})
    for one in slots_of(node):
        if isinstance(one.get("name"), str) and (link := _origin(one.get("link"), flat.nodes, flat.links)) is not None:
            found[one["name"]] = link
    return found


def _origin(number: Any, nodes: Mapping[str, Any], links: Mapping[Any, tuple[str, int]]) -> Link | None:
    """The output that a link comes from, through nodes that are bypassed: their output is the input of its type."""
    for _ in range(DEEPEST):
        if type(number) is not int or number not in links:
            return None
        name, slot = links[number]
        node = nodes.get(name)
        if node is None or node.get("mode") == MUTED:
            return None
        if node.get("mode") != BYPASSED:
            return Link(name, slot)
        outputs = node.get("outputs")
        out = outputs[slot] if isinstance(outputs, list) and 0 <= slot < len(outputs) else None
        kind = out.get("type") if isinstance(out, Mapping) else None
        number = next((one["link"] for one in slots_of(node) if one.get("type") == kind and type(one.get("link")) is int), None)
    return None


def _widgets(node: Mapping[str, Any]) -> dict[str, Any]:
    """Name -> value of a node's widgets; the newest pages write the names beside the values."""
    named = node.get("widgets_values_named")
    if isinstance(named, Mapping):
        return {str(name): value for name, value in named.items() if value is not None}
    values = node.get("widgets_values")
    if isinstance(values, Mapping):
        return {str(name): value for name, value in values.items()}
    if not isinstance(values, list):
        return {}
    if node["type"] in WIDGETS:
        names = WIDGETS[node["type"]].split()
    else:  # newer pages list the widgets among the inputs
        names = [one["name"] for one in slots_of(node) if isinstance(one.get("widget"), Mapping) and isinstance(one.get("name"), str)]
    found: dict[str, Any] = {}
    places = iter(values)
    value = next(places, None)
    for name in names:
        found[name] = value
        value = next(places, None)
        if name in ("seed", "noise_seed") and value in FIXED:
            value = next(places, None)
    return {name: value for name, value in found.items() if value is not None}
