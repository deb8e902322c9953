"""An adapter file as modules: which weights it changes, by what algorithm, with which tensors and which scale.

The only reader of adapter files. Loading (`peft_state`), the algebra (`targets`) and conversion (`converting.adapter_layers`) map what
it gives.
"""

# R rank, I in-width, O out-width

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.adapters.tensor_form import FLAGS
from registry.architectures.unet.diffusers_names import diffusers_underscored
from registry.detect.module_shapes import underscored
from registry.errors import BadFile
from registry.formats.adapter_keys import AdapterKey, adapter_keys, dialect_of
from registry.formats.atomic_file import TORCH_DTYPES
from registry.formats.model_folder import read_json
from registry.formats.peft_config import sound_peft_config
from registry.formats.safetensors_header import read_header
from registry.tensors.layout import Stored
from registry.tensors.mmap_files import MappedFiles

if TYPE_CHECKING:
    from torch import Tensor

NEEDS_BASE = ("oft", "boft", "ia3", "glora", "set")  # and everything with a DoRA magnitude
CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"  # of a peft folder
ModuleId = tuple[str, str]  # component, canonical module


@dataclass(frozen=True, kw_only=True)
class Module:
    """What an adapter does to one module of the base. `place` is (component, canonical name): equal for every spelling."""

    place: ModuleId
    prefix: str  # as the file spells it, "" where it has none
    spelled: str  # the module as the file spells it, behind the prefix
    component: str  # by the prefix; "" where there is none
    algorithm: str
    stored: Mapping[str, Stored]  # role -> tensor
    keys: Mapping[str, str] = field(repr=False)  # role -> the tensor's key in the file
    maps: MappedFiles = field(repr=False)
    alpha: float | None = None  # None: the scale is 1
    rank_stabilised: bool = False
    peft: bool = False  # tensors as peft lays them out, where that differs from LyCORIS
    declared_rank: int | None = None  # peft's LoHa and LoKr divide alpha by the rank in their config, whatever the tensors show
    settings: Mapping[str, Any] = field(default_factory=dict, repr=False)  # peft's config, where there is one

    @property
    def name(self) -> str:
        """As the file spells it, with its prefix."""
        return f"{self.prefix}{self.spelled}"

    @property
    def is_plain(self) -> bool:
        """A product of two factors and nothing else: LoRA, also of a convolution, also with a Tucker core."""
        return self.algorithm == "lora" and set(self.stored) <= {"down", "up", "mid", "alpha"}

    @property
    def needs_base(self) -> bool:
        """Whether the change depends on the weight it is made to."""
        return self.algorithm in NEEDS_BASE or "dora" in self.stored

    @property
    def roles(self) -> frozenset[str]:
        return frozenset(self.stored)

    def raw(self, role: str) -> Tensor:
        """One of its tensors in its own dtype and shape, mapped from the disk: not to be written to."""
        stored = self.stored[role]
        return self.maps.tensor(stored, 0, stored.info.elements).reshape(stored.info.shape)

    def raw_tensors(self) -> dict[str, Tensor]:
        """Ending of the key (what follows the module's name) -> tensor, of all its tensors."""
        return {key.removeprefix(self.name): self.raw(role) for role, key in self.keys.items()}

    def tensor(self, role: str) -> Tensor:
        """A copy of one of its tensors in fp32, in its own shape."""
        import torch

        return self.raw(role).to(torch.float32, copy=True)

    def get(self, role: str) -> Tensor | None:
        """The same, None when the module has none."""
        return self.tensor(role) if role in self.stored else None

    def scale(self, rank: int) -> float:
        """alpha / rank, or alpha / sqrt(rank) where the file says so; 1 without alpha."""
        if self.alpha is None or rank == 0:
            return 1.0
        return self.alpha / (math.sqrt(rank) if self.rank_stabilised else rank)

    @property
    def rank(self) -> int | None:
        """The rank of a plain LoRA."""
        return int(self.stored["down"].info.shape[0]) if self.algorithm == "lora" and "down" in self.stored else None


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """An adapter file. `left` are keys that belong to no module."""

    path: Path
    modules: tuple[Module, ...]
    metadata: Mapping[str, str]
    dialect: str  # row of DIALECTS that its keys are spelled in
    spelling: str  # row of DIALECTS whose endings it has: kohya (lora_down, lora_up, alpha tensors) or peft (lora_A, lora_B)
    dtype: str
    left: tuple[str, ...] = ()

    @cached_property
    def by_place(self) -> dict[tuple[str, str], Module]:
        return {module.place: module for module in self.modules}


def read_adapter(path: Path | str) -> Adapter:
    """The modules of an adapter file; tensors are memory-mapped, not read. Raises BadFile."""
    path = Path(path)
    path = path / WEIGHTS if path.is_dir() else path
    header = read_header(path)
    keys = adapter_keys(header.tensors)
    if keys is None:
        raise BadFile(path, "not-an-adapter", "has no keys of an adapter. Name a LoRA or LyCORIS file.")
    stored = {name: Stored(path, header.data_start + header.offsets[name][0], info) for name, info in header.tensors.items()}
    scales = _Scales(path, header.metadata)
    maps = MappedFiles([path])
    groups: dict[tuple[str, str], dict[str, str]] = {}
    for name, key in keys.items():
        groups.setdefault((key.prefix, key.module), {})[_role(name, key)] = name
    modules = [_module(names, {name: keys[name] for name in names.values()}, stored, maps, scales) for names in groups.values()]
    dtypes = [info.dtype for name, info in header.tensors.items() if name in keys and keys[name].role != "alpha"]
    kohya = sum(
        name.endswith((".lora_down.weight", ".alpha", ".lora_up.weight")) or key.spelling == "lycoris" for name, key in keys.items()
    )
    used = {name for names in groups.values() for name in names.values()} | {f"{name}.weight" for name in _ia3(keys)}
    return Adapter(
        path=path,
        modules=tuple(modules),
        metadata=header.metadata,
        dialect=dialect_of(keys),
        spelling="kohya" if kohya * 2 >= len(keys) else "peft",
        dtype=max(set(dtypes), key=dtypes.count) if dtypes else "F32",
        left=tuple(name for name in header.tensors if name not in used),
    )


def _role(name: str, key: AdapterKey) -> str:
    if ".lora_embedding_" in name:
        return f"table_{key.role}"  # peft's LoRA of an embedding, whose product is transposed
    return "weight_scale" if key.role == "scale" and key.algorithm == "ia3" else key.role


def _ia3(keys: Mapping[str, AdapterKey]) -> Iterator[str]:
    """Names of LyCORIS's IA3 modules, whose scale is a bare `.weight`."""
    return (name.removesuffix(".on_input") for name, key in keys.items() if key.role == "on_input")


def _module(
    names: Mapping[str, str], keys: Mapping[str, AdapterKey], stored: Mapping[str, Stored], maps: MappedFiles, scales: _Scales
) -> Module:
    key = next(iter(keys.values()))
    roles = {role: stored[name] for role, name in names.items()}
    algorithm = _algorithm(roles, keys)
    if "on_input" in roles:
        names = {**names, "weight_scale": f"{names['on_input'].removesuffix('.on_input')}.weight"}
        if names["weight_scale"] not in stored:
            raise BadFile(roles["on_input"].file, "not-an-adapter", f"{names['on_input']} is there, {names['weight_scale']} is not.")
        roles["weight_scale"] = stored[names["weight_scale"]]
    for flag in FLAGS & roles.keys():
        if (info := roles[flag].info).elements != 1 or info.dtype not in TORCH_DTYPES.values():
            raise BadFile(roles[flag].file, "not-an-adapter", f"{names[flag]} is {info.dtype} {list(info.shape)}; one number was expected.")
    alpha = float(maps.tensor(roles["alpha"], 0, 1)) if "alpha" in roles else None
    component = "denoiser" if key.component in ("", "denoiser") else key.component
    settings = scales.of(component)
    return Module(
        place=(component, canonical(component, key.module)),
        prefix=key.prefix,
        spelled=key.module,
        component=key.component,
        algorithm=algorithm,
        stored=roles,
        keys=names,
        maps=maps,
        alpha=alpha if alpha is not None else _declared_alpha(settings, algorithm, key.module),
        rank_stabilised=alpha is None and bool(settings.get("use_rslora")),
        declared_rank=_declared_rank(settings, key.module) if algorithm in ("loha", "lokr") else None,
        peft=any(one.spelling == "peft" for one in keys.values()) or bool(settings),
        settings=settings,
    )


def _algorithm(roles: Mapping[str, Stored], keys: Mapping[str, AdapterKey]) -> str:
    """The algorithm of the factors: a DoRA magnitude may accompany any."""
    named = sorted(keys.values(), key=lambda key: key.role == "dora")
    algorithm = next((key.algorithm for key in named if key.algorithm), "")
    if algorithm == "oft" and "blocks" in roles and len(roles["blocks"].info.shape) == 4:
        return "boft"
    if algorithm == "full" and "set" in roles:
        return "set"
    return "table" if algorithm == "lora" and "table_down" in roles else algorithm


def canonical(component: str, module: str) -> str:
    """One name for every spelling of a module: dots as underscores, UNet blocks as diffusers numbers them."""
    name = underscored(module)
    return diffusers_underscored(name) if component == "denoiser" else name


class _Scales:
    """What is no tensor, such as alpha: diffusers' `lora_adapter_metadata`, or peft's adapter_config.json beside the file."""

    def __init__(self, path: Path, metadata: Mapping[str, str]) -> None:
        self._settings = sound_peft_config(path, metadata)
        beside = path.parent / CONFIG
        self._config: Mapping[str, Any] = read_json(beside) if path.name.startswith("adapter_model") and beside.is_file() else {}

    def of(self, component: str) -> Mapping[str, Any]:
        """peft's settings of the adapter on this component; {} where there are none."""
        prefixes = (f"{component}.",) if component != "denoiser" else ("unet.", "transformer.")
        for prefix in prefixes:
            found = {key[len(prefix) :]: value for key, value in self._settings.items() if key.startswith(prefix)}
            if found:
                return found
        return self._config


def _declared_alpha(settings: Mapping[str, Any], algorithm: str, module: str) -> float | None:
    """alpha as peft's config has it: `lora_alpha`, for LoHa and LoKr `alpha`; other algorithms have none."""
    word = {"lora": "lora_alpha", "table": "lora_alpha", "loha": "alpha", "lokr": "alpha"}.get(algorithm)
    if word is None or word not in settings:
        return None
    alpha = _by_pattern(settings, "alpha_pattern", module, settings[word])
    try:
        return float(alpha)
    except (TypeError, ValueError) as error:
        raise BadFile(module, "bad-header", f"has the alpha {json.dumps(alpha)} in its metadata; a number was expected.") from error


def _declared_rank(settings: Mapping[str, Any], module: str) -> int | None:
    rank = _by_pattern(settings, "rank_pattern", module, settings.get("r"))
    return rank if isinstance(rank, int) and not isinstance(rank, bool) and rank > 0 else None


def _by_pattern(settings: Mapping[str, Any], field: str, module: str, default: Any) -> Any:
    """The entry of the first pattern that a module's name ends with, as peft matches it."""
    patterns = settings.get(field) or {}
    return next((value for pattern, value in patterns.items() if re.match(rf"(.*\.)?({pattern})$", module)), default)
