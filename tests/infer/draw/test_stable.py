"""What finished images carry stays readable and keeps its keys: renders.json was written once and is never written again.

A key that changes would draw every stored cell again; `parameters` is what A1111, ComfyUI and Civitai read.
"""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infer.draw.render import Render, _digest
from infer.output.gallery import spell_details, spell_settings
from infer.output.infotext import ModelNames, infotext

WRITTEN: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "renders.json").read_text(encoding="utf-8"))
NAMES = ModelNames(
    base="pocket",
    scheduler="DDIMScheduler",
    adapters={"ink": ("ink:v1", "123456789abc"), "hat": ("hat", "")},
    controls={"canny": ("canny", "abcd1234"), "depth": ("depth", "")},
    embeddings={"badhands": "badhands"},
)


@pytest.mark.parametrize("name", WRITTEN)
def test_a_stored_render_keeps_its_keys(name: str) -> None:
    render = Render.from_json(WRITTEN[name]["render"])
    if render.init or render.steering:  # these keys changed once, with the decoding of images: the rest of what is pinned is as it was
        written = WRITTEN[name]["key"]
        assert render.key() != written and _digest({key: value for key, value in render.pinned().items() if key != "decoding"}) == written
        return
    assert render.key() == WRITTEN[name]["key"]
    assert render.latents_key() == WRITTEN[name]["latents_key"]


@pytest.mark.parametrize("name", WRITTEN)
def test_a_stored_render_is_written_back_under_the_same_json_keys(name: str) -> None:
    again = json.loads(json.dumps(Render.from_json(WRITTEN[name]["render"]).to_json()))
    assert {key: value for key, value in again.items() if key in WRITTEN[name]["render"]} == WRITTEN[name]["render"]
    plain = json.loads(json.dumps(Render(base="a base").to_json()))
    assert all(value == plain[key] for key, value in again.items() if key not in WRITTEN[name]["render"]), (
        "a later setting is at its default"
    )


@pytest.mark.parametrize("name", WRITTEN)
def test_a_stored_render_has_the_same_parameters_text(name: str) -> None:
    render = Render.from_json(WRITTEN[name]["render"])
    names = replace(NAMES, vae="soft" if render.vae else None, embedded_guidance=name == "unguided")
    # its readers skip layers on both sides, and the image is drawn with the prompt's alone
    written = re.sub(r"(?<=, )Clip skip: (\d)", lambda skip: f"Prompt clip skip: {int(skip[1]) - 1}", WRITTEN[name]["parameters"])
    assert infotext(render, names, version="LoRA Loom 1") == written


@pytest.mark.parametrize("name", WRITTEN)
def test_a_stored_render_has_the_same_settings_in_a_report(name: str) -> None:
    render = Render.from_json(WRITTEN[name]["render"])
    settings = spell_settings(render, base="pocket", scheduler="DDIMScheduler")
    assert list(settings.items()) == list(WRITTEN[name]["settings"].items())
    assert spell_details(render) == WRITTEN[name]["details"]
