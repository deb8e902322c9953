"""Embedding models in one file: TorchScript (as SSCD is distributed) and ONNX.

Such a file does not say how its input is prepared. A preprocessor_config.json beside it, or in the folder above, is followed. Without
one an image is scaled so that its short side has 288 pixels and normalised by ImageNet's mean and deviation, as SSCD's authors do it
(Pizzi et al. 2022); it is scaled to a square where the model takes no other shape, to the size that an ONNX input declares, and given as
it is, 0 to 255, where that input is of bytes.
"""

# H W the model's size, D numbers of a vector

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infer.score.models.embedder import Definition, Embedder, hash_of, tried, tried_images
from registry.detect.transformers_folder import PROCESSORS, quiet, reason
from registry.errors import Refused
from registry.images.model_input import Input

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

ENDINGS = (".pt", ".pth", ".torchscript", ".onnx")
SIDE = 288  # pixels of the short side: SSCD's
NEED = "needs onnxruntime: pip install 'loraloom[tagger]'"
Run = Callable[[Any], Any]  # (1, 3, H, W) fp32 -> (1, D)


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A file's model before it is known how it takes an image."""

    kind: str
    name: str
    run: Run
    fixed: tuple[int, int] | None = None  # (width, height) that the file declares
    are_bytes: bool = False


def faults_of_file(place: Path) -> list[str]:
    """Why the file is no embedding model, as far as that is seen without running it."""
    if place.suffix.lower() == ".onnx":
        return [] if find_spec("onnxruntime") else [f"{place}: {NEED}"]
    try:
        with zipfile.ZipFile(place) as file:
            names = file.namelist()
    except (OSError, zipfile.BadZipFile):
        names = []
    if any(name.endswith("/constants.pkl") for name in names):
        return []
    what = "weights without a model" if any(name.endswith("/data.pkl") for name in names) else "no TorchScript"
    return [f"{place}: it holds {what}. Expected a file that torch.jit.save wrote, such as SSCD's."]


def open_file(place: Path, *, device: torch.device, side: int | None = None) -> Embedder:
    """The model, tried on a few images. Raises Refused with the library's reason."""
    loaded = load_file(place, device)
    try:
        vector, prepared = _prepared(place, loaded, side)
        width = tried(vector, str(place))
    except Refused:
        raise
    except Exception as error:  # of the model itself
        raise Refused(f"{place} cannot be run ({reason(error)}).{_hint(place, loaded, side)}") from error
    definition = Definition(
        path=str(place),
        kind=loaded.kind,
        name=loaded.name,
        input=prepared,
        output="the first output",
        width=width,
        sha256=hash_of([place]),
    )
    return Embedder(definition=definition, vector=vector)


def load_file(place: Path, device: torch.device) -> Loaded:
    """The file's model. Raises Refused with the library's reason."""
    try:
        return _onnx(place) if place.suffix.lower() == ".onnx" else _torchscript(place, device)
    except Refused:
        raise
    except Exception as error:  # of torch, of onnxruntime
        raise Refused(f"{place} cannot be loaded ({reason(error)}).") from error


def _hint(place: Path, loaded: Loaded, side: int | None) -> str:
    if loaded.fixed or processor_folder(place):
        return ""
    return f" It was tried at {side or SIDE} pixels; give another size (of a score: size; --embed-size PIXELS of a judgement)."


def _torchscript(place: Path, device: torch.device) -> Loaded:
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch.jit is no longer developed; such files exist
        model = torch.jit.load(str(place), map_location=device).eval()  # type: ignore[no-untyped-call]

    def run(pixels: Any) -> Any:
        with torch.no_grad():
            found = model(torch.from_numpy(pixels).to(device))
        while isinstance(found, (tuple, list)):
            found = found[0]
        return found.float().cpu().numpy()

    return Loaded(kind="torchscript", name=str(model.original_name), run=run)


def _onnx(place: Path) -> Loaded:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors alone
    session = onnxruntime.InferenceSession(str(place), options, providers=["CPUExecutionProvider"])
    inputs = session.get_inputs()
    shape = [value if isinstance(value, int) else None for value in inputs[0].shape]
    if len(inputs) != 1 or len(shape) != 4 or 3 not in (shape[1], shape[3]):
        listed = "; ".join("x".join(map(str, one.shape)) for one in inputs)
        raise Refused(f"{place} has inputs of shape {listed}. Expected one image, 1 x 3 x h x w or 1 x h x w x 3.")
    first = shape[1] == 3
    height, width = shape[2:] if first else shape[1:3]

    def run(pixels: Any) -> Any:
        return session.run(None, {inputs[0].name: pixels if first else pixels.transpose(0, 2, 3, 1)})[0]

    return Loaded(
        kind="onnx",
        name=str(session.get_modelmeta().graph_name or place.stem),
        run=run,
        fixed=(width, height) if width and height else None,
        are_bytes="uint8" in inputs[0].type,
    )


def processor_folder(place: Path) -> Path | None:
    """Where the settings are by which images of a file are prepared; None where there are none."""
    return next((folder for folder in (place.parent, place.parent.parent) if (folder / PROCESSORS[0]).is_file()), None)


def _prepared(place: Path, loaded: Loaded, side: int | None) -> tuple[Callable[[Image], Any], str]:
    """(an image's vector, how the image is prepared)."""
    run, fixed, are_bytes = loaded.run, loaded.fixed, loaded.are_bytes
    folder = None if are_bytes else processor_folder(place)
    if folder is not None:
        return _by_processor(folder, run)
    short = side or SIDE

    def sized(image: Image, size: tuple[int, int]) -> Any:
        plain = Input(*size, (0.0, 0.0, 0.0), (1.0 / 255.0,) * 3) if are_bytes else Input(*size)
        numbers = plain.numbers(image).transpose(2, 0, 1)[None]  # (1, 3, H, W)
        return first_vector(run(numbers.round().astype("uint8") if are_bytes else numbers))

    values = "bytes" if are_bytes else "ImageNet mean and deviation"
    if fixed is not None:
        return lambda image: sized(image, fixed), f"{fixed[0]} x {fixed[1]} px, {values}"
    try:
        sized(tried_images()[0], _short(tried_images()[0], short))
    except Exception:  # it takes squares alone, or cannot be run at all: then that is seen next
        return lambda image: sized(image, (short, short)), f"{short} x {short} px, {values}"
    return lambda image: sized(image, _short(image, short)), f"short side {short} px, {values}"


def _by_processor(folder: Path, run: Run) -> tuple[Callable[[Image], Any], str]:
    from transformers import AutoImageProcessor

    with quiet():
        processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False, backend="pil")
    return (
        lambda image: first_vector(run(processor(images=image, return_tensors="np")["pixel_values"].astype("float32"))),
        f"{type(processor).__name__} of {folder / PROCESSORS[0]}",
    )


def _short(image: Image, side: int) -> tuple[int, int]:
    """(width, height) at which the short side has so many pixels."""
    scale = side / min(image.size)
    width, height = (max(side, round(length * scale)) for length in image.size)
    return width, height


def first_vector(found: Any) -> Any:
    """(D,) of (1, D), (D,) or (1, D, 1, 1)."""
    import numpy

    shape: Sequence[int] = numpy.shape(found)
    kept = [length for length in shape if length != 1]
    return numpy.asarray(found, dtype=numpy.float64).reshape(kept)
