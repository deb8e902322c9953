"""Sets that `datasets.load_dataset` opens: a saved dataset, a parquet, csv or json file, a name on the hub."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

from registry.errors import JobFailed
from registry.home import expanded
from registry.names import suggest
from registry.sources.network import check_reachable
from train.data.metadata import caption_column_of, texts_of
from train.settings.data import DataConfig

BUILDERS = {".parquet": "parquet", ".arrow": "arrow", ".json": "json", ".jsonl": "json", ".csv": "csv"}
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
Entry = tuple[str, Callable[[], bytes], tuple[str, ...]]  # name, its bytes, its captions


def is_table(file: Path) -> bool:
    """Whether it is one file that a builder of `datasets` reads."""
    return file.suffix.lower() in BUILDERS


def read_hub(path: str, config: DataConfig) -> tuple[list[Entry], list[str]]:
    """The images and captions of the split, and the faults. Images stay encoded until they are read."""
    if fault := _mistyped(path):
        return [], [fault]
    try:
        table = _open(path, config.split)
    except Exception as error:  # load_dataset raises its builders' errors, the hub's and the network's
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        hint = "" if expanded(path).exists() else " There is no such folder on this machine."
        return [], [f"data.path={path!r} cannot be opened ({reason}).{hint}"]
    return _columns(table, path, config)


def _mistyped(path: str) -> str | None:
    """The fault of a path that does not exist and cannot be a set on the hub, found without the network."""
    place = expanded(path)
    is_near = os.path.isdir(place.parent)
    if os.path.exists(place) or (HUB_NAME.fullmatch(path) and not is_near):
        return None
    near = [entry.name for entry in place.parent.iterdir() if entry.is_dir()] if is_near else []
    close = get_close_matches(place.name, near, n=3)
    hint = f" Did you mean {' or '.join(repr(str(place.with_name(name))) for name in close)}?" if close else ""
    return f"data.path={path!r}: there is no such folder or file.{hint} A set on the hub is OWNER/NAME."


def _open(path: str, split: str) -> Any:
    from datasets import disable_progress_bars, load_dataset

    disable_progress_bars()  # progress is reported by the caller
    file = expanded(path)
    if file.is_file():
        return load_dataset(BUILDERS[file.suffix.lower()], data_files=str(file), split=split)
    with _network_or_cache(path):
        return load_dataset(path, split=split)


@contextmanager
def _network_or_cache(path: str) -> Iterator[None]:
    """Without a network only cached sets can be opened, refused at once: the libraries would retry for most of a minute."""
    from huggingface_hub import constants

    from datasets import config

    if expanded(path).exists() or constants.HF_HUB_OFFLINE:
        yield
        return
    try:
        check_reachable(os.environ.get("HF_ENDPOINT") or constants.ENDPOINT, wanted=path)
    except JobFailed as unreachable:
        before = constants.HF_HUB_OFFLINE, config.HF_HUB_OFFLINE
        constants.HF_HUB_OFFLINE = config.HF_HUB_OFFLINE = True
        try:
            yield
        except Exception:
            raise unreachable from None
        finally:
            constants.HF_HUB_OFFLINE, config.HF_HUB_OFFLINE = before
    else:
        yield


def _columns(table: Any, path: str, config: DataConfig) -> tuple[list[Entry], list[str]]:
    from datasets import Image

    images = [name for name, feature in table.features.items() if isinstance(feature, Image)]
    names = list(table.features)
    image = config.image_column
    if image is None and len(images) == 1:
        image = images[0]
    faults: list[str] = []
    if image is None:
        columns_text = f"has the image columns {', '.join(images)}" if images else f"has no image column (columns: {', '.join(names)})"
        faults.append(f"{path}: {columns_text}; set data.image_column")
    elif image not in names:
        faults.append(f"{path}: has no column {image!r} (data.image_column). {suggest(image, names)}")
    texts = [name for name in names if name != image and _holds_text(table.features[name])]
    texts = names if config.caption_column in names else texts
    caption, fault = caption_column_of(texts, config.caption_column, where=path)
    faults += [fault] if fault else []
    if faults or image is None:
        return [], faults
    if table.num_rows == 0:
        return [], [f"{path}: the split {config.split!r} has no rows"]
    if isinstance(table.features[image], Image):
        table = table.cast_column(image, Image(decode=False))
    entries: list[Entry] = []
    for number in range(table.num_rows):
        captions, fault = texts_of(table[number][caption], where=f"row {number}: {caption!r}") if caption else ((), None)
        faults += [fault] if fault else []
        entries.append((f"row {number}", partial(_bytes, table, number, image), captions))
    return entries, faults


def _holds_text(feature: Any) -> bool:
    """Whether a column is of texts, or of lists of texts."""
    return getattr(getattr(feature, "feature", feature), "dtype", None) in ("string", "large_string")


def _bytes(table: Any, number: int, column: str) -> bytes:
    """The encoded image of one row: stored bytes, a path, or base64 text."""
    value = table[number][column]
    if isinstance(value, dict):
        if value.get("bytes") is not None:
            return bytes(value["bytes"])
        value = value.get("path")
    if isinstance(value, (bytes, bytearray)):
        return bytes(value)
    if isinstance(value, str) and os.path.isfile(value):
        return Path(value).read_bytes()
    if isinstance(value, str):
        try:
            return base64.b64decode(value, validate=True)
        except ValueError:
            raise FileNotFoundError(f"its image {value[:80]!r} is not there") from None
    raise FileNotFoundError(f"column {column!r} holds {type(value).__name__}, expected an image")
