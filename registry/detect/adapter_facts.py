"""Facts of an adapter from its header: algorithms, rank, alpha, DoRA, components. No tensor is read."""

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from registry.formats.adapter_keys import SCALED, TEXT_MODULE, AdapterKey, KeyKind, dialect_of, is_language_model, kinds_of
from registry.formats.dialects import DENOISER, DOUBLED
from registry.formats.model_header import ModelHeader, TensorNames
from registry.formats.peft_config import CONFIG, ENTRY, peft_config
from registry.typed_values import is_number


@dataclass(frozen=True)
class AdapterFacts:
    """Facts of one adapter's table of tensors. `ranks` counts modules by rank; `rank` is None when they differ."""

    algorithms: tuple[str, ...]
    components: tuple[str, ...]  # DENOISER for the trained network
    dora: bool
    rank: int | None
    ranks: Mapping[int, int]
    alpha_tensors: bool  # its alphas are tensors, whose values a header does not show
    dialect: str
    language_model: bool
    others: int  # tensors that do not belong to an adapter
    other: str | None  # the first of them
    doubled: str | None = None  # a key that names the UNet twice

    def alpha_by(self, metadata: Mapping[str, str]) -> tuple[float | None, str | None]:
        """(alpha, where it was read) with a header's metadata; the rank where there is none: the scale is 1 then."""
        alpha, source = _alpha(metadata)
        if source is None and set(self.algorithms) & SCALED and self.rank is not None and not self.alpha_tensors:
            return float(self.rank), "no alpha in the file: the scale is 1"
        return alpha, source


# A tensor whose first size is its module's rank: (component, module), name, whether the largest of several is
_Rank = tuple[tuple[str, str], str, bool]


class _Named(NamedTuple):
    """What the names of an adapter's tensors show."""

    ranks: tuple[str, ...]  # tensors whose first size is their module's rank, where no two are of one module
    shared_ranks: tuple[_Rank, ...]  # such tensors where two are
    blocks: tuple[str, ...]  # tensors whose axes tell OFT from BOFT
    algorithms: frozenset[str]  # OFT for both
    components: tuple[str, ...]
    dora: bool
    alpha_tensors: bool
    dialect: str
    language_model: bool
    others: tuple[str, ...]  # tensors that do not belong to an adapter
    doubled: str | None


def adapter_facts(header: ModelHeader) -> AdapterFacts:
    """The facts in parsed keys and shapes."""
    names, tensors, infos = header.names, header.tensors, header.infos
    named = names.cached(_by_names)
    found: dict[tuple[str, str], int] = {}
    for place, name, most in named.shared_ranks:
        if shape := tensors[name].shape:
            found[place] = max(shape[0], found.get(place, 0)) if most else shape[0]
    ranks = Counter([*found.values(), *(shape[0] for name in named.ranks if (shape := tensors[name].shape))])
    kernels = any(len(info.shape) == 4 and info.shape[-1] > 1 for info in infos)  # most files have none
    convolution = kernels and any(len(shape := tensors[name].shape) == 4 and shape[-1] > 1 for name in names.cached(_kernels))
    algorithms: frozenset[str] | set[str] = named.algorithms
    if "oft" in algorithms:  # one key name for both: three axes are OFT, four are BOFT
        axes = {len(tensors[name].shape) for name in named.blocks}
        algorithms = (algorithms - {"oft"}) | ({"boft"} if axes == {4} else {"oft", "boft"} if 4 in axes else {"oft"})
    return AdapterFacts(
        algorithms=tuple(sorted(algorithms)),
        components=named.components + (("conv",) if convolution else ()),
        dora=named.dora,
        rank=next(iter(ranks)) if len(ranks) == 1 else None,
        ranks=dict(sorted(ranks.items())),
        alpha_tensors=named.alpha_tensors,
        dialect=named.dialect,
        language_model=named.language_model,
        others=len(named.others),
        other=named.others[0] if named.others else None,
        doubled=named.doubled,
    )


def _by_names(names: TensorNames) -> _Named:
    keys = names.keys or {}
    kinds = kinds_of(keys)
    scaled = {
        name.removesuffix(".on_input") for name, key in _with_roles(keys, kinds, {"on_input"})
    }  # their IA3 factor is a plain `.weight`
    others = (
        [name for name in names.names if name not in keys and name.removesuffix(".weight") not in scaled]
        if len(keys) < len(names.names)
        else []
    )
    ranks = [*_ranks(keys, kinds)]
    shared: tuple[_Rank, ...] = ()
    if len({place for place, _, _ in ranks}) != len(ranks):
        modules = Counter([place for place, _, _ in ranks])
        shared = tuple([rank for rank in ranks if modules[rank[0]] > 1])
        ranks = [rank for rank in ranks if modules[rank[0]] == 1]
    return _Named(
        ranks=tuple([name for _, name, _ in ranks]),
        shared_ranks=shared,
        blocks=tuple(name for name, key in _with_roles(keys, kinds, {"blocks"}) if key.algorithm == "oft"),
        algorithms=frozenset(kind.algorithm for kind in kinds if kind.role != "dora") - {""},  # a DoRA magnitude goes with any
        components=_components(keys, kinds),
        dora=any(kind.role == "dora" for kind in kinds),
        alpha_tensors=any(kind.role == "alpha" for kind in kinds),
        dialect=dialect_of(keys),
        language_model=is_language_model(keys),
        others=tuple(others) if keys else (),
        doubled=next((name for name, key in keys.items() if key.prefix == DOUBLED), None)
        if any(kind.prefix == DOUBLED for kind in kinds)
        else None,
    )


def _with_roles(keys: Mapping[str, AdapterKey], kinds: Collection[KeyKind], roles: Collection[str]) -> list[tuple[str, AdapterKey]]:
    """The keys of these roles; they are looked for only where there are some."""
    wanted = {kind for kind in kinds if kind.role in roles}
    return [(name, key) for name, key in keys.items() if key.kind in wanted] if wanted else []


def _kernels(names: TensorNames) -> tuple[str, ...]:
    """The tensors with the kernel of a convolution, where there is one."""
    return tuple(name for name, key in (names.keys or {}).items() if key.role in KERNELS)


# (algorithm, role) of the tensors whose first size is their module's rank, and whether the largest of several is
RANKED = {("lora", "down"): False, ("loha", "w1_b"): False, ("glora", "b2"): False, ("lokr", "w1_b"): True, ("lokr", "w2_b"): True}


def _ranks(keys: Mapping[str, AdapterKey], kinds: Collection[KeyKind]) -> Iterator[_Rank]:
    """The tensors that have a module's rank, by the definition of each algorithm."""
    most = {kind: RANKED[kind.algorithm, kind.role] for kind in kinds if (kind.algorithm, kind.role) in RANKED}
    return (((key.component, key.module), name, most[key.kind]) for name, key in keys.items() if key.kind in most)


def _components(keys: Mapping[str, AdapterKey], kinds: Collection[KeyKind]) -> tuple[str, ...]:
    names = {kind.component for kind in kinds}
    if "" in names:  # peft's files do not name the component; the module names do
        modules = {key.module for key in keys.values() if not key.component}
        names |= (
            {"text_encoder" if TEXT_MODULE.search(module) else DENOISER for module in modules} if not is_language_model(keys) else set()
        )
    order = (DENOISER, "text_encoder", "text_encoder_2", "text_encoder_3")
    return tuple(sorted(names - {""}, key=lambda name: (order.index(name) if name in order else 9, name)))


KERNELS = {"down", "mid", "t1", "t2", "w2", "b2", "diff", "set"}  # roles whose tensor has the kernel of a convolution


# --- alpha: in kohya files a tensor, elsewhere metadata; without one the scale is 1


def _alpha(metadata: Mapping[str, str]) -> tuple[float | None, str | None]:
    alpha = _number(metadata.get("ss_network_alpha"))
    if alpha is not None:
        return alpha, "ss_network_alpha"
    config = peft_config(metadata)
    values = {value for name, value in config.items() if name.rpartition(".")[2] == "lora_alpha" and is_number(value)}
    words = [
        f"{part} {value:g}"
        for name, entry in config.items()
        if name.rpartition(".")[2] == "alpha_pattern"
        for part, value in _numbers(entry)
    ]
    source = f"{ENTRY} or {CONFIG}"
    if any(name.rpartition(".")[2] == "use_rslora" and value for name, value in config.items()):
        source += ", with rsLoRA: the scale is alpha by the root of the rank"
    if len(values) == 1 and not words:
        return float(values.pop()), source
    values_text = [f"{value:g}" for value in sorted(values)] + words
    return None, f"{source}: {', '.join(values_text)}" if values_text else None


def _numbers(entry: object) -> list[tuple[str, float]]:
    values = entry if isinstance(entry, dict) else {}
    return [(str(name), float(value)) for name, value in values.items() if is_number(value)]


def _number(value: object) -> float | None:
    try:
        number = float(value)  # type: ignore[arg-type]  # any object may be asked
    except (TypeError, ValueError):
        return None  # kohya writes "Dynamic" for adapters of several alphas
    return number if math.isfinite(number) else None
