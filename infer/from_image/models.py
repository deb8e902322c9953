"""The base, LoRAs, embeddings, VAE and ControlNets, found among what is registered."""

from __future__ import annotations

from typing import Any

from infer.draw.files import Adapter
from infer.draw.values import number
from infer.from_image.taking import Taking
from infer.metadata.models import FoundModel
from infer.metadata.result import LoraName
from registry.references import split_joined


def take_base(taking: Taking) -> None:
    if "base" in taking.given:
        return
    if taking.metadata.model is None:
        taking.faults.append("The image names no model. Give base=NAME.")
    elif (found := taking.find("model", taking.metadata.model)).reference is not None:
        taking.settings["base"] = found.reference


def take_networks(taking: Taking) -> None:
    found = taking.metadata
    if "adapters" in taking.given:
        taking.unread += found.unread_loras
    else:
        taking.faults += [f"The image's LoRA {one.value}: {one.why}. Or give adapters=..., or adapters=none." for one in found.unread_loras]
        adapters = [_adapter(taking.find("LoRA", one), one) for one in found.loras]
        taking.put("adapters", adapters_setting(adapters) if adapters else None)
    if "adapters" in taking.given and found.loras:
        taking.leave("LoRAs", ", ".join(map(str, found.loras)), "other adapters are given; always=NAME:1 keeps one in every cell")
    if "embeddings" not in taking.given:
        embeddings = [(taking.find("embedding", one), one) for one in found.embeddings]
        rows = [{"embedding": model.reference, "token": one.name} for model, one in embeddings]
        taking.put("embeddings", rows or None)


def take_vae(taking: Taking) -> None:
    if taking.metadata.vae is not None and "vae" not in taking.given:
        taking.put("vae", taking.find("VAE", taking.metadata.vae).reference)


def report_controls(taking: Taking) -> None:
    if "controls" in taking.given:
        return
    for one in taking.metadata.controls:
        module = f", {one.module}" if one.module not in (None, "none") else ""
        value = f"{one} at {number(one.scale)}, {number(one.start)} to {number(one.end)} of the steps{module}"
        taking.leave("ControlNet", value, "its image is not in the metadata: give controls=NET:IMAGE:SCALE")


def _adapter(model: FoundModel, one: LoraName) -> Adapter:
    return Adapter(
        reference=model.reference or "?",
        weight=one.weight,
        text_weight=one.text_weight,
        start=one.start,
        end=one.end,
        blocks=one.blocks,
    )


def adapters_setting(adapters: list[Adapter]) -> Any:
    """The adapters as a setting: "ink:0.6+hat" where that says all, else a list of records."""
    text = "+".join(map(str, adapters))
    plain = all(one.text_weight is None and not one.is_ranged and one.blocks is None and ":" not in one.reference for one in adapters)
    if plain and len(split_joined(text)) == len(adapters):
        return text
    rows = [
        {
            "adapter": one.reference,
            "weight": one.weight,
            "text_weight": one.text_weight,
            "start": one.start,
            "end": one.end,
            "blocks": one.blocks,
        }
        for one in adapters
    ]
    idle = {"text_weight": None, "start": 0.0, "end": 1.0, "blocks": None}
    return [{name: value for name, value in row.items() if name not in idle or value != idle[name]} for row in rows]
