"""Image-to-text models of transformers: BLIP, GIT, a vision encoder with a text decoder, Florence-2, LLaVA, Qwen-VL and their relatives."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.detect.transformers_folder import PROCESSORS, folder_faults, quiet, reason
from registry.errors import Refused

if TYPE_CHECKING:
    from PIL.Image import Image

CHAT_PROMPT = "Describe this image."
PROMPTS = {"florence2": "<DETAILED_CAPTION>"}  # of models that need one, by model_type
TRIED = 64  # pixels of the grey image that a model is tried on


def faults_of_model(path: Path) -> list[str]:
    """Why the folder is no image-to-text model; no weights are read."""
    if not path.is_dir():
        return [f"{path} is a file. Expected a folder with a model of transformers, or a tagger's .onnx"]
    faults = folder_faults(path, _known_types(), "an image-to-text model", instead=" or a tagger (model.onnx, selected_tags.csv)")
    if (path / "config.json").is_file() and not any((path / name).is_file() for name in PROCESSORS):
        faults.append(f"{path}: has no {' or '.join(PROCESSORS)}, by which images are prepared")
    return faults


def _known_types() -> set[str]:
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    return set(MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES)


class LanguageModel:
    """The caption that the model finds most probable, token by token (greedy, or by beam search): no sampling."""

    kind = "transformers"

    def __init__(self, path: Path, *, prompt: str | None, max_tokens: int, beams: int, device: str) -> None:
        from transformers import AutoModelForImageTextToText

        self.model = AutoModelForImageTextToText.from_pretrained(path, local_files_only=True, trust_remote_code=False).to(device).eval()
        self._images, self._tokenizer, self._processor = _processors(path)
        self._type = self.model.config.model_type
        self._is_chat = bool(getattr(self._processor, "chat_template", None))
        self._prompt = prompt or (CHAT_PROMPT if self._is_chat else PROMPTS.get(self._type))
        self._limits = {"max_new_tokens": max_tokens, "num_beams": beams, "do_sample": False}
        self._device = device

    def __call__(self, image: Image) -> str:
        import torch

        inputs = self._inputs(image)
        with torch.no_grad():
            tokens = self.model.generate(**inputs, **self._limits)[0]
        given = inputs["input_ids"][0] if self._is_chat else tokens[:0]
        if len(given) and torch.equal(tokens[: len(given)], given):  # a decoder repeats what it was given
            tokens = tokens[len(given) :]
        return " ".join(self._tokenizer.decode(tokens, skip_special_tokens=True).split())

    def _inputs(self, image: Image) -> Any:
        if self._is_chat:
            content = [{"type": "image", "image": image}, {"type": "text", "text": self._prompt}]
            messages = [{"role": "user", "content": content}]
            prepared = self._processor.apply_chat_template(
                messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
            )
        elif self._type == "git" and self._prompt:  # it continues a text without an end
            import torch

            ids = [self._tokenizer.cls_token_id, *self._tokenizer(self._prompt, add_special_tokens=False).input_ids]
            prepared = {**self._images(images=image, return_tensors="pt"), "input_ids": torch.tensor([ids])}
        elif self._prompt:
            if self._processor is None:
                raise ValueError(f"a model of type {self._type} reads no prompt")
            prepared = self._processor(images=image, text=self._prompt, return_tensors="pt")
        else:
            prepared = self._images(images=image, return_tensors="pt")
        return {
            name: value.to(self._device, self.model.dtype) if value.is_floating_point() else value.to(self._device)
            for name, value in prepared.items()
            if hasattr(value, "is_floating_point")
        }


def _processors(path: Path) -> tuple[Any, Any, Any]:
    """(what prepares an image, the tokenizer, what prepares both: None where the model has no such)."""
    from transformers import AutoImageProcessor, AutoProcessor, AutoTokenizer, ProcessorMixin

    processor = AutoProcessor.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    if isinstance(processor, ProcessorMixin):
        return processor.image_processor, processor.tokenizer, processor
    images = AutoImageProcessor.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    return images, AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False), None


def open_language_model(path: Path, *, prompt: str | None, max_tokens: int, beams: int, device: str) -> LanguageModel:
    """The model, tried on a grey image. Raises Refused with the library's reason."""
    from PIL import Image

    with quiet():
        try:
            model = LanguageModel(path, prompt=prompt, max_tokens=max_tokens, beams=beams, device=device)
        except Exception as error:  # each model's own classes raise what they meet
            raise Refused(f"{path} cannot be loaded ({reason(error)}).") from error
        try:
            model(Image.new("RGB", (TRIED, TRIED), (128, 128, 128)))
        except Exception as error:
            hint = "" if prompt else " If it needs a prompt, give --prompt."
            raise Refused(f"{path} cannot caption an image ({reason(error)}).{hint}") from error
    return model
