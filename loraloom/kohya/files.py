"""sd-scripts' TOML files: the arguments of --config_file, the sets of --dataset_config."""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loraloom.kohya.arguments import NAMES, type_fault
from registry.errors import Refused
from registry.names import suggest

_SUBSET = """
    image_dir is_reg class_tokens caption_extension cache_info alpha_mask metadata_file conditioning_data_dir num_repeats
    shuffle_caption caption_separator keep_tokens keep_tokens_separator secondary_separator enable_wildcard color_aug flip_aug
    face_crop_aug_range random_crop caption_prefix caption_suffix caption_dropout_rate caption_dropout_every_n_epochs
    caption_tag_dropout_rate token_warmup_min token_warmup_step custom_attributes resize_interpolation
"""
SUBSET = tuple(_SUBSET.split())
_DATASET = """
    batch_size bucket_no_upscale bucket_reso_steps enable_bucket max_bucket_reso min_bucket_reso validation_seed validation_split
    resolution network_multiplier
"""
DATASET = tuple(_DATASET.split())


@dataclass
class Files:
    """What the files hold: arguments by name, and datasets, each with its subsets."""

    arguments: dict[str, Any] = field(default_factory=dict)
    general: dict[str, Any] = field(default_factory=dict)
    datasets: list[dict[str, Any]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def read_files(paths: Sequence[Path]) -> Files:
    """All files together; a `dataset_config` that they name is read too. Raises Refused for what is no TOML file."""
    found = Files()
    waiting = list(paths)
    while waiting:
        path = waiting.pop(0)
        content = _parsed(path)
        if "datasets" in content:
            _read_datasets(path, content, found)
            continue
        own = _flat(path, content, found)
        beside = own.pop("dataset_config", None)
        if isinstance(beside, str):
            waiting.append(Path(beside))
        for name, value in own.items():
            if name in found.arguments and found.arguments[name] != value:
                found.faults.append(f"{name} is {found.arguments[name]!r} in one file and {value!r} in {path.name}. Give it once.")
            found.arguments[name] = value
    return found


def _parsed(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise Refused(f"--from-kohya {path} cannot be read: {error.strerror}. Give sd-scripts' TOML file.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refused(f"--from-kohya {path} is no TOML: {error}.") from error


def _flat(path: Path, content: dict[str, Any], found: Files) -> dict[str, Any]:
    """The arguments of a training file, whatever its sections are called."""
    rows: list[tuple[str, Any]] = []
    for name, value in content.items():
        rows += value.items() if isinstance(value, dict) else [(name, value)]
    own: dict[str, Any] = {}
    for name, value in rows:
        if name in own and own[name] != value:
            found.faults.append(f"{name} is twice in {path.name}, {own[name]!r} and {value!r}: sd-scripts takes the last. Keep one.")
        if name not in NAMES:
            found.faults.append(f"{name} is no argument of sd-scripts, which ignores it unseen. {suggest(name, NAMES)}")
            continue
        if fault := type_fault(name, value):
            found.faults.append(f"{name}={value!r} {fault}.")
            continue
        own["caption_extension" if name == "caption_extention" else name] = value  # the older name
    return own


def _read_datasets(path: Path, content: dict[str, Any], found: Files) -> None:
    if found.datasets:
        found.faults.append(f"{path.name}: there are datasets in another file already. Give one.")
        return
    _check(f"{path.name}: ", content, ("general", "datasets"), found)
    general, datasets = content.get("general", {}), content["datasets"]
    if not isinstance(general, dict) or not isinstance(datasets, list) or not all(isinstance(one, dict) for one in datasets):
        raise Refused(f"{path.name}: [general] and [[datasets]] are expected, as sd-scripts' --dataset_config has them.")
    _check("[general] ", general, (*DATASET, *SUBSET), found)
    for number, one in enumerate(datasets, 1):
        _check(f"dataset {number}: ", one, (*DATASET, *SUBSET, "subsets"), found)
        subsets = one.get("subsets")
        if not isinstance(subsets, list) or not subsets or not all(isinstance(subset, dict) for subset in subsets):
            found.faults.append(f"dataset {number} has no [[datasets.subsets]].")
            continue
        for place, subset in enumerate(subsets, 1):
            _check(f"dataset {number}, subset {place}: ", subset, SUBSET, found)
        found.datasets.append(one)
    found.general = general


def _check(where: str, given: dict[str, Any], names: Sequence[str], found: Files) -> None:
    for name in given:
        if name not in names:
            found.faults.append(f"{where}{name} is no key of sd-scripts' dataset files. {suggest(name, names)}")
