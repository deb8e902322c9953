"""An image that was drawn here: all its settings, its files found by their sha256."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from enum import Enum
from typing import Any

from infer.draw.files import Adapter
from infer.draw.render import SETTINGS
from infer.draw.setting import Setting
from infer.from_image.models import adapters_setting
from infer.from_image.taking import Taking
from registry.home import expanded


def take_render(taking: Taking) -> None:
    """All settings of an image that was drawn here; its files are found by their sha256."""
    render = taking.metadata.render
    assert render is not None
    for one in (one for one in SETTINGS.values() if one.help and one.name not in taking.given):
        value = one.value(render)
        if one.name == "base" or value == one.value(type(render)(base=render.base)):
            continue
        if (kept := _plain(taking, one, value)) is not None:
            taking.settings[one.name] = kept
    taking.settings.pop("upsample", None)  # the prompt is the text that came of it


def _plain(taking: Taking, one: Setting, value: Any) -> Any:
    """A setting of a Render as a config has it."""
    spell = PLAIN_VALUES.get(one.name)
    if spell is not None:
        return spell(taking, value)
    if isinstance(one.scalar, type) and issubclass(one.scalar, Enum):
        return one.scalar[value]
    return value


def _render_adapters(taking: Taking, adapters: tuple[Adapter, ...]) -> Any:
    names = {one.digits: one for one in taking.metadata.loras}
    found = [replace(one, reference=taking.find("LoRA", names[one.sha256]).reference or "?", sha256=None) for one in adapters]
    return adapters_setting(found) if found else None


def _render_controls(taking: Taking, controls: tuple[Any, ...]) -> Any:
    names = {one.digits: one for one in taking.metadata.controls}
    return [
        {
            "net": taking.find("ControlNet", names[one.sha256]).reference,
            "image": one.picture.path,
            "scale": one.scale,
            "start": one.start,
            "end": one.end,
            **({"mode": one.mode} if one.mode is not None else {}),
            **({"prepare": replace(one.prepare, sha256=None).to_json()} if one.prepare is not None else {}),
        }
        for one in controls
    ]


def _render_embeddings(taking: Taking, embeddings: tuple[Any, ...]) -> Any:
    names = {one.digits: one for one in taking.metadata.embeddings}
    return [{"embedding": taking.find("embedding", names[one.sha256]).reference, "token": one.token} for one in embeddings]


def _render_vae(taking: Taking, _reference: str) -> Any:
    assert taking.metadata.vae is not None
    return taking.find("VAE", taking.metadata.vae).reference


def _render_base_config(taking: Taking, reference: str) -> Any:
    return reference if expanded(reference).exists() else None


# the settings of a Render whose value a config spells in another way; None: it is left out
PLAIN_VALUES: dict[str, Callable[[Taking, Any], Any]] = {
    "adapters": _render_adapters,
    "always": _render_adapters,
    "controls": _render_controls,
    "embeddings": _render_embeddings,
    "vae": _render_vae,
    "base_config": _render_base_config,
    "size": lambda _, size: f"{size[0]}x{size[1]}",
    "hires": lambda _, hires: hires.to_record(),
    "init": lambda _, file: file.path,
    "mask": lambda _, file: file.path,
    "device": lambda *_: None,  # of this machine
}
