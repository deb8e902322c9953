"""LoraConfig settings of an adapter: diffusers' `lora_adapter_metadata` or peft's adapter_config.json beside the file.

peft takes the keys of `alpha_pattern` and `rank_pattern` as regular expressions. A file's text is never run as one here: keys that
are module names are compared as names, and a file with any other is refused where it would be applied.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from registry.errors import BadFile
from registry.formats.model_folder import read_json
from registry.plain_values import from_json

WEIGHTS, CONFIG = "adapter_model", "adapter_config.json"  # as peft names the files of a folder
ENTRY = "lora_adapter_metadata"
PATTERNS = ("alpha_pattern", "rank_pattern")
SCALING = ("r", "lora_alpha", "alpha_pattern", "rank_pattern", "use_rslora")
MEANING = {"init_lora_weights", "kasa_config", "use_bdlora", "monteclora_config", "alora_invocation_tokens"}  # more than factors show
NAME = re.compile(r"\^?(?:\w|\\?[.-])+\$?")  # a module's name or its end, as peft and diffusers write it: plain, or anchored and escaped


def peft_config(metadata: Mapping[str, str]) -> dict[str, Any]:
    """diffusers' `lora_adapter_metadata`: one JSON with `<component>.<field of LoraConfig>`; {} when absent or damaged."""
    if ENTRY not in metadata:
        return {}
    try:
        values = from_json(metadata[ENTRY])
    except ValueError:
        return {}
    return values if isinstance(values, dict) else {}


def sound_peft_config(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """The same for what applies the adapter. Raises BadFile where the entry is damaged: the adapter's scale would be a guess."""
    config = peft_config(metadata)
    if metadata.get(ENTRY, "").strip() and not config and metadata[ENTRY].strip() != "{}":
        raise BadFile(path, "bad-header", f"has a damaged {ENTRY} in its header; one JSON object was expected. Its alpha is not known.")
    return config


def config_beside(path: Path, *, beside: Collection[str] | None = None) -> dict[str, Any]:
    """peft's adapter_config.json of an adapter_model.safetensors; {} for other files, and when it is absent or damaged.

    `beside` are the names in the folder, if they are at hand.
    """
    if not path.name.startswith(WEIGHTS) or (beside is not None and CONFIG not in beside):
        return {}
    try:
        return read_json(path.with_name(CONFIG))
    except BadFile:
        return {}


def with_config(metadata: Mapping[str, str], config: Mapping[str, Any]) -> Mapping[str, str]:
    """A header's metadata with the settings of the config beside the file, as diffusers would have written them into it."""
    settings = {name: config[name] for name in (*SCALING, *sorted(config.keys() & MEANING)) if name in config}
    settings |= {"lora_alpha": config["alpha"]} if "alpha" in config else {}  # as LoHa and LoKr call it
    if "lora_alpha" not in settings or ENTRY in metadata:
        return metadata
    return {**metadata, ENTRY: json.dumps({f"unet.{name}": value for name, value in settings.items()})}


def is_name(pattern: object) -> bool:
    """Whether a key of `alpha_pattern` is a module's name, or its end."""
    return isinstance(pattern, str) and NAME.fullmatch(pattern) is not None


def names_module(pattern: str, module: str) -> bool:
    """Whether a module has this name, or ends with it where the pattern is not anchored. `pattern` is one that `is_name` took."""
    name = pattern.removeprefix("^").removesuffix("$").replace("\\", "")
    return module == name or (not pattern.startswith("^") and module.endswith(f".{name}"))


def by_name(settings: Mapping[str, Any], field: str, module: str, default: Any) -> Any:
    """The entry of the first name in `alpha_pattern` or `rank_pattern` that a module has, as peft orders them."""
    patterns = settings.get(field) or {}
    return next((value for pattern, value in patterns.items() if names_module(pattern, module)), default)


def peft_weights(path: Path) -> Path:
    """The weights in a folder that peft's `save_pretrained` wrote; any other path is itself."""
    inside = path / f"{WEIGHTS}.safetensors"
    return inside if inside.is_file() and (path / CONFIG).is_file() else path
