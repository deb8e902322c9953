"""Models that take two images and give their distance, in one file: LPIPS as TorchScript or ONNX.

    torch.jit.trace(lpips.LPIPS(net="alex").eval(), (torch.zeros(1, 3, 64, 64),) * 2).save("lpips.pt")

Both images as (1, 3, H, W), RGB in -1..1, as lpips.LPIPS.forward takes them (Zhang et al. 2018).
"""

# H W the images' size

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infer.draw.machine import pick_device
from infer.score.models.embedder import hash_of, tried_images
from infer.score.models.files import faults_of_file
from infer.score.scorer import Plain, Scene
from registry.detect.transformers_folder import reason
from registry.errors import Faults, NotFound, Refused
from registry.home import expanded

if TYPE_CHECKING:
    from PIL.Image import Image

Distance = Callable[[Any, Any], float]  # of two (1, 3, H, W) fp32 in -1..1


def pair_model(scene: Scene, path: str) -> tuple[dict[str, Plain], Callable[[], Distance]]:
    """(path and sha256, what opens it). Raises Faults, NotFound."""
    place = Path(expanded(path)).absolute()
    if not place.is_file():
        raise NotFound(f"model {path}: there is no such file. Expected a TorchScript or ONNX file that takes two images.")
    if faults := faults_of_file(place):
        raise Faults("This model cannot be used:", faults)
    return {"path": str(place), "sha256": hash_of([place])}, lambda: _opened(place, pick_device(scene.device))


def signed(image: Image) -> Any:
    """(1, 3, H, W) fp32 in -1..1."""
    import numpy

    return numpy.asarray(image.convert("RGB"), dtype=numpy.float32).transpose(2, 0, 1)[None] / 127.5 - 1


def _opened(place: Path, device: str) -> Distance:
    """The model, tried on two images. Raises Refused with the library's reason."""
    try:
        run = _onnx(place) if place.suffix.lower() == ".onnx" else _torchscript(place, device)
        one, other = (signed(image.resize((64, 64))) for image in tried_images()[:2])
        apart, same = run(one, other), run(one, one)
    except Refused:
        raise
    except Exception as error:  # of the library, of the model itself
        raise Refused(f"{place} cannot be run on two images ({reason(error)}).") from error
    if not apart > same:
        raise Refused(f"{place} gives {apart:g} for two images that differ and {same:g} for equal ones: that is no distance.")
    return run


def _torchscript(place: Path, device: str) -> Distance:
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        model = torch.jit.load(str(place), map_location=device).eval()  # type: ignore[no-untyped-call]

    def run(one: Any, other: Any) -> float:
        with torch.no_grad():
            return _number(model(torch.from_numpy(one).to(device), torch.from_numpy(other).to(device)).float().cpu().numpy(), place)

    return run


def _onnx(place: Path) -> Distance:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors alone
    session = onnxruntime.InferenceSession(str(place), options, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]
    if len(names) != 2:
        raise Refused(f"{place} has {len(names)} inputs. Expected two images, 1 x 3 x h x w each.")
    return lambda one, other: _number(session.run(None, dict(zip(names, (one, other), strict=True)))[0], place)


def _number(found: Any, place: Path) -> float:
    import numpy

    value = numpy.asarray(found)
    if value.size != 1:
        raise Refused(f"{place} gives {value.shape} numbers for two images; expected one.")
    return float(value.reshape(()))
