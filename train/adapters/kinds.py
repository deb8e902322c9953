"""The kinds of adapters: a function each, whose options are its keyword-only parameters (`lora.params`)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

from registry.errors import Faults, Refused
from registry.options import Meaning, OptionTable, option_faults
from registry.settings import given_params

if TYPE_CHECKING:
    import torch

    from train.adapters.layer import AdapterLayer

Shape = tuple[int, ...]  # of a weight: (O, I) or (O, I, h, w)


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What a kind adds to a layer. `make` is None where peft's own LoRA layer is it, with the settings of `peft`."""

    count: Callable[[Shape, int], int]  # weights that learn, by the layer's shape and rank
    make: Callable[[Any, int, float, torch.Generator], AdapterLayer] | None = None  # (layer, rank, scale, generator)
    peft: Mapping[str, Any] = field(default_factory=dict)
    stabilised: bool = False  # the scale is alpha / sqrt(rank)
    factors: bool = True  # the file has LoRA's factors; else the tensors of LyCORIS
    module: str = "networks.lora"  # sd-scripts' network_module for it
    args: Mapping[str, Any] = field(default_factory=dict)  # its network_args
    alpha: bool = True  # whether alpha counts
    layers: bool = True  # whether it is added to layers at all
    loads_in: str = "diffusers, ComfyUI, A1111 and Forge, sd-scripts"  # of a UNet
    loads_in_transformer: str = "diffusers, ComfyUI"  # of a diffusion transformer
    title: str = "LoRA"

    def scale(self, rank: int, alpha: float) -> float:
        """What the product is multiplied by."""
        return alpha / (math.sqrt(rank) if self.stabilised else rank)


KINDS: OptionTable[Callable[..., Kind]] = OptionTable("kind of adapter")

Stabilised = Annotated[bool, Meaning("the scale is alpha / sqrt(rank) in place of alpha / rank (rsLoRA, Kalajdzievski 2023)")]
NAMES: Mapping[str, Any] = {
    "module": "lycoris.kohya",
    "loads_in": "ComfyUI, A1111 and Forge, sd-scripts with LyCORIS; not in diffusers",
    "loads_in_transformer": "ComfyUI where it reads diffusers' names (FLUX.1, SD3, Qwen-Image); not in diffusers",
}
BESIDE_SD_SCRIPTS: Mapping[str, Any] = {"loads_in": "diffusers, ComfyUI, A1111 and Forge; not in sd-scripts"}


def _factors(shape: Shape, rank: int) -> int:
    """A (R, I) and B (O, R); A has the kernel of a convolution, B is 1 x 1."""
    return rank * (math.prod(shape[1:]) + shape[0])


@KINDS.add("lora")
def lora(
    *,
    rank_stabilised: Stabilised = False,
    init: Annotated[
        Literal["zero", "pissa"],
        Meaning("zero: B begins at zero; pissa: both factors at the weight's largest singular values (Meng et al. 2024)"),
    ] = "zero",
) -> Kind:
    """Two factors whose product is added to the weight (Hu et al. 2022): every tool reads it."""
    if init == "zero":
        return Kind(count=_factors, peft={"use_rslora": rank_stabilised}, stabilised=rank_stabilised)

    def make(layer: Any, rank: int, scale: float, generator: torch.Generator) -> AdapterLayer:
        from train.adapters.pissa import Pissa

        return Pissa(layer, rank=rank, scale=scale, seed=generator.initial_seed())

    return Kind(count=_factors, make=make, stabilised=rank_stabilised, title="LoRA (PiSSA)")


@KINDS.add("dora")
def dora(*, rank_stabilised: Stabilised = False) -> Kind:
    """LoRA for the direction of each row and a magnitude beside it (Liu et al. 2024): a third slower, seldom better."""

    def count(shape: Shape, rank: int) -> int:
        return _factors(shape, rank) + shape[0]

    return Kind(
        count=count, peft={"use_rslora": rank_stabilised, "use_dora": True}, stabilised=rank_stabilised, title="DoRA", **BESIDE_SD_SCRIPTS
    )


@KINDS.add("lokr")
def lokr(
    *,
    factor: Annotated[int | None, Meaning("largest side of the small matrix; null is the nearest to a square", 1)] = None,
    decompose_both: Annotated[bool, Meaning("the small matrix is a product of factors too, where that is smaller")] = False,
    full_matrix: Annotated[bool, Meaning("both matrices whole: rank and alpha do not count")] = False,
) -> Kind:
    """The Kronecker product of a small matrix and a low-rank one (LyCORIS): the smallest files."""
    options = {"factor": factor, "decompose_both": decompose_both, "full_matrix": full_matrix}

    def count(shape: Shape, rank: int) -> int:
        from train.adapters.lokr import lokr_shapes

        return sum(map(math.prod, lokr_shapes(shape, rank, **options).values()))  # type: ignore[arg-type]

    def make(layer: Any, rank: int, scale: float, generator: torch.Generator) -> AdapterLayer:
        from train.adapters.lokr import LoKr

        return LoKr(layer, rank=rank, scale=scale, generator=generator, options=options)

    args = {"algo": "lokr", "factor": -1 if factor is None else factor} | {name: True for name in options if options[name] is True}
    return Kind(count=count, make=make, factors=False, alpha=not full_matrix, title="LoKr", **NAMES, args=args)


@KINDS.add("loha")
def loha() -> Kind:
    """The product, number by number, of two low-rank matrices (LyCORIS): a higher rank from as many weights."""

    def make(layer: Any, rank: int, scale: float, generator: torch.Generator) -> AdapterLayer:
        from train.adapters.loha import LoHa

        return LoHa(layer, rank=rank, scale=scale, generator=generator)

    return Kind(count=lambda shape, rank: 2 * _factors(shape, rank), make=make, factors=False, title="LoHa", **NAMES, args={"algo": "loha"})


@KINDS.add("oft")
def oft(
    *, block_size: Annotated[int | None, Meaning("largest side of a block of outputs that is turned; null is the rank", 2)] = None
) -> Kind:
    """Outputs turned block by block by rotations (Qiu et al. 2023): the angles between them stay. alpha does not count."""

    def count(shape: Shape, rank: int) -> int:
        from train.adapters.oft import block_of

        size = block_of(shape[0], block_size or rank)
        return shape[0] // size * (size * (size - 1) // 2)

    def make(layer: Any, rank: int, scale: float, _generator: torch.Generator) -> AdapterLayer:
        from train.adapters.oft import Oft

        return Oft(layer, rank=rank, scale=scale, size=block_size or rank)

    return Kind(count=count, make=make, factors=False, alpha=False, title="OFT", **NAMES, args={"algo": "diag-oft"})


@KINDS.add("none")
def none() -> Kind:
    """No adapter: the vectors of tokens.add alone are trained (textual inversion, Gal et al. 2022)."""
    return Kind(
        count=lambda _shape, _rank: 0, factors=False, alpha=False, layers=False, title="no adapter", loads_in="", loads_in_transformer=""
    )


def choose_kind(name: str, params: Any) -> Kind:
    """The kind with its options. Raises Refused for a kind that is not there, Faults for options that do not fit."""
    try:
        entry = KINDS[name]
    except Refused as error:
        raise Refused(f"lora.kind: {error}") from None
    given = given_params(params)
    faults = [_with_owners(fault) for fault in option_faults(f"lora.kind={name}", entry.options, given, where="lora.params.")]
    if not faults and given.get("full_matrix") and given.get("decompose_both"):
        faults = ["lora.params.full_matrix=true keeps both matrices whole, and decompose_both=true takes one apart. Give one."]
    if faults:
        raise Faults("These options do not fit:", faults)
    return entry.function(**entry.values(given))


def _with_owners(fault: str) -> str:
    """The fault, and which kinds have the option when the chosen one has not."""
    option = fault.partition("has no option '")[2].partition("'")[0]
    owners = [f"lora.kind={name}" for name, entry in KINDS.items() if option in entry.options]
    return f"{fault.partition('. ')[0]}; {' and '.join(owners)} have it." if option and owners else fault
