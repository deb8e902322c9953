"""What peft's config decides of an adapter's change: scale, rank, how its factors began. Checked where it is read."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from registry.errors import BadFile
from registry.formats.dialects import DENOISER
from registry.formats.model_folder import read_json
from registry.formats.peft_config import CONFIG, PATTERNS, WEIGHTS, by_name, is_name, sound_peft_config
from registry.printable import some
from registry.typed_values import is_number

SHOWN = 3
MOST_TERMS = 64  # of a Cayley series; peft's default is 5
STARTS = {"pissa": "PiSSA", "olora": "OLoRA"}  # starts that are a decomposition of the base's weight, and follow from it
PLAIN_STARTS = ("gaussian", "eva", "orthogonal", "mica")  # the base stays as it is
MERGE = "Merge it with peft (merge_and_unload), or save it with peft as a plain LoRA"


class Settings:
    """diffusers' `lora_adapter_metadata`, or peft's adapter_config.json beside the file. Raises BadFile for values it cannot have."""

    def __init__(self, path: Path, metadata: Mapping[str, str]) -> None:
        self._packed = by_component(sound_peft_config(path, metadata))
        beside = path.with_name(CONFIG)
        self._config: Mapping[str, Any] = read_json(beside) if path.name.startswith(WEIGHTS) and beside.is_file() else {}
        faults = [fault for settings in (self._config, *self._packed.values()) for fault in _faults(settings)]
        if faults:
            raise BadFile(path, "bad-header", f"has LoraConfig settings that cannot be used: {some(faults, SHOWN, between='; ')}.")

    def of(self, component: str) -> Mapping[str, Any]:
        """The settings of the adapter on this component; {} where there are none."""
        names = (component,) if component != DENOISER else ("unet", "transformer")
        return next((self._packed[name] for name in names if name in self._packed), self._config)


def by_component(packed: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """`<component>.<field>` -> value, as component -> field -> value."""
    found: dict[str, dict[str, Any]] = {}
    for key, value in packed.items():
        component, _, field = key.partition(".")
        found.setdefault(component, {})[field] = value
    return found


def warnings_of(packed: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(code, message) of what is to be known of an adapter before it is used, from its settings by `<component>.<field>`."""
    yield from dict.fromkeys(warning for settings in by_component(packed).values() for warning in _warnings(settings))


def _warnings(settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Those of one component."""
    if start := start_of(settings):
        yield (
            "starts-in-base",
            f"It was trained by {STARTS[start]}: its factors hold a part of its base, and what it changes follows from both.",
        )
    if unread := unread_of(settings):
        yield "not-read", f"It {unread}"
    if faults := list(_faults(settings)):
        yield "bad-settings", f"Fusing, drawing and conversion refuse its LoraConfig settings: {'; '.join(faults[:SHOWN])}."


def declared_alpha(settings: Mapping[str, Any], algorithm: str, module: str) -> float | None:
    """alpha as peft's config has it: `lora_alpha`, for LoHa and LoKr `alpha`; other algorithms have none."""
    word = {"lora": "lora_alpha", "table": "lora_alpha", "loha": "alpha", "lokr": "alpha"}.get(algorithm)
    if word is None or settings.get(word) is None:
        return None
    return float(by_name(settings, "alpha_pattern", module, settings[word]))


def declared_rank(settings: Mapping[str, Any], module: str) -> int | None:
    """The rank that a module was trained with."""
    rank = by_name(settings, "rank_pattern", module, settings.get("r"))
    return rank if isinstance(rank, int) else None


def start_of(settings: Mapping[str, Any]) -> str:
    """'pissa' or 'olora' where the factors began as a part of the base's weight that was taken out of it; else ''."""
    start = settings.get("init_lora_weights")
    return start.lower() if isinstance(start, str) and start.lower() in STARTS else ""


def unread_of(settings: Mapping[str, Any]) -> str | None:
    """Why a LoRA of these settings is more than its factors show, as the end of a sentence; None when it is not."""
    start = settings.get("init_lora_weights")
    if isinstance(start, str) and start.lower() not in (*STARTS, *PLAIN_STARTS):
        return (
            f"began as a part of the base that was taken out of it (init_lora_weights {start!r}), and what that was cannot be computed "
            f"again. {MERGE}: save_pretrained(..., path_initial_model_for_weight_conversion=...)."
        )
    for field, kind in VARIANTS.items():
        if settings.get(field):
            return f"was trained as {kind} ({field} in its config), which is not read here. {MERGE}."
    return None


def not_adapter(settings: Mapping[str, Any], odd: str | None = None) -> str:
    """Why a file with less than half of its keys an adapter's is none, by the config beside it; `odd` is a malformed key."""
    kind, bias = settings.get("peft_type"), settings.get("bias")
    if variant := unread_of(settings):
        return variant
    if isinstance(bias, str) and bias != "none":
        return f"was saved by peft with bias={bias[:20]!r}: it holds the model's own biases too, which are not read here. {MERGE}."
    if isinstance(kind, str) and kind not in READ:
        return f"was written by peft's {kind[:40]}; of peft's methods {', '.join(READ)} are read here. {MERGE}."
    why = f"has malformed keys ({odd}), whose modules are not known" if odd else "has no keys of an adapter"
    return f"{why}. Name a LoRA or LyCORIS file."


READ = ("LORA", "ADALORA", "LOHA", "LOKR", "OFT", "BOFT", "IA3")  # peft_type
VARIANTS = {
    "kasa_config": "KaSA, which also cuts the base's smallest singular values",
    "use_bdlora": "block-diagonal LoRA (bdlora)",
    "monteclora_config": "MonteCLoRA",
    "alora_invocation_tokens": "activated LoRA (aLoRA)",
    "arrow_config": "Arrow, a router of several adapters",
    "target_parameters": "LoRA of parameters that are no layers",
    "layer_replication": "LoRA of replicated layers",
}


# --- values a config can have


def _count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 31


def _flag(value: object) -> bool:
    return isinstance(value, bool)


def _names(value: object) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(name, str) for name in value))


CHECKS: dict[str, tuple[Callable[[object], bool], str]] = {
    "r": (lambda value: value == 0 or _count(value), "a whole number from 0"),
    "init_r": (_count, "a whole number from 1"),
    "lora_alpha": (is_number, "a number"),
    "alpha": (is_number, "a number"),
    "use_rslora": (_flag, "true or false"),
    "use_cayley_neumann": (_flag, "true or false"),
    "coft": (_flag, "true or false"),
    "num_cayley_neumann_terms": (lambda value: _count(value) and int(str(value)) <= MOST_TERMS, f"a whole number from 1 to {MOST_TERMS}"),
    "init_lora_weights": (lambda value: isinstance(value, bool | str), "true, false or the name of a method"),
    "feedforward_modules": (_names, "names of modules"),
}


def _faults(settings: Mapping[str, Any]) -> Iterator[str]:
    for field, value in settings.items():
        if value is None:
            continue
        if field in PATTERNS:
            yield from _pattern_faults(field, value)
        elif field in CHECKS and not CHECKS[field][0](value):
            yield f"{field} is {_shown(value)}, where {CHECKS[field][1]} was expected"


def _pattern_faults(field: str, patterns: object) -> Iterator[str]:
    if not isinstance(patterns, dict):
        yield f"{field} is {_shown(patterns)}, where module names with numbers were expected"
        return
    for pattern, value in patterns.items():
        masks = field == "rank_pattern" and isinstance(value, list)  # AdaLoRA's, of which singular values it kept
        if not is_name(pattern):
            yield (
                f"{_shown(pattern)} in {field} is a regular expression, with which a file could hang this process; only names of modules "
                "are read. Write the modules' names there"
            )
        elif not masks and not (_count(value) if field == "rank_pattern" else is_number(value)):
            yield f"{field} of {pattern} is {_shown(value)}, where a number was expected"


def _shown(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
