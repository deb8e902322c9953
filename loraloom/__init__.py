"""The umbrella: command line and public names. Floor 3: imports registry, infer and train.

    from loraloom import GridConfig, Store, render_grid

    outcome = render_grid(GridConfig(prompt="a cat", adapters="ink:0.6"), Store())

The names are fetched when first asked for, so `import loraloom` costs nothing. Three of our four packages have generic
names; importing this one checks that they are ours.
"""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loraloom.version import __version__

if TYPE_CHECKING:
    from infer.grid.config import GridConfig
    from infer.grid.job import run as render_grid
    from registry.store import Store
    from train.config import TrainConfig
    from train.run import run as train_lora

_PUBLIC = {  # public name -> "module:attribute"
    "GridConfig": "infer.grid.config:GridConfig",
    "Store": "registry.store:Store",
    "TrainConfig": "train.config:TrainConfig",
    "render_grid": "infer.grid.job:run",
    "train_lora": "train.run:run",
}

__all__ = ["GridConfig", "Store", "TrainConfig", "__version__", "render_grid", "train_lora"]


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
