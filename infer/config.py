"""The settings of a grid: a plain dataclass that Hydra fills. Its axes are those of the axis table."""

from dataclasses import Field, dataclass, field, fields, make_dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeAlias

from infer.axes import AXES

if TYPE_CHECKING:
    Axes: TypeAlias = Any  # built below; no type checker can see its fields
else:
    Axes = make_dataclass(
        "Axes",
        [(one.name, Any, field(default=None, metadata={"help": one.help})) for one in AXES.values()],
        kw_only=True,
        namespace={"__doc__": "The values of each axis; null is an axis that is not varied.", "__module__": __name__},
    )


class Precision(Enum):
    """What the weights and the arithmetic are held in; fp32 is what the plain pipeline call does."""

    fp32 = "fp32"
    fp16 = "fp16"
    bf16 = "bf16"


def _setting(default: Any, help: str) -> Any:
    if callable(default):
        return field(default_factory=default, metadata={"help": help})
    return field(default=default, metadata={"help": help})


@dataclass(kw_only=True)
class GridConfig:
    """All settings of `loraloom grid`. A setting of the picture that is null is what the plain pipeline call does."""

    name: str | None = _setting(None, "the run's name; its folder is runs/<name>/<stamp>")
    base: str = _setting("pocket", "the base model: a name, a path, or sha256:...")
    base_config: str | None = _setting(None, "a diffusers folder with the configs a single file needs")
    prompt: str | None = _setting(None, "the prompt; needed unless axes.prompt has them")
    negative: str | None = _setting(None, "the negative prompt; null is none")
    adapters: Any = _setting(None, 'adapters on every cell: ink, "ink:0.6+hat:0.4", a list, none')
    seed: int = _setting(0, "the seed of torch's CPU generator, as in diffusers")
    steps: int | None = _setting(None, "denoising steps; null is the family's")
    sampler: str | None = _setting(None, "the sampler; null is the base's own")
    guidance: float | None = _setting(None, "the guidance scale; null is the family's")
    size: Any = _setting(None, "64, 96x64 (width x height) or [96,64]; null is the base's own")
    clip_skip: int | None = _setting(None, "layers of the text encoder left out at its end; 1 is A1111's 2")
    precision: Precision = _setting(Precision.fp32, "fp32, fp16 or bf16")
    device: str | None = _setting(None, "cpu, cuda, cuda:1, mps; null is the best there is")
    axes: Axes = _setting(Axes, "what is varied: axes.<name>=[...]")
    zip: Any = _setting(None, "axes that go side by side: [adapter,weight], or a list of such lists")
    where: str | None = _setting(None, "which cells are drawn, by axis values: weight > 0 or adapter == 'none'")
    repeats: int = _setting(1, "draw each cell with this many seeds, from `seed` on")
    rows: str | None = _setting(None, "the axis down the sheet; null chooses")
    columns: str | None = _setting(None, "the axis across the sheet; null chooses")
    strict: bool = _setting(False, "stop at the first cell that fails")
    out: str = _setting("runs", "the folder of all runs")
    dry_run: bool = _setting(False, "print the plan and stop")


def axis_settings(config: GridConfig) -> dict[str, Any]:
    """Axis name -> the values as given, of the axes that are varied."""
    settings: tuple[Field[Any], ...] = fields(config.axes)
    return {one.name: getattr(config.axes, one.name) for one in settings if getattr(config.axes, one.name) is not None}
