"""Diffusers folders of published sizes and random weights, and what a process takes of main memory while it works on them (Linux)."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

MIB = 2**20
SHARD = 1 << 30  # bytes of a file of weights
KNOWN = ("RssAnon", "RssFile", "VmData")


def random_folder(place: Path, tiny: Path, settings: Mapping[str, Mapping[str, Any]], *, dtype: Any) -> Path:
    """A copy of a tiny build's folder in which these components have other settings, and random weights in `dtype`. Made once."""
    import torch

    if (place / "made.json").is_file():
        return place
    shutil.copytree(tiny, place, dirs_exist_ok=True)
    generator = torch.Generator().manual_seed(0)
    for component, given in settings.items():
        file = place / component / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | dict(given)))
        _fill(place, component, dtype, generator)
    (place / "made.json").write_text(json.dumps(sorted(settings)))
    return place


def _fill(place: Path, component: str, dtype: Any, generator: Any) -> None:
    """Weights of one component, in shards. Matrices are uniform as torch's own first weights are, norms 1, biases 0."""
    import torch
    from safetensors.torch import save_file

    from registry.formats.model_folder import read_json

    folder = place / component
    shapes = {name: tensor.shape for name, tensor in _empty(read_json(place / "model_index.json")[component], folder).state_dict().items()}
    for old in folder.glob("*.safetensors*"):
        old.unlink()
    stem = "model" if component.startswith("text_encoder") else "diffusion_pytorch_model"
    shards: list[dict[str, Any]] = [{}]
    files: dict[str, str] = {}

    def write() -> None:
        save_file(shards[0], folder / f"{stem}-{len(set(files.values())):05d}.safetensors", metadata={"format": "pt"})
        shards[0] = {}

    number = 1
    for name, shape in shapes.items():
        tensor = torch.zeros(shape, dtype=dtype)
        if len(shape) > 1:
            bound = (tensor.numel() / shape[0]) ** -0.5
            tensor.uniform_(-bound, bound, generator=generator)
        elif name.endswith("weight"):
            tensor.fill_(1.0)
        shards[0][name], files[name] = tensor, f"{stem}-{number:05d}.safetensors"
        if sum(each.nbytes for each in shards[0].values()) >= SHARD:
            write()
            number += 1
    if shards[0]:
        write()
    (folder / f"{stem}.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))


def _empty(entry: list[str], folder: Path) -> Any:
    """The component of a folder's config on the meta device."""
    import importlib

    import torch

    found = getattr(importlib.import_module(entry[0]), entry[1])
    with torch.device("meta"):
        if hasattr(found, "load_config"):
            return found.from_config(found.load_config(folder, local_files_only=True))
        return found(found.config_class.from_pretrained(folder, local_files_only=True))


def memory() -> dict[str, int]:
    """Bytes of this process: RssAnon (no file is behind it), RssFile (pages of files, which the system may drop), VmData (reserved)."""
    rows = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {name: int(rows[name].split()[0]) * 1024 for name in KNOWN}


class Watch:
    """Memory while it lasts, looked at every few milliseconds: the peaks of each stage, and a row every second."""

    def __init__(self, every: float = 0.005) -> None:
        self.stage, self.every = "start", every
        self.peaks: dict[str, dict[str, float]] = {}  # stage -> anonymous, resident, CPU seconds
        self.rows: list[tuple[float, str, int, int]] = []  # seconds, stage, anonymous, resident
        self._done, self._begun = threading.Event(), time.monotonic()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._done.set()
        self._thread.join()

    @property
    def anonymous(self) -> int:
        """The most anonymous memory of all stages."""
        return int(max(row["anonymous"] for row in self.peaks.values()))

    @property
    def resident(self) -> int:
        """The most memory of all stages, of files too."""
        return int(max(row["resident"] for row in self.peaks.values()))

    def _watch(self) -> None:
        before = time.process_time()
        while not self._done.wait(self.every):
            now, clock = memory(), time.process_time()
            anonymous, resident = now["RssAnon"], now["RssAnon"] + now["RssFile"]
            row = self.peaks.setdefault(self.stage, {"anonymous": 0, "resident": 0, "seconds": 0.0})
            row["anonymous"], row["resident"] = max(row["anonymous"], anonymous), max(row["resident"], resident)
            row["seconds"] += clock - before
            before = clock
            seconds = time.monotonic() - self._begun
            if not self.rows or seconds - self.rows[-1][0] >= 1:
                self.rows.append((seconds, self.stage, anonymous, resident))
