"""The keys of adapter files: each tensor's module, its role there, and the dialect it is spelled in."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import chain
from operator import attrgetter, methodcaller
from typing import Any

from registry.architectures.unet.cloneofsimo import named
from registry.formats.dialects import DENOISER, DIALECTS
from registry.formats.safetensors_header import TensorInfo

NAMED = re.compile(r"\.(lora_[ABE]|lora_magnitude_vector)\.[^.]+(\.weight)?$")  # peft with the adapter's name: .lora_A.default.weight
CLONEOFSIMO = re.compile(r"^(unet|text_encoder):(\d+):(up|down|alpha|rank)$")
XLABS = re.compile(
    r"^((?:(?:model\.)?diffusion_model\.)?)(double|single)_blocks\.(\d+)\.processor\.(qkv|proj)_lora([12]?)\.(down|up)\.weight$"
)
LANGUAGE_MODEL = re.compile(r"(^|\.)(model\.layers|transformer\.h|gpt_neox\.layers|decoder\.layers|model\.decoder)\.\d+\.")


@dataclass(frozen=True)
class AdapterKey:
    """One tensor of an adapter: component, module name in the file's own spelling, role, algorithm, dialect."""

    component: str  # denoiser, text_encoder, text_encoder_2, ...; "" where the key has no prefix
    module: str
    role: str
    algorithm: str
    spelling: str  # of the ending
    prefix: str  # as in the file
    prefix_spelling: str

    @cached_property
    def kind(self) -> KeyKind:
        """What it has in common with other keys of the file."""
        return _kind(self.component, self.role, self.algorithm, self.spelling, self.prefix, self.prefix_spelling)


@dataclass(frozen=True, eq=False)
class KeyKind:
    """What is said of an AdapterKey beside its module: a file has a few kinds of keys, each one object."""

    component: str
    role: str
    algorithm: str
    spelling: str
    prefix: str
    prefix_spelling: str


_kind = lru_cache(maxsize=4096)(KeyKind)
_KIND, _MODULE = attrgetter("kind"), attrgetter("module")


class _Keys(dict[str, AdapterKey]):
    """The keys of a file, parsed; never changed."""

    @cached_property
    def kinds(self) -> dict[KeyKind, None]:
        return dict.fromkeys(map(_KIND, self.values()))

    @cached_property
    def modules(self) -> dict[str, None]:
        return dict.fromkeys(map(_MODULE, self.values()))


def kinds_of(keys: Mapping[str, AdapterKey]) -> dict[KeyKind, None]:
    """The kinds of the keys, in the order of the first of each."""
    return keys.kinds if isinstance(keys, _Keys) else dict.fromkeys(map(_KIND, keys.values()))


def modules_of(keys: Mapping[str, AdapterKey]) -> dict[str, None]:
    """The modules of the keys, in the order of the first key of each."""
    return keys.modules if isinstance(keys, _Keys) else dict.fromkeys(map(_MODULE, keys.values()))


@dataclass(frozen=True)
class _Spellings:
    """What the rows of DIALECTS call their own, the longest first: of two endings that match, the longer one counts."""

    prefixes: tuple[tuple[str, str, str], ...]  # prefix, component, dialect
    endings: Mapping[str, tuple[tuple[str, str, str, str], ...]]  # by the last four characters; "": shorter ones


@lru_cache(maxsize=8)
def _spellings(dialects: tuple[str, ...]) -> _Spellings:
    prefixes = [(prefix, component, name) for name in dialects for prefix, component in DIALECTS[name].prefixes.items()]
    endings: dict[str, list[tuple[str, str, str, str]]] = {}
    for name in dialects:
        for ending, (role, algorithm) in DIALECTS[name].endings.items():
            endings.setdefault(ending[-4:] if len(ending) >= 4 else "", []).append((ending, role, algorithm, name))
    longest = {last: tuple(sorted(rows, key=lambda row: -len(row[0]))) for last, rows in endings.items()}
    return _Spellings(tuple(sorted(prefixes, key=lambda row: -len(row[0]))), longest)


def parse_key(key: str) -> AdapterKey | None:
    """The parts of an adapter's key; None for a key that no adapter has."""
    return _parse_key(key, tuple(DIALECTS))


class _Parsed(dict[str, Any]):
    """Key -> AdapterKey or None."""

    MOST = 65536  # files of one family share their names

    def __init__(self, dialects: tuple[str, ...]) -> None:
        self._dialects = dialects

    def __missing__(self, key: str) -> AdapterKey | None:
        if len(self) >= self.MOST:
            self.clear()
        return self.setdefault(key, _parse_key(key, self._dialects))


_parsed = lru_cache(maxsize=8)(_Parsed)


def _parse_key(key: str, dialects: tuple[str, ...]) -> AdapterKey | None:
    if key.startswith("bundle_emb."):
        return AdapterKey("text_encoder", key.split(".", 2)[1], "embedding", "embedding", "kohya", "bundle_emb.", "kohya")
    found = CLONEOFSIMO.match(key)
    if found:
        component = DENOISER if found[1] == "unet" else found[1]
        algorithm = "lora" if found[3] in ("up", "down") else ""
        return AdapterKey(component, found[2], found[3], algorithm, "cloneofsimo", f"{found[1]}:", "cloneofsimo")
    if (found := XLABS.match(key)) is not None:
        return AdapterKey(DENOISER, _xlabs_module(*found.groups()[1:5]), found[6], "lora", "xlabs", found[1], "xlabs")
    spellings = _spellings(dialects)
    body, (role, algorithm, spelling) = _ending(key, spellings)
    if not role:
        return None
    for prefix, component, owner in spellings.prefixes:
        if body.startswith(prefix):
            return AdapterKey(component, body[len(prefix) :], role, algorithm, spelling, prefix, owner)
    return AdapterKey("", body, role, algorithm, spelling, "", "")


def _xlabs_module(stack: str, number: str, layer: str, stream: str) -> str:
    """The layer that an attention processor adds to: 1 is the image's stream, 2 the text's; single blocks have one.

    A single block's q, k and v are the first rows of its linear1, so the processor's layer has no name of its own there.
    """
    if stack == "double":
        return f"double_blocks.{number}.{'txt' if stream == '2' else 'img'}_attn.{layer}"
    return f"single_blocks.{number}.{'linear2' if layer == 'proj' else 'processor.qkv'}"


def _ending(key: str, spellings: _Spellings) -> tuple[str, tuple[str, str, str]]:
    named = NAMED.search(key)
    if named and named[0] not in (".lora_A.weight", ".lora_B.weight", ".lora_A.bias", ".lora_B.bias", ".lora_magnitude_vector.weight"):
        key = key[: named.start()] + f".{named[1]}" + (named[2] or "")
    for ending, role, algorithm, spelling in chain(spellings.endings.get(key[-4:], ()), spellings.endings.get("", ())):
        if key.endswith(ending):
            return key[: -len(ending)], (role, algorithm, spelling)
    return key, ("", "", "")


SCALED = {"lora", "loha", "lokr", "glora"}  # algorithms whose strength is alpha / rank; in OFT files alpha is a constraint
STRONG = {"down", "up", "w1_a", "w1_b", "w2_a", "w2_b", "w1", "w2", "a1", "b1", "blocks", "on_input", "diff", "w_norm", "scale", "set"}


def adapter_keys(tensors: Mapping[str, TensorInfo]) -> dict[str, AdapterKey] | None:
    """The keys of an adapter file, parsed; None when the file is none: fewer than half of its keys are an adapter's.

    The rest of an adapter's keys (a control LoRA's norms, IA3's `weight`) are left out.
    """
    keys = keys_by_name(tensors)
    return numbered(keys, tensors) if keys is not None and needs_shapes(keys) else keys


def keys_by_name(names: Collection[str]) -> dict[str, AdapterKey] | None:
    """The same as far as the names alone show it: the modules of cloneofsimo's keys are still numbers."""
    found = [*map(_parsed(tuple(DIALECTS)).__getitem__, names)]
    parsed = _Keys(zip(names, found, strict=True))
    if None in found:
        parsed = _Keys({name: key for name, key in parsed.items() if key is not None})
    if not parsed or len(parsed) * 2 < len(names) or not any(kind.role in STRONG for kind in kinds_of(parsed)):
        return None
    return parsed


def needs_shapes(keys: Mapping[str, AdapterKey]) -> bool:
    """Whether the modules of some keys are numbers, which only the shapes of all tensors tell apart."""
    return any(kind.spelling == "cloneofsimo" for kind in kinds_of(keys))


def numbered(keys: Mapping[str, AdapterKey], tensors: Mapping[str, TensorInfo]) -> dict[str, AdapterKey]:
    """cloneofsimo's keys with the modules that their numbers stand for, as far as all widths show it."""
    factors: dict[tuple[str, int], dict[str, tuple[int, ...]]] = {}
    for name, key in keys.items():
        if key.spelling == "cloneofsimo":
            factors.setdefault((key.component, int(key.module)), {})[key.role] = tensors[name].shape
    modules = named(factors)
    return {
        name: replace(key, module=modules.get((key.component, int(key.module)), key.module)) if key.spelling == "cloneofsimo" else key
        for name, key in keys.items()
    }


def is_addressed(key: str) -> bool:
    """Whether a key has a prefix by which adapters name a component's modules."""
    return any(key.startswith(prefix) for prefix, _component, _owner in _spellings(tuple(DIALECTS)).prefixes)


def dialect_of(keys: Mapping[str, AdapterKey]) -> str:
    """The row of DIALECTS that the file as a whole is spelled in, by its keys."""
    kinds = kinds_of(keys)
    prefixes = {kind.prefix_spelling for kind in kinds}
    endings = {kind.spelling for kind in kinds if kind.role != "alpha"}
    for name, row in reversed(DIALECTS.items()):
        if row.distinct and (name in endings or name in prefixes):
            return name
    if prefixes == {"peft"}:
        return "peft"
    if "lycoris" in prefixes or "lycoris" in endings:
        return "lycoris"
    if "bfl" in prefixes or "double_blocks." in " ".join(modules_of(keys)):
        return "bfl"
    if "kohya" in prefixes or ("kohya" in endings and "diffusers" not in prefixes):
        return "kohya"
    return "diffusers" if "diffusers" in prefixes else "peft"


_OF_ONETRAINER = methodcaller("startswith", "ot_")


def declared_dialect(by_keys: str, metadata: Mapping[str, str]) -> str:
    """The dialect, where the metadata name the trainer and the keys are such as several trainers write."""
    if DIALECTS[by_keys].distinct:
        return by_keys
    if any(map(_OF_ONETRAINER, metadata)):
        return "onetrainer"
    return "lycoris" if metadata.get("ss_network_module", "").startswith("lycoris") else by_keys


LOOKS_LIKE = re.compile(r"lora_(up|down|A|B)(\.|_|$)|hada_w\d|lokr_w\d")


def malformed(names: Collection[str]) -> str | None:
    """The first key of a file that is no adapter by its keys, though half of them or more look like an adapter's; else None."""
    odd = [name for name in names if LOOKS_LIKE.search(name)]
    return odd[0] if odd and len(odd) * 2 >= len(names) else None


TEXT_MODULE = re.compile(r"(^|[._])(text_model|encoder[._]layers)[._]")


def denoiser_keys(keys: Mapping[str, AdapterKey]) -> Mapping[str, AdapterKey]:
    """The keys of the denoiser: names of a text encoder's layers are like those of other families' denoisers, and show nothing of it."""
    kinds = kinds_of(keys)
    if all(kind.component == DENOISER for kind in kinds):
        return keys
    components = {kind.component for kind in kinds} & {DENOISER, ""}
    return (
        {name: key for name, key in keys.items() if key.component in components and (key.component or not TEXT_MODULE.search(key.module))}
        if components
        else {}
    )


def is_language_model(keys: Mapping[str, AdapterKey]) -> bool:
    """Whether the adapted modules are those of a language model, none of an image model."""
    if not any(kind.prefix_spelling in ("peft", "") for kind in kinds_of(keys)):
        return False
    modules = {key.module for key in keys.values() if key.prefix_spelling in ("peft", "")}
    return bool(modules) and len(modules) == len({k.module for k in keys.values()}) and all(map(LANGUAGE_MODEL.search, modules))
