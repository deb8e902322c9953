"""One merge by one tool, in a process of its own: python contenders.py TOOL METHOD OUTPUT SOURCE...

The tools: floor (reads and writes the bytes, merges nothing), naive (loads all, merges, saves), loraloom, unhashed (loraloom
without the hashes of its output, to see what they cost), sd_mecha, mergekit.
sd_mecha (1.1.8) and mergekit (0.1.5) are those of PyPI, each in an environment of its own. The method `start` imports what the
tool's merges import, and ends.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

ALPHA, DENSITY = 0.3, 0.2
BUFFER = 8 << 20  # bytes


def floor(method: str, output: Path, sources: list[Path]) -> None:
    """Read every source, write one of them: what any merge must do at least."""
    buffer = memoryview(bytearray(BUFFER))
    for source in sources[1:]:
        with open(source, "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
    with open(sources[0], "rb", buffering=0) as file, open(output, "wb", buffering=0) as out:
        while count := file.readinto(buffer):
            out.write(buffer[:count])


def naive(method: str, output: Path, sources: list[Path]) -> None:
    """The script that everyone writes first."""
    import torch
    from safetensors.torch import load_file, save_file

    if method == "start":
        return
    models = [load_file(source) for source in sources]
    merged = {}
    for name, first in models[0].items():
        values = [model[name].float() for model in models]
        if method == "weighted_sum":
            merged[name] = torch.lerp(values[0], values[1], ALPHA).to(first.dtype)
            continue
        if method == "add_difference":
            merged[name] = values[0].add(values[1] - values[2], alpha=ALPHA).to(first.dtype)
            continue
        base, *tuned = values
        deltas = []
        for value in tuned:
            delta = value - base
            kept = max(1, int(DENSITY * delta.numel()))
            cut = delta.abs().flatten().kthvalue(delta.numel() - kept + 1).values
            deltas.append(delta * (delta.abs() >= cut))
        stacked = torch.stack(deltas)
        agree = (stacked > 0) == (stacked.sum(dim=0) >= 0)
        agree &= stacked != 0
        merged[name] = (base + (stacked * agree).sum(dim=0) / agree.sum(dim=0).clamp(min=1)).to(first.dtype)
    save_file(merged, output)


def loraloom(method: str, output: Path, sources: list[Path]) -> None:
    """Ours, whole: plan, checks, hashes of the output; the sources' hashes are known, as they are for registered models."""
    from registry.launch.importing import import_torch, process_of_a_command

    process_of_a_command()
    import_torch()
    from registry.merging.plan import plan_merge
    from registry.merging.recipe import recipe_of
    from registry.merging.stream import write_merge
    from registry.store import Store

    if method == "start":
        return
    params = {"alpha": ALPHA} if method in ("weighted_sum", "add_difference") else {"density": DENSITY}
    recipe = recipe_of({"method": method, "sources": [str(source) for source in sources], "params": params})
    with tempfile.TemporaryDirectory() as home:
        plan = plan_merge(recipe, Store(Path(home)), output, threads=2)
        write_merge(plan, metadata={"format": "pt"})


class NoHasher:
    """Stands in for the hasher of the output."""

    def __init__(self, *_arguments: Any, **_options: Any) -> None: ...

    def update(self, _chunk: Any) -> None: ...

    def start(self, _chunk: Any) -> list[Any]:
        return []

    def finish(self) -> Any:
        return None

    def learned(self) -> dict[str, Any]:
        return {}

    def close(self) -> None: ...


def unhashed(method: str, output: Path, sources: list[Path]) -> None:
    """Ours without the hashes of what is written: no way to run it, a way to know their share."""
    from registry.merging import stream

    stream.Hasher = NoHasher  # type: ignore[assignment, misc]
    loraloom(method, output, sources)


def sd_mecha(method: str, output: Path, sources: list[Path]) -> None:
    """sd-mecha with its defaults."""
    import sd_mecha as tool

    if method == "start":
        return
    models = [tool.model(str(source)) for source in sources]
    if method == "weighted_sum":
        recipe = tool.weighted_sum(models[0], models[1], alpha=ALPHA)
    elif method == "add_difference":
        recipe = tool.add_difference(models[0], tool.subtract(models[1], models[2]), alpha=ALPHA)
    elif method == "dare_linear":
        recipe = tool.dropout(*models, probability=1 - DENSITY, alpha=1.0)
    else:
        deltas = [tool.subtract(model, models[0]) for model in models[1:]]
        recipe = models[0] + tool.ties_sum(*deltas, k=DENSITY)
    tool.merge(recipe, output=output, merge_dtype=__import__("torch").float32, output_dtype=__import__("torch").float16, threads=2)


def mergekit(method: str, output: Path, sources: list[Path]) -> None:
    """mergekit-pytorch, which takes plain state dicts."""
    import yaml
    from mergekit.scripts.merge_raw_pytorch import main

    if method == "start":
        return
    if method == "weighted_sum":
        models = [
            {"model": str(source), "parameters": {"weight": weight}} for source, weight in zip(sources, (1 - ALPHA, ALPHA), strict=True)
        ]
        config = {"merge_method": "linear", "models": models, "dtype": "float16", "out_dtype": "float16"}
    else:
        models = [{"model": str(source), "parameters": {"weight": 1.0, "density": DENSITY}} for source in sources[1:]]
        config = {"merge_method": method, "base_model": str(sources[0]), "models": models, "dtype": "float32", "out_dtype": "float16"}
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(config, file)
        file.flush()
        main.main([file.name, str(output.with_suffix("")), "--no-cuda"], standalone_mode=False)


TOOLS: dict[str, Callable[[str, Path, list[Path]], None]] = {
    "floor": floor,
    "naive": naive,
    "loraloom": loraloom,
    "unhashed": unhashed,
    "sd_mecha": sd_mecha,
    "mergekit": mergekit,
}

if __name__ == "__main__":
    tool, method, output, *sources = sys.argv[1:]
    if method != "start" or tool != "floor":
        TOOLS[tool](method, Path(output), [Path(source) for source in sources])
