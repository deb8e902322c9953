"""Facts that only reading the whole file shows: the content hash, equal in every dialect, an adapter's alpha, a zero product."""

import hashlib
import math
import struct
from collections import Counter
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from blake3 import blake3

from registry.architectures.unet.diffusers_names import diffusers_underscored
from registry.formats.adapter_keys import SCALED, AdapterKey, adapter_keys
from registry.formats.dialects import DENOISER
from registry.formats.peft_config import is_name, names_module, peft_config
from registry.formats.safetensors_header import DTYPE_BITS, Header
from registry.typed_values import is_number

ModuleId = tuple[str, str]  # component, module
LORA_ONLY = {"lora", ""}
UNPACK: dict[str, Callable[[bytes], float]] = {
    "F64": lambda raw: float(struct.unpack("<d", raw)[0]),
    "F32": lambda raw: float(struct.unpack("<f", raw)[0]),
    "F16": lambda raw: float(struct.unpack("<e", raw)[0]),
    "BF16": lambda raw: float(struct.unpack("<f", b"\0\0" + raw)[0]),
    "I64": lambda raw: float(struct.unpack("<q", raw)[0]),
    "I32": lambda raw: float(struct.unpack("<i", raw)[0]),
}


def content_sha256(header: Header, digests: Mapping[str, str], small: Mapping[str, bytes]) -> str | None:
    """sha256 over the lines `name dtype shape blake3-of-bytes`, sorted by canonical name.

    A plain LoRA's canonical names are those of diffusers with dots as underscores, so that kohya, diffusers and peft files
    of the same weights have one hash; each module has its alpha beside, the rank where none is written. Other files go by
    their own names. None where an adapter's alpha is unknown. `digests` has the blake3 of each tensor's bytes, `small`
    the bytes of the smallest tensors.
    """
    keys = adapter_keys(header.tensors)
    if keys is None or len(keys) != len(header.tensors) or {key.algorithm for key in keys.values()} - LORA_ONLY:
        names = {name: name for name in header.tensors}
        extra: list[str] = []
    else:
        names = {name: _canonical(key) for name, key in keys.items() if key.role != "alpha"}
        scales = _alphas(header, keys, small)
        if scales is None or len(set(names.values())) != len(names):
            return None
        extra = [f"{component}:{module} alpha {value:.9g}" for (component, module), value in scales.items()]
    infos = header.tensors
    lines = [
        f"{canonical} {infos[name].dtype} {','.join(map(str, infos[name].shape))} {digests[name]}" for name, canonical in names.items()
    ]
    return hashlib.sha256("\n".join(sorted(lines + extra)).encode()).hexdigest()


def _canonical(key: AdapterKey) -> str:
    component, module = _place(key)
    return f"{component}:{module} {key.role}"


def _place(key: AdapterKey) -> ModuleId:
    """Component and module in the one spelling all dialects come to."""
    name = key.module.replace(".processor.", ".").replace(".", "_").removeprefix("text_model_")
    if key.component in (DENOISER, ""):
        name = diffusers_underscored(name)
    return key.component or DENOISER, f"{name}_0" if name.endswith("_to_out") else name


def _alphas(header: Header, keys: Mapping[str, AdapterKey], small: Mapping[str, bytes]) -> dict[ModuleId, float] | None:
    """Module -> alpha as it acts: from its tensor, else from peft's settings in the metadata, else its rank."""
    alphas = {
        _place(key): float(header.tensors[name].shape[0]) for name, key in keys.items() if key.role == "down" and header.tensors[name].shape
    }
    by_settings = _declared_alphas(peft_config(header.metadata), header, keys)
    if by_settings is None:
        return None
    alphas |= by_settings
    for name, key in keys.items():
        if key.role == "alpha":
            value = scalar(header, name, small)
            if value is None or _place(key) not in alphas:
                return None
            alphas[_place(key)] = value
    return alphas


def _declared_alphas(config: Mapping[str, Any], header: Header, keys: Mapping[str, AdapterKey]) -> dict[ModuleId, float] | None:
    """Module -> alpha by peft's settings in the metadata; with `use_rslora` the alpha of the same scale without it."""
    found: dict[ModuleId, float] = {}
    for name, key in keys.items():
        component = key.component or DENOISER
        for prefix in ("unet.", "transformer.") if component == DENOISER else (f"{component}.",):
            value = config.get(f"{prefix}lora_alpha")
            patterns = config.get(f"{prefix}alpha_pattern") or {}
            shape = header.tensors[name].shape
            if key.role != "down" or not shape or value is None:
                continue
            if not isinstance(patterns, dict) or not all(map(is_name, patterns)):
                return None
            value = next((alpha for pattern, alpha in patterns.items() if names_module(pattern, key.module)), value)
            if not is_number(value):
                return None
            found[_place(key)] = float(value) * (math.sqrt(shape[0]) if config.get(f"{prefix}use_rslora") else 1.0)
    return found


def scalar(header: Header, name: str, small: Mapping[str, bytes]) -> float | None:
    """The value of a tensor of one element; None for others and for dtypes without a rule."""
    info = header.tensors[name]
    raw, read = small.get(name), UNPACK.get(info.dtype)
    if raw is None or read is None or info.elements != 1:
        return None
    value = read(raw)
    return value if math.isfinite(value) else None


def adapter_contents(header: Header, digests: Mapping[str, str], small: Mapping[str, bytes]) -> dict[str, Any]:
    """{"alpha": the one alpha of all modules, "warnings": [{code, message}]} of an adapter; {} of other files."""
    keys = adapter_keys(header.tensors)
    if keys is None:
        return {}
    found: dict[str, Any] = {}
    scaled = {key.algorithm for key in keys.values()} & SCALED
    alphas = Counter(scalar(header, name, small) for name, key in keys.items() if key.role == "alpha" and scaled)
    if len(alphas) == 1 and None not in alphas:
        found["alpha"] = next(iter(alphas))
    elif len(alphas) > 1 and None not in alphas:
        found["metadata"] = {"alphas": {f"{alpha:g}": count for alpha, count in sorted(alphas.items(), key=str)}}
    if _product_is_zero(header, keys, digests):
        found["warnings"] = [
            {"code": "zero-delta", "message": "Its product is zero everywhere: it changes nothing. Was it saved before training?"}
        ]
    return found


def _product_is_zero(header: Header, keys: Mapping[str, AdapterKey], digests: Mapping[str, str]) -> bool:
    """Whether in every module of a plain LoRA one of the two factors is all zeros."""
    if {key.algorithm for key in keys.values()} - LORA_ONLY:
        return False
    modules: dict[ModuleId, bool] = {}
    for name, key in keys.items():
        if key.role in ("down", "up"):
            info = header.tensors[name]
            size = info.elements * DTYPE_BITS[info.dtype] // 8
            place = (key.component, key.module)
            modules[place] = modules.get(place, False) or digests[name] == _zeros_digest(size)
    return bool(modules) and all(modules.values())


@lru_cache(maxsize=256)
def _zeros_digest(size: int) -> str:
    digest = blake3()
    block = bytes(1 << 16)
    for _ in range(size // len(block)):
        digest.update(block)
    digest.update(block[: size % len(block)])
    return digest.hexdigest()
