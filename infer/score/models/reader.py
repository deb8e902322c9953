"""What reads the text in an image: an image-to-text model of transformers by path (TrOCR, Donut, GOT-OCR, ...), or tesseract."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from infer.draw.machine import pick_device
from infer.score.models.embedder import hash_of
from infer.score.scorer import Plain, Scene
from registry.detect.transformers_folder import PROCESSORS, TOKENIZERS, WEIGHTS, folder_faults, quiet, reason
from registry.errors import Faults, NotFound, Refused
from registry.home import expanded

if TYPE_CHECKING:
    from PIL.Image import Image

Reader = Callable[["Image"], str]
TOKENS = 128  # of the text that is read
NEED = "Give model: FOLDER of an image-to-text model (TrOCR), or install tesseract and: pip install 'loraloom[ocr]'"


def text_reader(scene: Scene, path: str | None) -> tuple[dict[str, Plain], Callable[[], Reader]]:
    """(what it is, what opens it). Raises Faults, NotFound, Refused."""
    if path is None:
        return _tesseract()
    place = Path(expanded(path)).absolute()
    if not place.is_dir():
        raise NotFound(f"model {path}: there is no such folder. Expected an image-to-text model of transformers, such as TrOCR.")
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    if faults := folder_faults(place, set(MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES), "an image-to-text model"):
        raise Faults("This model cannot be used:", faults)
    own = [place / name for name in ("config.json", "generation_config.json", *PROCESSORS, *TOKENIZERS) if (place / name).is_file()]
    weights = next(found for pattern in WEIGHTS if (found := sorted(place.glob(pattern))))
    return {"path": str(place), "sha256": hash_of([*own, *weights], place)}, lambda: _opened(place, pick_device(scene.device))


def _tesseract() -> tuple[dict[str, Plain], Callable[[], Reader]]:
    missing = [] if find_spec("pytesseract") else ["the package pytesseract"]
    missing += [] if shutil.which("tesseract") else ["the program tesseract"]
    if missing:
        raise Refused(f"{' and '.join(missing)} {'are' if len(missing) > 1 else 'is'} not installed. {NEED}.")
    import pytesseract

    version = str(pytesseract.get_tesseract_version())

    def opened() -> Reader:
        return lambda image: str(pytesseract.image_to_string(image, config="--psm 11"))  # sparse text, in no order

    return {"path": "tesseract", "sha256": version}, opened


def _opened(place: Path, device: str) -> Reader:
    """The model, tried on an image. Raises Refused with the library's reason."""
    from PIL import Image

    with quiet():
        try:
            read = _model(place, device)
            read(Image.new("RGB", (64, 64), (128, 128, 128)))
        except Exception as error:  # each model's own classes raise what they meet
            raise Refused(f"{place} cannot read an image ({reason(error)}).") from error
    return read


def _model(place: Path, device: str) -> Reader:
    import torch
    from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer

    model = AutoModelForImageTextToText.from_pretrained(place, local_files_only=True, trust_remote_code=False, dtype=torch.float32)
    model = model.eval().to(device)
    images = AutoImageProcessor.from_pretrained(place, local_files_only=True, trust_remote_code=False, backend="pil")
    tokenizer = AutoTokenizer.from_pretrained(place, local_files_only=True, trust_remote_code=False)

    def read(image: Image) -> str:
        pixels = images(images=image, return_tensors="pt")["pixel_values"].to(device)
        with torch.no_grad():
            tokens = model.generate(pixel_values=pixels, max_new_tokens=TOKENS, do_sample=False, num_beams=1)[0]
        return str(tokenizer.decode(tokens, skip_special_tokens=True))

    return read
