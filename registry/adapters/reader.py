"""An adapter file as modules: which weights it changes, by what algorithm, with which tensors and which scale.

The only reader of adapter files. Loading (`peft_state`), the algebra (`targets`) and conversion (`converting.adapter_layers`) map what
it gives.
"""

# R rank, I in-width, O out-width

from __future__ import annotations

import math
import re
import struct
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.adapters.peft_settings import Settings, declared_alpha, declared_rank, not_adapter, start_of, unread_of
from registry.architectures.unet.diffusers_names import diffusers_underscored
from registry.detect.module_shapes import underscored
from registry.errors import BadFile
from registry.formats.adapter_keys import AdapterKey, adapter_keys, dialect_of, malformed
from registry.formats.atomic_file import TORCH_DTYPES
from registry.formats.dialects import DIALECTS
from registry.formats.peft_config import WEIGHTS
from registry.formats.safetensors_header import read_header
from registry.tensors.layout import Stored
from registry.tensors.mmap_files import MappedFiles
from registry.tensors.role_form import FLAGS

if TYPE_CHECKING:
    from torch import Tensor

NEEDS_BASE = ("oft", "boft", "ia3", "glora", "set")  # and everything with a DoRA magnitude, or that began as a part of the base
FACTORS = {"down", "up", "mid", "singular", "alpha"}  # of a plain LoRA
BIASES = {"diff_b", "up_bias"}  # what it may add to the bias
STRUCTS = {"F16": "<e", "F32": "<f", "F64": "<d"}
REAL = {dtype for dtype in TORCH_DTYPES.values() if not dtype.startswith("C")}  # C64 is complex
BACKWARD = ".lora_velora_"  # VeLoRA's compression of activations, for gradients alone
ADALORA_EPSILON = 1e-5  # peft divides by the rank plus this
SINGLE_QKV = re.compile(r"single_blocks\.(\d+)\.processor\.qkv")  # of XLabs, as `adapter_keys` names it
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
    declared_rank: int | None = None  # peft's LoHa, LoKr and AdaLoRA divide alpha by the rank in their config, whatever the tensors show
    start: str = ""  # pissa, olora: the factors began as a part of the base's weight, which was taken out of it
    unread: str | None = None  # why its config makes it more than its tensors show
    strange: tuple[str, ...] = ()  # keys of this module that are not understood
    settings: Mapping[str, Any] = field(default_factory=dict, repr=False)  # peft's config, where there is one

    @property
    def name(self) -> str:
        """As the file spells it, with its prefix."""
        return f"{self.prefix}{self.spelled}"

    @property
    def is_product(self) -> bool:
        """A weight's change that is a product of factors: LoRA, also of a convolution, with a Tucker core or AdaLoRA's singular values."""
        return self.algorithm == "lora" and set(self.stored) - BIASES <= FACTORS and not self.start

    @property
    def is_plain(self) -> bool:
        """Such a product and nothing else: no bias, no magnitude."""
        return self.is_product and not self.roles & BIASES

    @property
    def needs_base(self) -> bool:
        """Whether the change depends on the weight it is made to."""
        return self.algorithm in NEEDS_BASE or "dora" in self.stored or bool(self.start)

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
        if "singular" in self.stored and self.declared_rank:
            return (self.alpha or rank) / (self.declared_rank + ADALORA_EPSILON)
        if self.alpha is None or rank == 0:
            return 1.0
        return self.alpha / (math.sqrt(rank) if self.rank_stabilised else rank)

    @property
    def rank(self) -> int | None:
        """The rank of a plain LoRA; None also where `down` has no axes."""
        shape = self.stored["down"].info.shape if self.algorithm == "lora" and "down" in self.stored else ()
        return int(shape[0]) if shape else None


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """An adapter file. `left` are keys that are not understood: of its modules (their `strange` ones), or of none."""

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
    path = path / f"{WEIGHTS}.safetensors" if path.is_dir() else path
    header = read_header(path)
    keys = adapter_keys(header.tensors)
    if keys is None:
        raise BadFile(path, "not-an-adapter", not_adapter(Settings(path, {}).of(""), malformed(header.tensors)))
    stored = {name: Stored(path, header.data_start + header.offsets[name][0], info) for name, info in header.tensors.items()}
    settings = Settings(path, header.metadata)
    maps = MappedFiles([path])
    groups: dict[tuple[str, str], dict[str, str]] = {}
    for name, key in keys.items():
        roles, role = groups.setdefault((key.prefix, key.module), {}), _role(name, key)
        if role in roles:
            raise BadFile(path, "bad-header", f"has one factor of a module twice, {roles[role]} and {name}. One of them would be lost.")
        roles[role] = name
    used = {name for names in groups.values() for name in names.values()} | {f"{name}.weight" for name in _ia3(keys)}
    left = tuple(name for name in header.tensors if name not in used and BACKWARD not in name)
    strange = _by_module(left, {f"{prefix}{module}" for prefix, module in groups})
    modules = [
        _module(names, {name: keys[name] for name in names.values()}, stored, maps, settings, strange.get("".join(module), ()))
        for module, names in groups.items()
    ]
    modules = [part for module in modules for part in _parts_of_single_block(module)]
    dtypes = [info.dtype for name, info in header.tensors.items() if name in keys and keys[name].role != "alpha"]
    dialect = dialect_of(keys)
    kohya = sum(
        DIALECTS[dialect].own_modules or name.endswith((".lora_down.weight", ".alpha", ".lora_up.weight")) or key.spelling == "lycoris"
        for name, key in keys.items()
    )
    return Adapter(
        path=path,
        modules=tuple(modules),
        metadata=header.metadata,
        dialect=dialect,
        spelling="kohya" if kohya * 2 >= len(keys) else "peft",
        dtype=max(set(dtypes), key=dtypes.count) if dtypes else "F32",
        left=left,
    )


def _parts_of_single_block(module: Module) -> Iterator[Module]:
    """A module as it is; XLabs' q, k and v of a single block as the three modules of diffusers, whose rows it holds."""
    found = SINGLE_QKV.fullmatch(module.spelled)
    up = module.stored.get("up")
    if found is None or up is None or not up.info.shape or up.info.shape[0] % 3:
        yield module
        return
    third = up.info.shape[0] // 3
    for number, part in enumerate(("to_q", "to_k", "to_v")):
        name = f"single_transformer_blocks.{found[1]}.attn.{part}"
        stored = {**module.stored, "up": up.rows(number * third, (number + 1) * third)}
        yield replace(module, spelled=name, place=(module.place[0], canonical(module.place[0], name)), stored=stored)


def _by_module(left: Iterable[str], modules: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Module -> keys that begin with its name and a dot."""
    found: dict[str, tuple[str, ...]] = {}
    for key in left:
        name = key
        while "." in name and name not in modules:
            name = name.rpartition(".")[0]
        if name in modules:
            found[name] = (*found.get(name, ()), key)
    return found


def _role(name: str, key: AdapterKey) -> str:
    if ".lora_embedding_" in name:
        return f"table_{key.role}"  # peft's LoRA of an embedding, whose product is transposed
    return "weight_scale" if key.role == "scale" and key.algorithm == "ia3" else key.role


def _ia3(keys: Mapping[str, AdapterKey]) -> Iterator[str]:
    """Names of LyCORIS's IA3 modules, whose scale is a bare `.weight`."""
    return (name.removesuffix(".on_input") for name, key in keys.items() if key.role == "on_input")


def _module(
    names: Mapping[str, str],
    keys: Mapping[str, AdapterKey],
    stored: Mapping[str, Stored],
    maps: MappedFiles,
    configs: Settings,
    strange: tuple[str, ...],
) -> Module:
    key = next(iter(keys.values()))
    roles = {role: stored[name] for role, name in names.items()}
    algorithm = _algorithm(roles, keys.values())
    if "on_input" in roles:
        names = {**names, "weight_scale": f"{names['on_input'].removesuffix('.on_input')}.weight"}
        if names["weight_scale"] not in stored:
            raise BadFile(roles["on_input"].file, "not-an-adapter", f"{names['on_input']} is there, {names['weight_scale']} is not.")
        roles["weight_scale"] = stored[names["weight_scale"]]
    for flag in FLAGS & roles.keys():
        if (info := roles[flag].info).elements != 1 or info.dtype not in REAL:
            raise BadFile(roles[flag].file, "not-an-adapter", f"{names[flag]} is {info.dtype} {list(info.shape)}; one number was expected.")
    alpha = _number(maps, roles["alpha"]) if "alpha" in roles else None
    component = "denoiser" if key.component in ("", "denoiser") else key.component
    settings = configs.of(component)
    lora = algorithm == "lora"
    return Module(
        place=(component, canonical(component, key.module)),
        prefix=key.prefix,
        spelled=key.module,
        component=key.component,
        algorithm=algorithm,
        stored=roles,
        keys=names,
        maps=maps,
        alpha=alpha if alpha is not None else declared_alpha(settings, algorithm, key.module),
        rank_stabilised=alpha is None and bool(settings.get("use_rslora")),
        declared_rank=settings.get("init_r")
        if "singular" in roles
        else declared_rank(settings, key.module)
        if algorithm in ("loha", "lokr")
        else None,
        start=start_of(settings) if lora else "",
        unread=unread_of(settings) if lora else None,
        strange=strange,
        peft=any(one.spelling == "peft" for one in keys.values()) or bool(settings),
        settings=settings,
    )


def _number(maps: MappedFiles, stored: Stored) -> float:
    """A tensor's one number; without torch, which a plan need not import, where Python's struct knows its dtype."""
    form = STRUCTS.get(stored.info.dtype)
    return float(struct.unpack(form, maps.raw(stored, 0, stored.bytes))[0]) if form else float(maps.tensor(stored, 0, 1))


def _algorithm(roles: Mapping[str, Stored], keys: Collection[AdapterKey]) -> str:
    """The algorithm of the weight's factors, in whatever order the keys are: a DoRA magnitude and a bias may accompany any."""
    named = {key.algorithm for key in keys if key.role not in ("dora", "diff_b")} or {key.algorithm for key in keys}
    algorithm = min(named - {""}, default="")
    if algorithm == "oft" and "blocks" in roles and len(roles["blocks"].info.shape) == 4:
        return "boft"
    if algorithm == "full" and "set" in roles:
        return "set"
    return "table" if algorithm == "lora" and "table_down" in roles else algorithm


def canonical(component: str, module: str) -> str:
    """One name for every spelling of a module: dots as underscores, UNet blocks as diffusers numbers them."""
    name = underscored(module)
    return diffusers_underscored(name) if component == "denoiser" else name
