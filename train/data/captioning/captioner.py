"""A captioner: what gives an image its caption, opened by the path of a model that is on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from train.data.captioning.language_model import faults_of_model, open_language_model
from train.data.captioning.tagger import faults_of_tagger, is_tagger, open_tagger

if TYPE_CHECKING:
    from PIL.Image import Image


class Captioner(Protocol):
    """Gives the caption of an image, RGB; an empty one where it has nothing to say."""

    @property
    def kind(self) -> str: ...

    def __call__(self, image: Image) -> str: ...


@dataclass(frozen=True, kw_only=True)
class CaptionerOptions:
    """What a person may set. None: the kind's own default; an option of the other kind is refused."""

    prompt: str | None = None
    max_tokens: int | None = None
    beams: int | None = None
    general: float | None = None
    character: float | None = None
    exclude: tuple[str, ...] | None = None
    keep_underscores: bool | None = None
    escape_brackets: bool | None = None

    def given(self, names: Sequence[str]) -> list[str]:
        """Those of the names that have a value, as they are typed."""
        return [f"--{name.replace('_', '-')}" for name in names if getattr(self, name) is not None]


OF_MODELS = ("prompt", "max_tokens", "beams")
OF_TAGGERS = ("general", "character", "exclude", "keep_underscores", "escape_brackets")
RANGES = (("general", 0, 1), ("character", 0, 1), ("max_tokens", 1, 4096), ("beams", 1, 64))


def faults_of(path: Path, options: CaptionerOptions) -> list[str]:
    """Why the model at `path` cannot caption with these options; no weights are read."""
    if not path.exists():
        return [f"--model {path}: there is no such folder or file. Give the path of a model that is on this machine."]
    tags = is_tagger(path)
    faults = faults_of_tagger(path) if tags else faults_of_model(path)
    if wrong := options.given(OF_MODELS if tags else OF_TAGGERS):
        kinds = ("image-to-text models", "a tagger") if tags else ("taggers", "an image-to-text model")
        faults.append(f"{', '.join(wrong)}: for {kinds[0]}, and {path.name} is {kinds[1]}")
    for name, low, high in RANGES:
        value = getattr(options, name)
        if value is not None and not low <= value <= high:
            faults.append(f"--{name.replace('_', '-')} {value:g}: expected {low} to {high}")
    return faults


def open_captioner(path: Path, options: CaptionerOptions, *, device: str) -> Captioner:
    """The model, loaded and tried on a grey image. Raises Refused where that fails."""
    if is_tagger(path):
        return open_tagger(
            path,
            general=0.35 if options.general is None else options.general,
            character=0.85 if options.character is None else options.character,
            exclude=options.exclude or (),
            keep_underscores=bool(options.keep_underscores),
            escape_brackets=bool(options.escape_brackets),
        )
    return open_language_model(path, prompt=options.prompt, max_tokens=options.max_tokens or 100, beams=options.beams or 1, device=device)
