"""Image models of transformers, with the folder's own image processor (its PIL form) and, where it has one, its text side.

Which output is the image's vector:

    get_image_features   models with two sides (CLIP, SigLIP): the projection into the space that both share
    image_embeds         the same of a vision model with projection alone
    pooler_output        vision models (DINOv2, SigLIP's), where the weights of the pooler are in the file
    class token          of the last hidden state, where they are not (DINO): transformers fills a missing pooler with random weights
    mean of tokens       of the last hidden state, for a model without a class token
"""

# T tokens, D numbers of a vector

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infer.score.models.embedder import Definition, Embedder, hash_of, tried, tried_images
from registry.detect.transformers_folder import PROCESSORS, TOKENIZERS, WEIGHTS, quiet, reason
from registry.errors import Refused
from registry.plain_values import from_json

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

PADDED = "siglip"  # model types that begin so read texts at their full length, as they were trained (Zhai et al. 2023)
CLASS_TOKENS = ("cls_token", "class_embedding", "class_token")


def faults_of_model(place: Path, *, texts: bool = False) -> list[str]:
    """Why the folder is no image model, with `texts` none with a text side too; no weights are read."""
    try:
        model = _class_of(place)
    except Refused as error:
        return [str(error)]
    faults = []
    name = model.__name__
    if not hasattr(model, "get_image_features") and model.main_input_name != "pixel_values":
        faults.append(f"{place}: {name} has no image side. Give a model that reads images, such as CLIP, SigLIP or DINOv2.")
    if texts and not hasattr(model, "get_text_features"):
        faults.append(f"{place}: {name} has no text side. Give a model with both, such as CLIP or SigLIP.")
    elif texts and not any((place / file).is_file() for file in TOKENIZERS):
        faults.append(f"{place}: has no tokenizer ({', '.join(TOKENIZERS)}).")
    if not _weights(place):
        faults.append(f"{place}: has no weights ({', '.join(WEIGHTS)}).")
    if not any((place / file).is_file() for file in PROCESSORS):
        faults.append(f"{place}: has no {' or '.join(PROCESSORS)}, by which images are prepared.")
    return faults


def _class_of(place: Path) -> Any:
    """The class of transformers that the folder's config.json asks for, without a head. Raises Refused."""
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

    file = place / "config.json"
    if not file.is_file():
        raise Refused(f"{place}: has no config.json. Expected a model of transformers.")
    try:
        plain = from_json(file.read_bytes())
    except (OSError, ValueError) as error:
        raise Refused(f"{file} cannot be read ({reason(error)}).") from error
    kind = plain.get("model_type") if isinstance(plain, dict) else None
    names = MODEL_MAPPING_NAMES.get(kind) if isinstance(kind, str) else None
    if names is None:
        own = isinstance(plain, dict) and plain.get("auto_map")
        why = "it needs code of its own, which is not run. Give it as an ONNX file" if own else "transformers has no such model"
        raise Refused(f"{file}: model_type is {kind!r}: {why}.")
    given = plain.get("architectures")
    first = given[0] if isinstance(given, list) and given else None
    if isinstance(first, str) and first.endswith("WithProjection") and hasattr(transformers, first):
        return getattr(transformers, first)
    return getattr(transformers, names if isinstance(names, str) else names[0])


def _weights(place: Path) -> list[Path]:
    """The files that hold the weights: safetensors where there are any."""
    for pattern in WEIGHTS:
        if found := sorted(place.glob(pattern)):
            return found
    return []


def open_model(place: Path, *, device: torch.device, texts: bool = False) -> Embedder:
    """The model, tried on a few images, with `texts` on a text too. Raises Refused with the library's reason."""
    with quiet():
        model, missing = _loaded(place, device)
        processor = _processor(place)
        try:
            vector, output = _image_side(model, processor, device, pooled=not missing)
            width = tried(vector, str(place))
            side = _text_side(place, model, device) if texts else (None, None)
            if side[0] is not None and (found := side[0]("a cat").shape) != (width,):
                raise Refused(f"{place}: its text side gives {found} numbers, its image side {width}: they are not compared.")
        except Refused:
            raise
        except Exception as error:  # each model's own classes raise what they meet
            raise Refused(f"{place} cannot be run ({reason(error)}).") from error
    definition = Definition(
        path=str(place),
        kind="transformers",
        name=type(model).__name__,
        input=type(processor).__name__,
        output=output,
        width=width,
        sha256=model_sha256(place, texts=texts),
    )
    return Embedder(definition=definition, vector=vector, text_vector=side[0], tokens=side[1])


def model_sha256(place: Path, *, texts: bool) -> str:
    """The hash of all that the vectors come of: settings, processor, weights, and with `texts` the tokenizer."""
    own = [place / name for name in ("config.json", *PROCESSORS, *(TOKENIZERS if texts else ())) if (place / name).is_file()]
    return hash_of([*own, *_weights(place)], place)


def count_tokens(place: Path) -> Callable[[str], tuple[int, int]]:
    """A text -> (its tokens, those that the text side reads), by the tokenizer alone."""
    from transformers import AutoConfig, AutoTokenizer

    with quiet():
        tokenizer = AutoTokenizer.from_pretrained(place, local_files_only=True, trust_remote_code=False)
        config = AutoConfig.from_pretrained(place, local_files_only=True, trust_remote_code=False)
    most = _most_tokens(tokenizer, config)
    return lambda text: (len(tokenizer(text).input_ids), most)


def _most_tokens(tokenizer: Any, config: Any) -> int:
    text = getattr(config, "text_config", config)
    return min(int(tokenizer.model_max_length), int(getattr(text, "max_position_embeddings", 0) or tokenizer.model_max_length))


def _loaded(place: Path, device: torch.device) -> tuple[Any, set[str]]:
    """(the model, keys of a pooler that are not in the file). Raises Refused where others are missing."""
    import torch

    kind = _class_of(place)
    try:
        model, info = kind.from_pretrained(place, local_files_only=True, dtype=torch.float32, output_loading_info=True)
    except Exception as error:  # each model's own classes raise what they meet
        raise Refused(f"{place} cannot be loaded ({reason(error)}).") from error
    missing = {str(key) for key in info["missing_keys"]}
    lost = sorted(key for key in missing if "pooler" not in key or hasattr(model, "get_image_features"))
    if lost or info["mismatched_keys"]:
        what = f"has no weights of {', '.join(lost[:3])}" if lost else "has weights of other shapes than its config.json"
        raise Refused(f"{place} {what}: its vectors would be random numbers.")
    return model.eval().to(device), missing


def _processor(place: Path) -> Any:
    """The folder's image processor as PIL and numpy compute it: the same numbers with torchvision and without."""
    from transformers import AutoImageProcessor

    try:
        return AutoImageProcessor.from_pretrained(place, local_files_only=True, trust_remote_code=False, backend="pil")
    except Exception as error:
        raise Refused(f"{place}: its image processor cannot be loaded ({reason(error)}).") from error


def _image_side(model: Any, processor: Any, device: torch.device, *, pooled: bool) -> tuple[Callable[[Image], Any], str]:
    """(an image's vector, which output it is). `pooled`: whether the weights of its pooler are known."""
    import torch

    both = hasattr(model, "get_image_features")

    def run(image: Image) -> Any:
        inputs = {name: value.to(device) for name, value in processor(images=image, return_tensors="pt").items() if hasattr(value, "to")}
        with torch.no_grad():
            return model.get_image_features(**inputs) if both else model(**inputs)

    first = any(name.rpartition(".")[2] in CLASS_TOKENS for name, _ in model.named_parameters())
    output = "get_image_features" if both else _output(run(tried_images()[0]), pooled=pooled, first=first)
    return lambda image: _vector(run(image), output), output


def _output(found: Any, *, pooled: bool, first: bool) -> str:
    """Which of the outputs is the image's vector."""
    if getattr(found, "image_embeds", None) is not None:
        return "image_embeds"
    if pooled and getattr(found, "pooler_output", None) is not None:
        return "pooler_output"
    return "class token of last_hidden_state" if first else "mean of last_hidden_state"


def _vector(found: Any, output: str) -> Any:
    """(D,) of what a model gives for one image."""
    if output == "image_embeds":
        value = found.image_embeds
    elif output in ("get_image_features", "pooler_output"):
        value = found.pooler_output
    else:
        tokens = found.last_hidden_state  # (1, T, D), of some (1, D, h, w)
        tokens = tokens.flatten(2).transpose(1, 2) if tokens.ndim == 4 else tokens
        value = tokens[:, 0] if output.startswith("class") else tokens.mean(1)
    return value[0].squeeze().float().cpu().numpy()


def _text_side(place: Path, model: Any, device: torch.device) -> tuple[Callable[[str], Any], Callable[[str], tuple[int, int]]]:
    """(a text's vector, its tokens and how many of them are read)."""
    import torch
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(place, local_files_only=True, trust_remote_code=False)
    most = _most_tokens(tokenizer, model.config)
    padded = str(model.config.model_type).startswith(PADDED)
    inputs = ("input_ids",) if padded else ("input_ids", "attention_mask", "token_type_ids")

    def vector(prompt: str) -> Any:
        padding = "max_length" if padded else False
        tokens = tokenizer(prompt, padding=padding, truncation=True, max_length=most, return_tensors="pt")
        with torch.no_grad():
            found = model.get_text_features(**{name: tokens[name].to(device) for name in inputs if name in tokens})
        return found.pooler_output[0].float().cpu().numpy()

    def tokens(prompt: str) -> tuple[int, int]:
        return len(tokenizer(prompt).input_ids), most

    return vector, tokens
