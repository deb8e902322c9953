"""The umbrella: command line and public names. Floor 3: imports registry, infer and train.

    from loraloom import Axes, GridConfig, render_grid

    outcome = render_grid(GridConfig(prompt="a cat", axes=Axes(adapter=["none", "ink:0.6", "ink"])))

docs/api.md has an example for each name. They are fetched when first asked for, so `import loraloom` costs nothing. Three of our
four packages have generic names; importing this one checks that they are ours.
"""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loraloom.version import __version__

if TYPE_CHECKING:
    from infer.draw.render import Render
    from infer.grid.axes import AXES
    from infer.grid.config import Axes, GridConfig
    from infer.grid.job import render_grid
    from registry.detect.inspect import inspect as inspect_file
    from registry.detect.loading import load_base
    from registry.errors import LoomError
    from registry.families import FAMILIES
    from registry.family import Family
    from registry.jobs import combine_loras, convert, extract_lora, fuse_lora, merge
    from registry.merging.methods import METHODS
    from registry.merging.recipe import Recipe
    from registry.record import Record
    from registry.store import Store
    from train.config import (
        CheckpointConfig,
        DataConfig,
        HeldoutConfig,
        LoraConfig,
        ObjectiveConfig,
        OptimConfig,
        PreviewConfig,
        ScheduleConfig,
        TrainConfig,
    )
    from train.run import train_lora

_PUBLIC = {  # public name -> "module:attribute"
    "AXES": "infer.grid.axes:AXES",
    "Axes": "infer.grid.config:Axes",
    "CheckpointConfig": "train.config:CheckpointConfig",
    "DataConfig": "train.config:DataConfig",
    "FAMILIES": "registry.families:FAMILIES",
    "Family": "registry.family:Family",
    "GridConfig": "infer.grid.config:GridConfig",
    "HeldoutConfig": "train.config:HeldoutConfig",
    "LoomError": "registry.errors:LoomError",
    "LoraConfig": "train.config:LoraConfig",
    "METHODS": "registry.merging.methods:METHODS",
    "ObjectiveConfig": "train.config:ObjectiveConfig",
    "OptimConfig": "train.config:OptimConfig",
    "PreviewConfig": "train.config:PreviewConfig",
    "Recipe": "registry.merging.recipe:Recipe",
    "Record": "registry.record:Record",
    "Render": "infer.draw.render:Render",
    "ScheduleConfig": "train.config:ScheduleConfig",
    "Store": "registry.store:Store",
    "TrainConfig": "train.config:TrainConfig",
    "combine_loras": "registry.jobs:combine_loras",
    "convert": "registry.jobs:convert",
    "extract_lora": "registry.jobs:extract_lora",
    "fuse_lora": "registry.jobs:fuse_lora",
    "inspect_file": "registry.detect.inspect:inspect",
    "load_base": "registry.detect.loading:load_base",
    "merge": "registry.jobs:merge",
    "render_grid": "infer.grid.job:render_grid",
    "train_lora": "train.run:train_lora",
}

__all__ = [
    "AXES",
    "FAMILIES",
    "METHODS",
    "Axes",
    "CheckpointConfig",
    "DataConfig",
    "Family",
    "GridConfig",
    "HeldoutConfig",
    "LoomError",
    "LoraConfig",
    "ObjectiveConfig",
    "OptimConfig",
    "PreviewConfig",
    "Recipe",
    "Record",
    "Render",
    "ScheduleConfig",
    "Store",
    "TrainConfig",
    "__version__",
    "combine_loras",
    "convert",
    "extract_lora",
    "fuse_lora",
    "inspect_file",
    "load_base",
    "merge",
    "render_grid",
    "train_lora",
]


def _guard() -> None:
    """Raise ImportError when another `registry`, `infer` or `train` comes first on sys.path."""
    house = Path(__file__).resolve().parents[1]
    for room in ("registry", "infer", "train"):
        spec = find_spec(room)
        origin = Path(spec.origin).resolve() if spec and spec.origin else None
        if origin is None or origin.parents[1] != house:
            raise ImportError(
                f"Package {room!r} resolves to {origin}, not to {house / room}. "
                f"Another {room!r} comes first on sys.path: leave its folder or remove it."
            )


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'loraloom' has no attribute {name!r}")
    module, _, attribute = _PUBLIC[name].partition(":")
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})


_guard()
