"""The settings of a grid: a plain dataclass that Hydra fills, made of Render's fields and the axis table.

Ranges are checked here, all faults together; what needs the disk is checked by the plan.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, make_dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from infer.budget.savings import SEARCHED
from infer.draw.render import SETTINGS
from infer.draw.values import member_name
from infer.grid.axes import AXES
from infer.output.encoding import QUALITY, ImageFormat
from infer.sharing.width import read_batch_size
from infer.stages.latents import read_keep_latents
from registry.budget.text import budget_fault
from registry.errors import Faults, Refused
from registry.names import DEVICE, DEVICES
from registry.plain_values import storable
from registry.references import LONGEST
from registry.settings import setting, word

NAME = re.compile(r"[^\W.][\w .-]*")  # a name is a folder
PROSE = ("prompt", "negative")  # axes whose values are sentences

if TYPE_CHECKING:
    Axes: TypeAlias = Any  # built below; no type checker can see its fields
else:
    Axes = make_dataclass(
        "Axes",
        [(one.name, Any, setting(None, one.help, prose=one.name in PROSE)) for one in AXES.values()],
        kw_only=True,
        namespace={"__doc__": "The values of each axis; null is an axis that is not varied.", "__module__": __name__},
    )


if TYPE_CHECKING:

    class RenderSettings:
        """The settings of an image; no type checker can see them: they are built of Render's fields below."""

        name: str | None

        def __getattr__(self, name: str) -> Any: ...
else:
    RenderSettings = make_dataclass(
        "RenderSettings",
        [
            ("name", str | None, setting(None, "name of the run; its folder is <out>/<name>/<stamp> (default: grid)")),
            *((one.name, one.type, (word if one.choice else setting)(one.default, one.help)) for one in SETTINGS.values() if one.help),
        ],
        kw_only=True,
        namespace={"__doc__": "The name of a grid, and a setting for each field of Render that has one.", "__module__": __name__},
    )


@dataclass(kw_only=True)
class GridConfig(RenderSettings):
    """All settings of `loraloom grid`: those of the image (the fields of Render; null is diffusers' default), and the grid's own."""

    if TYPE_CHECKING:

        def __init__(self, **settings: Any) -> None: ...

    from_image: str | None = setting(
        None,
        "start from this image (also `from`): what its metadata states, as far as it is not given; of A1111, Forge, ComfyUI, SwarmUI,"
        " InvokeAI, Fooocus, NovelAI, LoRA Loom",
    )
    axes: Axes = setting(Axes, "what is varied: axes.NAME=[...]")
    outside: Any = setting(None, "columns of images made elsewhere: a folder, or [{name: dalle3, path: FOLDER}], matched by prompt")
    zip: Any = setting(None, "axes that go side by side: [adapter,weight], or a list of such lists")
    where: str | None = setting(None, "the cells that are drawn, by axis values: weight > 0 or adapter == 'none'")
    repeats: int = setting(1, "seeds a cell is drawn with, from `seed` on")
    score: Any = setting(
        None, "scores of each image: [sharpness, {clip: /models/clip}, {colour_distance: FOLDER}]; loraloom score --list shows all"
    )
    rows: str | None = setting(None, "the axis down the sheet (default: chosen)")
    columns: str | None = setting(None, "the axis across the sheet (default: chosen)")
    wildcards: str | None = setting(
        None, "make the choices in prompts, {a|b} and __NAME__, by each image's seed: a folder of NAME.txt, or true for {a|b} alone"
    )
    batch_size: Any = setting(
        1,
        "cells that share a forward: a number, or auto (as many as fit the memory); 1 draws each alone, to the same bytes every time",
    )
    memory: str | None = word(
        None,
        "memory that drawing may take of the device, such as 12GiB, 12GB, or auto for what is free: the plan finds the cheapest settings"
        " that fit, exact ones first (swap_blocks, text_encoder_dtype, base_dtype); those that are given or varied stay",
    )
    keep_latents: str = word(
        "1GiB",
        "the most that final latents may take in the home, the last used ones: another VAE or vae_tiling then denoises nothing again;"
        " 0 keeps none",
    )
    image_format: ImageFormat = setting(
        ImageFormat.png,
        "what the images of the run folder are saved as: png, jpeg, webp; the store keeps PNGs, so another one draws nothing",
    )
    quality: int | None = setting(None, f"quality of jpeg and webp, 1 to 100 (default: {QUALITY})")
    strict: bool = setting(False, "stop at the first cell that fails")
    single_file: bool | None = setting(
        None,
        "the report holds its images, so that the one file can be sent (default: where they are 8 MB or less, else they lie beside it)",
    )
    out: str = setting("runs", "folder that receives <name>/<stamp>/")
    dry_run: bool = setting(False, "print the plan and stop")

    def __post_init__(self) -> None:
        faults = [f"{name} {must}, got {value!r}." for name, value, good, must in self._rules() if not good]
        if faults:
            raise Faults("These settings are out of range:", faults)

    def _rules(self) -> Iterable[tuple[str, Any, bool, str]]:
        """(name, value, is it good, what it must be) of every setting with a range."""
        must = f"names a folder: letters, digits, space, `_` `-` `.`, not starting with `.`, `-` or a space, at most {LONGEST} bytes"
        yield "name", self.name, self.name is None or _is_folder_name(self.name), must
        yield "device", self.device, DEVICE.fullmatch(self.device) is not None, f"must be {DEVICES}"
        yield "batch_size", self.batch_size, _reads(read_batch_size, self.batch_size), "must be a whole number of 1 or more, or auto"
        yield "keep_latents", self.keep_latents, _reads(read_keep_latents, self.keep_latents), "must be a size such as 2GiB, or 0"
        good = self.quality is None or (self.image_format is not ImageFormat.png and 1 <= self.quality <= 100)
        yield "quality", self.quality, good, "must be in 1 .. 100, and goes with image_format=jpeg or webp: png loses nothing"
        yield "repeats", self.repeats, 1 <= self.repeats <= 10_000, "must be in 1 .. 10000"
        fault = None if self.memory is None else budget_fault(self.memory)
        yield "memory", self.memory, fault is None, fault or ""
        for name in ("base", "out"):
            yield name, (value := getattr(self, name)), bool(value.strip()), "must not be empty"
        yield "out", self.out, storable(self.out) == self.out, "must be UTF-8"


def _is_folder_name(name: str) -> bool:
    """Whether a run may be called so: its folder is."""
    return NAME.fullmatch(name) is not None and name == name.strip() and len(name.encode()) <= LONGEST


def _reads(read: Callable[[Any], object], value: object) -> bool:
    try:
        read(value)
    except Refused:
        return False
    return True


def axis_settings(config: GridConfig) -> dict[str, Any]:
    """Axis name -> the values as given, of the axes that are varied, in the table's order."""
    return {one.name: getattr(config.axes, one.name) for one in fields(config.axes) if getattr(config.axes, one.name) is not None}


def to_plain(config: GridConfig) -> dict[str, Any]:
    """The settings as plain values, in the order of the fields; of the axes only those that are varied."""
    return {one.name: member_name(getattr(config, one.name)) for one in fields(config)} | {"axes": axis_settings(config)}


def free_settings(config: GridConfig) -> list[str]:
    """The settings that a search for memory may change: those that are neither given nor varied."""
    varied = axis_settings(config)
    axes = {name: axis.name or name for name in SEARCHED if (axis := SETTINGS[name].axis) is not None}
    return [name for name in SEARCHED if getattr(config, name) == SETTINGS[name].default and axes.get(name) not in varied]
