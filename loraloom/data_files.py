"""Where the data that travels with the code lies: beside it in a checkout, inside this package in a wheel."""

from pathlib import Path


def conf_dir() -> Path:
    """The presets: ./conf in a checkout, loraloom/conf in a wheel."""
    return _travelling("conf")


def data_dir() -> Path:
    """The demo's sets: ./datasets in a checkout, loraloom/datasets in a wheel."""
    return _travelling("datasets")


def _travelling(name: str) -> Path:
    # Checkout first: an editable install leaves a stale copy of the wheel's data in site-packages.
    package = Path(__file__).resolve().parent
    checkout = package.parent
    return checkout / name if (checkout / "pyproject.toml").is_file() else package / name
