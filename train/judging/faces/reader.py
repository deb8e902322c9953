"""A face's vector: the largest face of an image, turned and scaled by its five points to where ArcFace has them, embedded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infer.score.models.embedder import Definition, hash_of, tried, unit
from infer.score.models.files import ENDINGS, NEED, faults_of_file, first_vector, load_file
from registry.detect.transformers_folder import reason
from registry.errors import Refused
from registry.home import expanded
from train.judging.faces.detector import Detector, open_detector

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

SIDE = 112  # pixels of a face
# where the points are at that size (Deng et al. 2019, ArcFace; as InsightFace aligns), from the left eye of the image on
TEMPLATE = ((38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041))


@dataclass(frozen=True, kw_only=True)
class FaceReader:
    """A detector and an embedding model that are open."""

    detector: Detector
    definition: Definition
    embed: Callable[[Image], Any]  # a face of the model's size -> (D,)
    side: int

    def vector(self, image: Image) -> Any | None:
        """(D,) float64 of length 1; None for an image without a face."""
        face = self.detector.largest(image)
        found = None if face is None else aligned(image.convert("RGB"), face.points, self.side)
        return None if found is None else unit(self.embed(found), self.definition.path)

    @property
    def definitions(self) -> tuple[Definition, Definition]:
        return self.definition, self.detector.definition


def aligned(image: Image, points: Any, side: int) -> Image | None:
    """The face (side, side), its points turned, scaled and moved as near to the template as may be; None where they are one."""
    import numpy
    from PIL import Image

    z = numpy.asarray(points, dtype=numpy.float64) @ numpy.array([1, 1j])
    w = (numpy.array(TEMPLATE) + 0.5) @ numpy.array([1, 1j]) * (side / SIDE)
    spread = float((abs(z - z.mean()) ** 2).sum())
    turn = (numpy.conj(z - z.mean()) * (w - w.mean())).sum() / spread if spread > 1e-6 else 0.0  # least squares (Umeyama 1991)
    if abs(turn) < 1e-6:
        return None
    factor = max(1, int(1 / abs(turn)))  # a larger face is averaged before it is sampled
    smaller = image.reduce(factor) if factor > 1 else image
    back = 1 / turn / factor
    move = (z.mean() - w.mean() / turn) / factor
    data = (back.real, -back.imag, move.real, back.imag, back.real, move.imag)
    return smaller.transform((side, side), Image.Transform.AFFINE, data, Image.Resampling.BILINEAR)


def face_faults(model: str | None, detector: str | None) -> list[str]:
    """Why these are no models of faces, as far as that is seen without running them."""
    if model is None and detector is None:
        return []
    if detector is None:
        return ["--faces needs --face-detector PATH: YuNet's ONNX file (OpenCV's model zoo), which finds the faces."]
    if model is None:
        return ["--face-detector needs --faces PATH: a face embedding such as ArcFace's, ONNX or TorchScript."]
    faults = []
    for option, path, endings in (("--faces", model, ENDINGS), ("--face-detector", detector, (".onnx",))):
        place = Path(expanded(path))
        if not place.is_file():
            faults.append(f"{option} {path}: there is no such file.")
        elif place.suffix.lower() not in endings:
            faults.append(f"{option} {path}: it is no model by its ending. Expected {', '.join(endings)}.")
        elif option == "--face-detector":
            faults += [] if find_spec("onnxruntime") else [f"{option} {path}: {NEED}"]
        else:
            faults += [f"{option} {fault}" for fault in faults_of_file(place)]
    return faults


def open_faces(model: str, detector: str, *, device: torch.device) -> FaceReader:
    """Both models, tried. Raises Refused with what is wrong."""
    import numpy

    place = Path(expanded(model))
    loaded = load_file(place, device)
    side = loaded.fixed[0] if loaded.fixed else SIDE
    if loaded.fixed and loaded.fixed[0] != loaded.fixed[1]:
        raise Refused(f"{place} takes {loaded.fixed[0]} x {loaded.fixed[1]} pixels. Expected a face embedding, whose input is square.")

    def embed(image: Image) -> Any:
        pixels = numpy.asarray(image.convert("RGB").resize((side, side)), dtype=numpy.float32).transpose(2, 0, 1)[None]
        return first_vector(loaded.run(pixels.astype(numpy.uint8) if loaded.are_bytes else (pixels - 127.5) / 127.5))

    try:
        width = tried(embed, str(place))
    except Refused:
        raise
    except Exception as error:  # of the model itself
        raise Refused(f"{place} cannot be run on {side} x {side} pixels ({reason(error)}).") from error
    values = "bytes" if loaded.are_bytes else "-1 to 1"
    definition = Definition(
        path=str(place),
        kind=loaded.kind,
        name=loaded.name,
        input=f"a face turned by five points, {side} x {side} px, {values}",
        output="the first output",
        width=width,
        sha256=hash_of([place]),
    )
    return FaceReader(detector=open_detector(Path(expanded(detector))), definition=definition, embed=embed, side=side)
