"""The device, and the versions of the libraries that are part of an image's key."""

import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from registry.adapters.in_place import VERSION
from registry.errors import Refused


@cache
def pick_device(device: str) -> str:
    """The device of a setting: `auto` is the best there is. Raises Refused for one that is not there."""
    here = ["cpu"]
    if device != "cpu" and not _only_cpu():
        import torch

        if torch.cuda.is_available():
            here = [*(f"cuda:{index}" for index in range(torch.cuda.device_count())), "cuda", *here]
        if torch.backends.mps.is_available():
            here = ["mps", *here]
    if device == "auto":
        return "cuda" if "cuda" in here else here[0]
    if device not in here:
        raise Refused(f"device={device} is not on this machine. There are: {', '.join(sorted(here))}.")
    return device


def _only_cpu() -> bool:
    """Whether this build of torch has no other device, known without importing it, which costs a plan half its time."""
    return version("torch").endswith("+cpu") and sys.platform != "darwin"


@cache
def made_with(device: str, *, adapters: frozenset[bool]) -> tuple[tuple[str, str], ...]:
    """(name, version) of what the pixels depend on besides the settings: libraries, and the GPU's name.

    `adapters` holds True where an adapter is drawn by peft, False where one is in the weights.
    """
    names = ["torch", "diffusers", "transformers", *(["peft"] if True in adapters else [])]
    found = [(name, version_of(name)) for name in names]
    if False in adapters:
        found.append(("adapter deltas", VERSION))
    if device.startswith("cuda"):
        import torch

        found.append(("gpu", torch.cuda.get_device_name(device)))
    return tuple(sorted(found))


@cache
def version_of(package: str) -> str:
    """The public version of an installed package: 2.13.0 of 2.13.0+cpu; "?" when it is not installed."""
    try:
        return version(package).partition("+")[0]
    except PackageNotFoundError:
        return "?"
