"""A folder with a model of transformers: checked without reading its weights, and loaded without the library's chatter."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from registry.plain_values import from_json

WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json", "tokenizer.model", "sentencepiece.bpe.model", "spiece.model", "tekken.json")
PROCESSORS = ("preprocessor_config.json", "processor_config.json")


def folder_faults(path: Path, types: Collection[str], what: str, *, instead: str = "") -> list[str]:
    """Why the folder is no model of one of these `model_type`s with a tokenizer; `what`: what it should be, with its article."""
    config = path / "config.json"
    if not config.is_file():
        return [f"{path}: has no config.json. Expected {what} of transformers (config.json){instead}"]
    faults = []
    try:
        plain = from_json(config.read_bytes())
    except (OSError, ValueError) as error:
        return [f"{config} cannot be read ({error})"]
    kind = plain.get("model_type") if isinstance(plain, dict) else None
    if not isinstance(kind, str) or kind not in types:
        faults.append(f"{config}: model_type is {kind!r}, which transformers has no {what.partition(' ')[2]} for")
    if not any(file for pattern in WEIGHTS for file in path.glob(pattern)):
        faults.append(f"{path}: has no weights ({', '.join(WEIGHTS)})")
    if not any((path / name).is_file() for name in TOKENIZERS):
        faults.append(f"{path}: has no tokenizer ({', '.join(TOKENIZERS)})")
    return faults


@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' progress bars and advice."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()  # for good: progress is reported by the caller
    try:
        yield
    finally:
        logging.set_verbosity(level)


def reason(error: BaseException) -> str:
    """The first line of a library's message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
