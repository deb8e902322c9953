"""A grid that starts from an image: its settings, as far as the command line gives no others, and what could not be taken over."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infer.draw.render import SETTINGS
from infer.draw.setting import Setting
from infer.draw.values import member_name
from infer.from_image.models import report_controls, take_base, take_networks, take_vae
from infer.from_image.own import take_render
from infer.from_image.passes import take_passes
from infer.from_image.sampling import remark_on_noise, take_sampling, take_size
from infer.from_image.taking import Taking
from infer.from_image.texts import take_texts
from infer.grid.config import GridConfig, axis_settings
from infer.metadata.models import FoundModel
from infer.metadata.reader import read_metadata
from infer.metadata.result import ImageMetadata, Unread
from registry.errors import Faults, Refused
from registry.home import expanded
from registry.printable import shell_line
from registry.settings import spelled

if TYPE_CHECKING:
    from registry.store import Store

LEFT_OUT = ("from_image", "dry_run", "name")  # of the command that draws the same without the image


@dataclass(frozen=True, kw_only=True)
class Start:
    """What was taken over from an image."""

    path: Path
    metadata: ImageMetadata
    settings: Mapping[str, Any]  # name -> value, of what the image set
    models: tuple[FoundModel, ...]
    unread: tuple[Unread, ...]
    absent: tuple[str, ...]
    remarks: tuple[str, ...]
    command: str

    def to_json(self) -> dict[str, Any]:
        """Plain values with stable keys."""
        return {
            "image": str(self.path),
            "tool": self.metadata.tool,
            "version": self.metadata.version,
            "source": self.metadata.source,
            "settings": dict(self.settings),
            "models": [one.to_json() for one in self.models],
            "unread": [{"name": one.name, "value": one.value, "why": one.why} for one in self.unread],
            "command": self.command,
        }

    def lines(self) -> list[str]:
        """For a person."""
        tool, version = self.metadata.tool, self.metadata.version or ""
        made = version if version.startswith(tool) else f"{tool} {version}".strip()
        names = ", ".join(self.settings) or "nothing"
        models = [f"  {one.what} {one.named}: {one.reference} (by {one.by})" for one in self.models if one.reference is not None]
        return [f"from {self.path.name}, by {made} ({self.metadata.source}): {names}", *models, f"  {self.command}"]

    def notes(self) -> list[str]:
        """What a person must know: what is not drawn as it was, by name and value."""
        return [*self.remarks, *self.missing()]

    def missing(self) -> list[str]:
        """What was not taken over, by name and value: it may be why a plan is refused."""
        return [*self.absent, *(f"Not taken over from {self.path.name}: {one}." for one in self.unread)]


def start_from(config: GridConfig, given: Collection[str] | None, store: Store) -> tuple[GridConfig, Start]:
    """The config with the settings of its `from_image`, and what was taken over.

    `given` names the settings that the image does not replace (None: those that differ from their defaults). Raises BadFile for an image
    that says nothing, Faults with every model and sampler that is not here.
    """
    path = _image_path(str(config.from_image))
    taken = _taken(config, _given(config, given), read_metadata(path), store)
    if taken.faults:
        raise Faults(f"A grid cannot start from {path.name}:", taken.faults)
    filled = replace(config, **taken.settings)
    start = Start(
        path=path,
        metadata=taken.metadata,
        settings={name: member_name(value) for name, value in taken.settings.items()},
        models=tuple(taken.models),
        unread=tuple(dict.fromkeys(taken.unread)),
        absent=tuple(taken.absent),
        remarks=tuple(taken.remarks),
        command=command_of(filled),
    )
    return filled, start


def _image_path(given: str) -> Path:
    path = expanded(given).absolute()
    if not given.strip() or path.is_dir():
        raise Refused(
            f"from={given} {'is a folder' if given.strip() else 'is empty'}. Expected the path of one image, such as from=IMAGE.png."
        )
    return path


def command_of(config: GridConfig) -> str:
    """The line for a shell that gives these settings from any folder: it goes to this one first, for paths and patterns of them."""
    plain = {one.name: one.default for one in fields(GridConfig)} | {one.name: one.default for one in SETTINGS.values()}
    values = {one.name: getattr(config, one.name) for one in fields(config) if one.name not in (*LEFT_OUT, "axes")}
    changed = {name: member_name(value) for name, value in values.items() if member_name(value) != member_name(plain.get(name))}
    changed |= {f"axes.{name}": value for name, value in axis_settings(config).items()}
    words = shell_line("loraloom", "grid", *(f"{name}={spelled(value)}" for name, value in changed.items()))
    return f"{shell_line('cd', Path.cwd())} && {words}"


def _given(config: GridConfig, given: Collection[str] | None) -> frozenset[str]:
    """The settings that the image does not replace, by name; one whose axis is varied is among them."""
    varied = axis_settings(config)
    named = {one.name for one in SETTINGS.values() if one.help and _axis(one) in varied}
    if given is None:
        given = [one.name for one in SETTINGS.values() if one.help and getattr(config, one.name) != one.default]
    return frozenset({*given, *named, *(["seed"] if "seed" in varied else [])})


def _axis(one: Setting) -> str:
    """The name of its axis, where it has one: `strength`, `init` and `mask` are axes that are not declared at their settings."""
    return one.axis.name or one.name if one.axis is not None else one.name


def _taken(config: GridConfig, given: frozenset[str], metadata: ImageMetadata, store: Store) -> Taking:
    """All that an image gives."""
    taking = Taking(config, given, metadata, store)
    taking.unread += metadata.unread
    take_base(taking)
    if metadata.render is not None:
        take_render(taking)
        return taking
    take_texts(taking)
    take_sampling(taking)
    take_size(taking)
    take_networks(taking)
    take_vae(taking)
    take_passes(taking)
    report_controls(taking)
    remark_on_noise(taking)
    _report_absent(taking)
    return taking


def _report_absent(taking: Taking) -> None:
    """What a program left to its defaults is not guessed."""
    found = taking.metadata
    stated: dict[str, object] = {
        "prompt": found.prompt,
        "seed": found.seed,
        "steps": found.steps,
        "sampler": found.sampler,
        "size": found.width,
    }
    stated["guidance"] = found.guidance if found.distilled is None else found.distilled
    absent = [name for name, value in stated.items() if value is None and name not in taking.given]
    if absent:
        taking.absent.append(f"The image says no {', '.join(absent)} that can be read: as the defaults here are.")
