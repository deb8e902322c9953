"""The settings of a grid: a plain dataclass that Hydra fills. Its axes are those of the axis table.

Ranges are checked here, all faults together; what needs the disk is checked by the plan.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, make_dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeAlias

from infer.grid.axes import AXES
from registry.errors import Faults

NAME = re.compile(r"[^\W.][\w .-]*")  # a name is a folder
PLACES = re.compile(r"auto|cpu|mps|(cuda|xpu)(:\d+)?")


def says(meaning: str) -> dict[str, str]:
    """The metadata of a setting: what it means."""
    return {"help": meaning}


def names(meaning: str) -> dict[str, Any]:
    """The metadata of a setting that names an entry of a table, not a free text: a sweep may list several with commas."""
    return {"help": meaning, "word": True}


if TYPE_CHECKING:
    Axes: TypeAlias = Any  # built below; no type checker can see its fields
else:
    Axes = make_dataclass(
        "Axes",
        [(one.name, Any, field(default=None, metadata=says(one.help))) for one in AXES.values()],
        kw_only=True,
        namespace={"__doc__": "The values of each axis; null is an axis that is not varied.", "__module__": __name__},
    )


class Fit(Enum):
    """How an image of another shape than the drawing's is made its size; null refuses one."""

    stretch = "stretch"
    crop = "crop"


class Precision(Enum):
    """What the weights and the arithmetic are held in; fp32 is what the stock pipeline does."""

    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


@dataclass(kw_only=True)
class GridConfig:
    """All settings of `loraloom grid`. A setting of the image that is null is what the stock pipeline does."""

    name: str | None = field(default=None, metadata=says("name of the run; its folder is <out>/<name>/<stamp> (default: grid)"))
    base: str = field(default="pocket", metadata=says("the base model: a registered name, a path, a sha256: prefix"))
    base_config: str | None = field(default=None, metadata=says("diffusers folder with the configs a single file needs"))
    prediction: str | None = field(default=None, metadata=says("epsilon or v_prediction, where the base's file does not say it"))
    prompt: str | None = field(default=None, metadata=says("the prompt; needed unless axes.prompt has them"))
    negative: str | None = field(default=None, metadata=says("the negative prompt (default: none)"))
    adapters: Any = field(default=None, metadata=says('adapters of every cell: ink, "ink:0.6+hat:0.4", a list of these, none'))
    seed: int = field(default=0, metadata=says("seed of torch's CPU generator, one a cell, as in diffusers"))
    steps: int | None = field(default=None, metadata=says("denoising steps (default: the family's)"))
    sampler: str | None = field(default=None, metadata=names("the sampler (default: the base's own)"))
    guidance: float | None = field(default=None, metadata=says("the guidance scale (default: the family's)"))
    size: Any = field(default=None, metadata=says("pixels: 64, 96x64 (width x height), [96,64] (default: the base's own)"))
    clip_skip: int | None = field(default=None, metadata=says("layers of the text encoder left out at its end; 1 is A1111's 2"))
    init: str | None = field(
        default=None, metadata=says("an image to draw anew (image-to-image); its size is the drawing's unless size is given")
    )
    strength: float | None = field(default=None, metadata=says("how much of init is drawn anew, above 0 to 1 (default: the family's)"))
    mask: str | None = field(default=None, metadata=says("a black and white image: init is drawn anew where it is white (inpainting)"))
    paste: bool = field(default=True, metadata=says("put init's own pixels back where mask is black; false: as the VAE gives them back"))
    controls: Any = field(
        default=None,
        metadata=says("ControlNets with their hints: canny:edges.png:0.8, a list, {net, image, scale, start, end, mode, prepare}"),
    )
    embeddings: Any = field(
        default=None, metadata=says("textual inversion embeddings (textual inversion): a name, a list, {embedding, token}")
    )
    vae: str | None = field(default=None, metadata=says("another VAE of the base's latent space: a name, a path (default: the base's own)"))
    fit: Fit | None = field(default=None, metadata=says("an image of another shape is refused (null), stretched or cropped: stretch, crop"))
    precision: Precision = field(default=Precision.fp32, metadata=says("weights and arithmetic: fp32, bf16, fp16"))
    device: str = field(default="auto", metadata=names("auto, cpu, cuda, cuda:1, mps"))
    axes: Axes = field(default_factory=Axes, metadata=says("what is varied: axes.NAME=[...]"))
    zip: Any = field(default=None, metadata=says("axes that go side by side: [adapter,weight], or a list of such lists"))
    where: str | None = field(default=None, metadata=says("the cells that are drawn, by axis values: weight > 0 or adapter == 'none'"))
    repeats: int = field(default=1, metadata=says("seeds a cell is drawn with, from `seed` on"))
    rows: str | None = field(default=None, metadata=says("the axis down the sheet (default: chosen)"))
    columns: str | None = field(default=None, metadata=says("the axis across the sheet (default: chosen)"))
    strict: bool = field(default=False, metadata=says("stop at the first cell that fails"))
    out: str = field(default="runs", metadata=says("folder that receives <name>/<stamp>/"))
    dry_run: bool = field(default=False, metadata=says("print the plan and stop"))

    def __post_init__(self) -> None:
        faults = [f"{name} {must}, got {value!r}." for name, value, good, must in self._rules() if not good]
        if faults:
            raise Faults("These settings are out of range:", faults)

    def _rules(self) -> Iterable[tuple[str, Any, bool, str]]:
        """(name, value, is it good, what it must be) of every setting with a range."""
        must = "names a folder: letters, digits, space, `_` `-` `.`, not starting with `.`, `-` or a space"
        yield "name", self.name, self.name is None or (NAME.fullmatch(self.name) is not None and self.name == self.name.strip()), must
        yield "device", self.device, PLACES.fullmatch(self.device) is not None, "must be auto, cpu, mps, cuda or cuda:NUMBER"
        yield "repeats", self.repeats, 1 <= self.repeats <= 10_000, "must be in 1 .. 10000"
        for name in ("base", "out"):
            yield name, (value := getattr(self, name)), bool(value.strip()), "must not be empty"


def axis_settings(config: GridConfig) -> dict[str, Any]:
    """Axis name -> the values as given, of the axes that are varied, in the table's order."""
    return {one.name: getattr(config.axes, one.name) for one in fields(config.axes) if getattr(config.axes, one.name) is not None}


def to_plain(config: GridConfig) -> dict[str, Any]:
    """The settings as plain values, in the order of the fields; of the axes only those that are varied."""
    plain = {one.name: getattr(config, one.name) for one in fields(config)}
    plain |= {"fit": config.fit.name if config.fit is not None else None}
    return plain | {"precision": config.precision.name, "axes": axis_settings(config)}
