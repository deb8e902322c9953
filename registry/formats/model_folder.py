"""A model's folder on the disk: its small JSON files, everything below it, and the weights that it is loaded from.

Weights in shards have an index (`NAME.safetensors.index.json`) that places every tensor in a file; without one the files' names
(`NAME-00001-of-00003.safetensors`) show how many there are.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from registry.errors import BadFile
from registry.formats.safetensors_header import TensorInfo, open_regular, read_header
from registry.plain_values import from_json
from registry.printable import some

JSON_LIMIT = 16 << 20  # bytes of a config or index file
LAYERS_LIMIT = 1000  # the largest published models have about 100


def read_json(path: Path) -> dict[str, Any]:
    """The object in a small JSON file, its texts storable. Raises BadFile."""
    if not path.exists():
        raise BadFile(path, "not-a-model", "is missing. Copy the whole folder again.")
    with open_regular(path) as file:
        raw = file.read(JSON_LIMIT + 1)
    if len(raw) > JSON_LIMIT:
        raise BadFile(path, "not-a-model", f"is longer than the {JSON_LIMIT:,} bytes a config may have.")
    try:
        values = from_json(raw)
    except ValueError as error:
        raise BadFile(path, "not-a-model", f"is not JSON ({error}).") from error
    if not isinstance(values, dict):
        raise BadFile(path, "not-a-model", "is not a JSON object.")
    return values


def refuse_endless(path: Path, config: Mapping[str, Any] | None = None) -> None:
    """Raise BadFile for a config that asks for more layers than any model has: they would be made, one by one, for hours.

    `config` is the one that `path` holds, if it is at hand.
    """
    for name, value in (read_json(path) if config is None else config).items():
        counts = value if isinstance(value, list) else [value]
        if "layer" in name and (most := max((count for count in counts if isinstance(count, int)), default=0)) > LAYERS_LIMIT:
            raise BadFile(path, "wrong-config", f"has {name}: {most:,}; no model has more than {LAYERS_LIMIT:,} layers. Copy it again.")


def folder_files(folder: Path) -> Iterator[Path]:
    """Every regular file below a folder, sorted, without hidden ones; links to folders are not followed."""
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            file = Path(root, name)
            if not name.startswith(".") and file.is_file():
                yield file


# --- weights, in one file or in shards

SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d+)-of-(?P<count>\d+)\.safetensors")
INDEX = re.compile(r"(?P<stem>.+)\.safetensors\.index(?P<variant>\.[\w-]+)?\.json")
STEMS, VARIANTS = ("diffusion_pytorch_model", "model"), ("", ".fp16")  # in the order in which diffusers looks for them
CODE = "shards"  # of a BadFile and of a warning: weights that are not whole
SHOWN = 3


@dataclass(frozen=True)
class Weights:
    """The files of a folder's weights; with an index the file that each tensor is placed in."""

    folder: Path
    files: tuple[Path, ...] = ()
    index: str | None = None
    places: Mapping[str, str] = field(default_factory=dict)  # tensor -> name of its file

    def check(self, found: Mapping[str, Collection[str]]) -> None:
        """Raise BadFile where the index places a tensor in a file (name -> its tensors) that has it not, or does not name one."""
        wrong = [f"{tensor} in {name}" for tensor, name in self.places.items() if tensor not in found.get(name, ())]
        if wrong:
            raise BadFile(self.folder, CODE, f"has an index ({self.index}) that places {some(wrong, SHOWN)}, which is not there. {ADVICE}")
        if self.index is None:
            return
        odd = [f"{tensor} of {name}" for name, tensors in found.items() for tensor in tensors if self.places.get(tensor) != name]
        if odd:
            raise BadFile(self.folder, CODE, f"has {some(odd, SHOWN)}, which its index ({self.index}) does not place there. {ADVICE}")


ADVICE = "The files are not of one save: copy them all again."


def weights(folder: Path) -> Weights:
    """The weights of a folder: the plain files, else the fp16 variant, else whatever lies there. Raises BadFile for a missing shard."""
    files = sorted(entry for entry in folder.glob("*.safetensors") if not entry.name.startswith("."))
    unused: BadFile | None = None
    for stem in STEMS:
        for variant in VARIANTS:
            chosen = [file for file in files if _belongs(file, f"{stem}{variant}")]
            index = folder / f"{stem}.safetensors.index{variant}.json"
            if index.is_file():
                try:
                    return _indexed(folder, index, f"{stem}{variant}", files)
                except BadFile as error:
                    if chosen or error.code != CODE:
                        raise
                    unused = error  # the index of another variant comes with every download
            elif chosen:
                return Weights(folder, tuple(_numbered(folder, chosen)))
    if not files and unused is not None:
        raise unused
    return _others(folder, files)


def _others(folder: Path, files: Sequence[Path]) -> Weights:
    """Files of any name, with the index where there is one."""
    for index in sorted(folder.glob("*.safetensors.index*.json")):
        found = INDEX.fullmatch(index.name)
        if found is not None and found["stem"] not in STEMS:
            return _indexed(folder, index, f"{found['stem']}{found['variant'] or ''}", files)
    return Weights(folder, tuple(_numbered(folder, files)))


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that a folder is loaded from. Raises BadFile where a shard is missing, or one of another save is there."""
    return list(weights(folder).files)


def weights_of(folder: Path) -> dict[str, TensorInfo]:
    """The tensors of a folder, all shards together; {} where it has no safetensors. Raises BadFile."""
    found = weights(folder)
    headers = {file.name: read_header(file).tensors for file in found.files}
    found.check(headers)
    return {name: info for tensors in headers.values() for name, info in tensors.items()}


def shard_faults(folder: Path) -> list[str]:
    """What is wrong with the shards of a model's folder and of its components, each with the folder's name."""
    faults = []
    for place in (folder, *sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))):
        if not any(SHARD.fullmatch(file.name) or INDEX.fullmatch(file.name) for file in place.iterdir()):
            continue
        try:
            weights_of(place)
        except BadFile as error:
            inside = Path(error.path).relative_to(folder).as_posix()
            faults.append(f"{inside if inside != '.' else 'it'} {error.message}")
    return faults


def _belongs(file: Path, stem: str) -> bool:
    shard = SHARD.fullmatch(file.name)
    return shard["stem"] == stem if shard else file.name == f"{stem}.safetensors"


def _indexed(folder: Path, index: Path, stem: str, files: Iterable[Path]) -> Weights:
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(name, str) and Path(name).name == name for name in places.values()):
        raise BadFile(index, "not-a-model", "has no weight_map of tensors and the names of their files.")
    names = sorted(set(places.values()))
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise BadFile(
            folder, CODE, f"lacks {len(missing)} of the {len(names)} files that {index.name} lists: {some(missing, SHOWN)}. {AGAIN}"
        )
    stale = [file.name for file in files if _belongs(file, stem) and file.name not in names]
    if stale:
        raise BadFile(folder, CODE, f"has {some(stale, SHOWN)}, which {index.name} does not list. Remove what is of another save.")
    return Weights(folder, tuple(folder / name for name in names), index.name, places)


AGAIN = "Copy or download the folder again."


def _numbered(folder: Path, files: Sequence[Path]) -> Sequence[Path]:
    """The files, when every shard is there that their names count, of one save. Raises BadFile."""
    counts: dict[str, dict[int, set[int]]] = {}  # stem -> number of shards -> those that are there
    for file in files:
        if (found := SHARD.fullmatch(file.name)) is not None:
            counts.setdefault(found["stem"], {}).setdefault(int(found["count"]), set()).add(int(found["number"]))
    for stem, saves in counts.items():
        whole = next((file.name for file in files if file.name == f"{stem}.safetensors"), None)
        if len(saves) > 1 or whole:
            kinds = [*(f"{stem}-*-of-{count:05d}" for count in sorted(saves)), *([whole] if whole else [])]
            raise BadFile(folder, CODE, f"has weights of several saves ({' and '.join(kinds)}). Remove all but one.")
        ((count, there),) = saves.items()
        missing = [number for number in range(1, min(count, LARGEST) + 1) if number not in there]
        if missing:
            names = some((f"{stem}-{number:05d}-of-{count:05d}.safetensors" for number in missing), SHOWN)
            raise BadFile(folder, CODE, f"lacks {len(missing)} of {count} shards: {names}. {AGAIN}")
    return files


LARGEST = 10_000  # shards of one model; a file's name may claim any number
