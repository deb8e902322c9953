"""Segmenters by path: a transformers folder, an ONNX file, a TFLite file (mediapipe's selfie segmenter). Nothing is downloaded."""

# C classes, h w the model's size

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.errors import Refused, understood
from registry.home import expanded
from registry.images.model_input import IMAGENET, Input
from registry.plain_values import from_json
from train.masks.pixels import chosen, probabilities

if TYPE_CHECKING:
    from PIL.Image import Image

EXPECTED = "Expected a transformers folder (config.json, model.safetensors), or a file .onnx or .tflite"
SIDE = 1024  # pixels a side for a model that takes any size and names none: that of BiRefNet and IS-Net
EXTRA = 'pip install "loraloom[masks]"'


@dataclass(frozen=True)
class ModelOptions:
    """What a person sets; None and empty: the model's own."""

    labels: tuple[str, ...] = ()
    size: int | None = None  # pixels a side
    mean: tuple[float, ...] | None = None
    deviation: tuple[float, ...] | None = None
    device: str = "cpu"


@dataclass(frozen=True)
class Segmenter:
    """A model that gives the share of every pixel that is kept."""

    classes: tuple[str, ...]
    kept: tuple[int, ...]
    input_of: Callable[[Image], Input]
    scores: Callable[[Any], Any]  # (h, w, 3) numbers -> (C, h', w'), logits or shares
    are_shares: bool = False

    def __call__(self, image: Image) -> Any:
        """(h', w') in 0..1."""
        found = self.scores(self.input_of(image).numbers(image))
        shares = found if self.are_shares else probabilities(found)
        return sum(shares[number] for number in dict.fromkeys(self.kept))


def open_segmenter(path: str, given: ModelOptions) -> Segmenter:
    """The segmenter at `path`. Raises Refused for what is none, and for a class that it has not."""
    place = expanded(path)
    if place.is_dir() and (place / "config.json").is_file():
        return _transformers(place, given)
    kind = place.suffix.lower()
    if not place.is_file() or kind not in (".onnx", ".tflite"):
        there = "there is no such file or folder" if not place.exists() else "it is neither"
        raise Refused(f"--model {path}: {there}. {EXPECTED}.")
    return _onnx(place, given) if kind == ".onnx" else _tflite(place, given)


def _needs(module: str, place: Path) -> None:
    if find_spec(module) is None:
        raise Refused(f"{place.name} needs the package {module.replace('_', '-')}: {EXTRA}")


def _named(count: int, given: ModelOptions) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """(names, the kept ones) of classes that a file has no names for."""
    names = tuple(f"class {number}" for number in range(count))
    return names, tuple(chosen(given.labels, names))


def _fixed(given: ModelOptions, width: int, height: int, usual: tuple[Sequence[float], Sequence[float]]) -> Callable[[Image], Input]:
    read = Input(width, height, tuple(given.mean or usual[0]), tuple(given.deviation or usual[1]))
    return lambda _image: read


# --- transformers


def _transformers(place: Path, given: ModelOptions) -> Segmenter:
    import torch
    import transformers

    plain = _json(place / "config.json")
    with understood(place / "config.json"):
        architecture = str((plain.get("architectures") or ["none"])[0])
    kind = getattr(transformers, architecture, None)
    if kind is None:
        why = " needs code of its own, which is not run" if plain.get("auto_map") else " is no class of this version of transformers"
        raise Refused(f"--model {place}: {architecture}{why}. Give the model as an ONNX file.")
    if "Segmentation" not in architecture:
        raise Refused(f"--model {place}: {architecture} is no segmentation model.")
    with understood(place):
        model = kind.from_pretrained(place, local_files_only=True, use_safetensors=True, dtype=torch.float32)
    model.eval().to(given.device)
    labels = {int(number): str(name) for number, name in (model.config.id2label or {}).items()}
    names = tuple(labels.get(number, f"class {number}") for number in range(max(labels, default=0) + 1))
    own = _json(place / "preprocessor_config.json")

    def scores(numbers: Any) -> Any:
        pixels = torch.from_numpy(numbers).permute(2, 0, 1)[None].to(given.device)
        with torch.no_grad():
            return shares_of(model(pixel_values=pixels)).float().cpu().numpy()

    mean, deviation = given.mean or own.get("image_mean") or IMAGENET[0], given.deviation or own.get("image_std") or IMAGENET[1]
    if own.get("do_normalize") is False and given.mean is None:
        mean, deviation = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)

    def input_of(image: Image) -> Input:
        return Input(*_size(image, given.size or own.get("size") or SIDE), tuple(map(float, mean)), tuple(map(float, deviation)))

    with understood(place / "preprocessor_config.json"):  # before the first image
        input_of(_tried())

    return Segmenter(names, tuple(chosen(given.labels, names)), input_of, scores, are_shares=True)


def shares_of(answer: Any) -> Any:
    """(C, h, w) shares from a transformers segmentation model's output of one image.

    Masks by query are joined as their papers do: sum over queries of softmax(class) sigmoid(mask) (Cheng et al. 2021, section 3.4).
    """
    import torch

    queries, masks = answer.get("class_queries_logits"), answer.get("masks_queries_logits")
    if masks is None and answer.get("pred_masks") is not None:
        queries, masks = answer["logits"], answer["pred_masks"]
    if masks is not None and queries is not None:
        classes = queries[0].float().softmax(-1)[:, :-1]  # (Q, C), without "no object"
        return torch.einsum("qc,qhw->chw", classes, masks[0].float().sigmoid()).clamp(0.0, 1.0)
    logits = answer["logits"][0].float()
    return logits.sigmoid() if len(logits) == 1 else logits.softmax(0)


def _tried() -> Image:
    from PIL import Image

    return Image.new("RGB", (SIDE, SIDE))


def _json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    with understood(file):
        plain = from_json(file.read_bytes())
    if not isinstance(plain, dict):
        raise Refused(f"{file} does not hold settings.")
    return plain


def _size(image: Image, size: Any) -> tuple[int, int]:
    """(width, height) of a processor's `size`: a number, height and width, or an edge that keeps the aspect."""
    if isinstance(size, dict) and {"height", "width"} <= size.keys():
        return int(size["width"]), int(size["height"])
    if isinstance(size, dict):
        short, long = size.get("shortest_edge"), size.get("longest_edge")
        scale = min(edge / side for edge, side in ((short, min(image.size)), (long, max(image.size))) if edge)
        width, height = (max(32, round(side * scale / 32) * 32) for side in image.size)
        return width, height
    return int(size), int(size)


# --- files


def _onnx(place: Path, given: ModelOptions) -> Segmenter:
    _needs("onnxruntime", place)
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    with understood(place):
        session = onnxruntime.InferenceSession(str(place), options, providers=["CPUExecutionProvider"])
    inputs = session.get_inputs()
    shape = [side if isinstance(side, int) else None for side in inputs[0].shape]
    if len(inputs) != 1 or len(shape) != 4 or 3 not in (shape[1], shape[3]):
        raise Refused(f"--model {place}: its input is {inputs[0].shape}, expected one image (1, 3, h, w) or (1, h, w, 3).")
    first = shape[1] == 3
    height, width = shape[2:] if first else shape[1:3]
    side = given.size or SIDE

    def scores(numbers: Any) -> Any:
        pixels = numbers.transpose(2, 0, 1)[None] if first else numbers[None]
        return _maps(session.run(None, {inputs[0].name: pixels})[0], place)

    channels = _channels(session.get_outputs()[0].shape)
    names, kept = _named(channels, given)
    return Segmenter(names, kept, _fixed(given, width or side, height or side, IMAGENET), scores)


def _channels(shape: Sequence[Any]) -> int:
    """Classes of an output (1, C, h, w), (1, h, w, C), (1, h, w) or (h, w): the small one of its sides."""
    if len(shape) < 4:
        return 1
    ends = [side for side in (shape[1], shape[3]) if isinstance(side, int)]
    return min(ends) if ends else 1


def _maps(answer: Any, place: Path) -> Any:
    """(C, h, w) of an output in any of those orders."""
    import numpy

    found = numpy.asarray(answer)
    if found.ndim == 4 and found.shape[3] < found.shape[1]:
        found = found.transpose(0, 3, 1, 2)
    if found.ndim == 4:
        return found[0]
    if found.ndim == 3:
        return found[:1]
    if found.ndim == 2:
        return found[None]
    raise Refused(f"--model {place}: its output is of the shape {found.shape}, expected a map (1, C, h, w).")


def _tflite(place: Path, given: ModelOptions) -> Segmenter:
    """mediapipe's models: pixels in 0..1, (1, h, w, 3), an answer (1, h, w, C)."""
    _needs("ai_edge_litert", place)
    from ai_edge_litert.interpreter import Interpreter

    with understood(place):
        interpreter = Interpreter(model_path=str(place))
        interpreter.allocate_tensors()
    source, target = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    shape = [int(side) for side in source["shape"]]
    if len(shape) != 4 or shape[3] != 3:
        raise Refused(f"--model {place}: its input is {shape}, expected one image (1, h, w, 3).")

    def scores(numbers: Any) -> Any:
        interpreter.set_tensor(source["index"], numbers[None])
        interpreter.invoke()
        return _maps(interpreter.get_tensor(target["index"]), place)

    names, kept = _named(_channels([int(side) for side in target["shape"]]), given)
    plain = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    return Segmenter(names, kept, _fixed(given, shape[2], shape[1], plain), scores)
