"""The second pass, and the image that was redrawn."""

from __future__ import annotations

from dataclasses import asdict

from infer.from_image.taking import COMFY, Taking
from infer.hires.of_metadata import Sampling, hires_of
from infer.metadata.result import SecondPass
from registry.errors import Refused


def take_passes(taking: Taking) -> None:
    """The second pass, and the image that was redrawn."""
    found = taking.metadata
    for name, value in found.hires.items():
        taking.leave(name, value, "a second pass of this kind is not drawn here: the first one is")
    if found.second is not None and "hires" not in taking.given:
        _take_second_pass(taking, found.second)
    if found.strength is None:
        return
    if taking.config.init is not None or taking.config.axes.init is not None:
        taking.put("strength", found.strength)
    else:
        what = found.init or "an image"
        taking.leave("Denoising strength", found.strength, f"{what} was redrawn and is not in the metadata: give init=FILE")


def _take_second_pass(taking: Taking, second: SecondPass) -> None:
    found, family = taking.metadata, taking.family
    size = (found.width, found.height) if found.width and found.height else None
    try:
        hires = hires_of(
            second,
            size if "size" not in taking.given else None,
            multiple=8 if family is None else family.size_multiple,
            sampling=Sampling(sampler=found.sampler, schedule=found.schedule, flow=taking.is_flow, comfy=found.tool in COMFY),
        )
    except Refused as error:
        stated = {name: value for name, value in asdict(second).items() if value is not None}
        taking.leave("second pass", stated, f"the first pass alone is drawn: {error} Or give hires={{...}}")
        return
    taking.put("hires", hires.to_record())
