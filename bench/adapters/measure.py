"""What becomes of one file: read, drawn, fused and converted here, and loaded by diffusers; each against the library's own merge."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from torch import Tensor

from bench.adapters.case import Made, base_folder, output, unet

EXACT = 1e-3  # of the whole change; fp32
DIALECTS = ("kohya", "diffusers", "peft")
COLUMNS = ("read", "drawn", "fused", "converted to", "diffusers")


def row(title: str, make: Callable[[Path, Path], Made], place: Path, folder: Path) -> str:
    """One kind's line of the table."""
    folder.mkdir()
    try:
        made = make(place, folder)
    except Exception as error:  # a method that the library itself cannot make of this UNet
        reason = shorten(str(error), 110, placeholder=" ...")
        return f"| {title} | not made: {type(error).__name__}: {reason} |{' |' * (len(COLUMNS) - 1)}"
    cells = measure(made, place, folder)
    name = f"{title}; {made.note}" if made.note else title
    return f"| {name} | {' | '.join(cells[column] for column in COLUMNS)} |"


def measure(made: Made, place: Path, scratch: Path) -> dict[str, str]:
    """Column -> what is in it."""
    return {
        "read": _tried(lambda: read(made)),
        "drawn": _tried(lambda: drawn(made, place)),
        "fused": _tried(lambda: fused(made, place, scratch)),
        "converted to": converted(made, place, scratch),
        "diffusers": _tried(lambda: by_diffusers(made, place)),
    }


def _tried(run: Any) -> str:
    """A cell: what it gives, 'refused' where this project refuses, or the name of what a library raised."""
    from registry.errors import LoomError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return str(run())
    except LoomError:
        return "refused"
    except Exception as error:  # whatever a library raises is what the table shows
        return f"{type(error).__name__}"


def read(made: Made) -> str:
    from registry.adapters.reader import read_adapter
    from registry.adapters.understood import adapter_faults

    adapter = read_adapter(made.file)
    return "refused" if adapter_faults(adapter) else "yes"


def in_words(off: float) -> str:
    """A relative error in words."""
    return "exact" if off < EXACT else f"off by {off:.2f}" if off >= 0.01 else f"off by {off:.4f}"


def _answer_off(model: Any, made: Made, place: Path) -> str:
    if made.merged is None:
        return "yes"
    wanted, plain = unet(place), unet(place)
    wanted.load_state_dict(dict(made.merged))
    truth, before = output(wanted), output(plain)
    return in_words(float((output(model) - truth).norm() / (truth - before).norm()))


def drawn(made: Made, place: Path) -> str:
    """The error of the UNet's answer, relative to what the adapter changes of it."""
    from infer.draw.adapters import attach, detach, set_weights
    from registry.families import FAMILIES

    family = FAMILIES["sd1"]
    parts = _loaded(place)
    attach(family, parts, {"x": made.file})
    try:
        set_weights(parts, {"x": 1.0})
        return _answer_off(parts.denoiser, made, place)
    finally:
        detach(parts)


@cache
def _loaded(place: Path) -> Any:
    from registry.families import FAMILIES

    return FAMILIES["sd1"].load(base_folder(place), dtype=torch.float32, device="cpu")


def fused(made: Made, place: Path, scratch: Path) -> str:
    """The error of all weights, relative to the change."""
    from registry.adapters.fuse import plan_fuse, run_fuse
    from registry.references import Weighted
    from registry.store import Store

    store, out = Store(scratch / "home"), scratch / "fused"
    shutil.rmtree(out, ignore_errors=True)
    run_fuse(plan_fuse(str(base_folder(place)), [Weighted(str(made.file))], store, out), store, register=False)
    return "yes" if made.merged is None else in_words(_off(_weights(out), made.merged, unet(place).state_dict()))


def _weights(folder: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")


def _off(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], before: Mapping[str, Tensor]) -> float:
    wrong = sum(float((found[name] - wanted[name]).double().square().sum()) for name in wanted)
    change = sum(float((before[name] - wanted[name]).double().square().sum()) for name in wanted)
    return float((wrong / change) ** 0.5)


def converted(made: Made, place: Path, scratch: Path) -> str:
    """The dialects that it is converted to; each file is fused, and left out of the list where it changes something else."""
    from registry.converting.job import ConvertRequest, plan_convert, run_convert
    from registry.errors import LoomError
    from registry.store import Store

    store, done = Store(scratch / "home"), []
    for dialect in DIALECTS:
        out = scratch / f"{dialect}.safetensors" if dialect != "peft" else scratch / "peft"
        shutil.rmtree(out, ignore_errors=True)
        out.unlink(missing_ok=True)
        wish = ConvertRequest(
            reference=str(made.file), output=out, target=dialect, family="sd1", base=str(base_folder(place)), register=False
        )
        try:
            file = Path(str(run_convert(plan_convert(wish, store), store).result["file"]))
            off = fused(Made(file, made.merged), place, scratch)
        except LoomError:
            continue
        done.append(dialect if off in ("exact", "yes") else f"{dialect} ({off})")
    return ", ".join(done) or "refused"


def by_diffusers(made: Made, place: Path) -> str:
    """What `StableDiffusionPipeline.load_lora_weights` makes of the file.

    peft's are given to the UNet's own `load_lora_adapter`, under the names and with the header that diffusers saves.
    """
    if "adapter_model" not in made.file.name:
        return _loads(made, made.file, place)
    named = made.file.with_name("pytorch_lora_weights.safetensors")
    with_header = _loads(made, _in_diffusers_names(made.file, named, header=True), place)
    without = _loads(made, _in_diffusers_names(made.file, named, header=False), place)
    return with_header if with_header == without else f"{with_header}; without the header {without}"


def _in_diffusers_names(file: Path, named: Path, *, header: bool) -> Path:
    from safetensors.torch import load_file, save_file

    config = json.loads(file.with_name("adapter_config.json").read_text(encoding="utf-8"))
    tensors = {name.replace("base_model.model.", "unet."): tensor for name, tensor in load_file(file).items()}
    settings = json.dumps({f"unet.{name}": value for name, value in config.items()})
    save_file(tensors, named, metadata={"lora_adapter_metadata": settings} if header else None)
    return named


def _loads(made: Made, file: Path, place: Path) -> str:
    pipeline = _pipeline(place)
    pipeline.register_modules(unet=unet(place))
    try:
        if file.name == "pytorch_lora_weights.safetensors":
            pipeline.unet.load_lora_adapter(str(file.parent), weight_name=file.name, prefix="unet")
        else:
            pipeline.load_lora_weights(str(file.parent), weight_name=file.name)
    except Exception as error:  # whatever diffusers raises is what the table shows
        return type(error).__name__
    after = output(pipeline.unet)
    if after.equal(output(unet(place))):
        return "nothing, silently"
    return _answer_off(pipeline.unet, made, place) if bool(torch.isfinite(after).all()) else "not a number"


@cache
def _pipeline(place: Path) -> Any:
    from diffusers import StableDiffusionPipeline

    return StableDiffusionPipeline.from_pretrained(str(base_folder(place)), safety_checker=None)
