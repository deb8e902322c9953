"""The settings with which a grid's images fit a memory budget, found for each base by itself. What is given by hand or varied stays."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infer.budget.calls import largest_of
from infer.budget.memory import BaseMemory, GridMemory
from infer.budget.need import Drawing
from infer.budget.savings import SEARCHED, settings_of
from infer.draw.render import Render
from registry.budget.chosen import as_typed
from registry.budget.costs import MAIN_MEMORY, RESERVED
from registry.budget.free import main_memory_bytes, process_bytes
from registry.budget.search import Found, Values, cheapest
from registry.budget.text import Budget, both_units, read_budget, size_to_give
from registry.errors import Faults, Refused
from registry.formats.safetensors_header import read_header

if TYPE_CHECKING:
    from infer.draw.resolve import Resolver

SHARED = ("cpu", "mps")  # devices whose memory is main memory: a swapped block saves nothing


@dataclass(frozen=True)
class Choice:
    """The images with the settings that were found, and what was found."""

    renders: tuple[Render, ...]
    memory: GridMemory


def choose(memory: str, renders: Sequence[Render], resolver: Resolver, *, free: Collection[str], batch_size: int = 1) -> Choice:
    """The settings of resolved Renders for a budget; those that are not `free` stay. `batch_size` images share a denoiser call.

    Raises Faults with each base that does not fit.
    """
    import torch

    device = torch.device(renders[0].device)  # one for all: no axis changes it
    for render in {one.base_sha256: one for one in renders}.values():
        resolver.base(render).skeleton  # noqa: B018  # a plan of a known base has not imported what loads it, which takes memory too
    process = process_bytes(device)
    budget = read_budget(memory, device)
    if budget.is_auto:  # what this process has already is counted in the need
        budget = replace(budget, bytes=budget.bytes + process)
    groups: dict[tuple[Hashable, ...], list[Render]] = {}
    for render in renders:
        groups.setdefault(_kept_as(render), []).append(render)
    faults: list[str] = []
    found: dict[tuple[Hashable, ...], BaseMemory] = {}
    for key, group in groups.items():
        try:
            found[key] = _of_base(memory, budget, group, resolver, free, batch_size=batch_size, process=process)
        except Refused as error:
            faults.append(str(error))
    if faults:
        raise Faults("This grid does not fit:", faults)
    changed = tuple(_with(render, found[_kept_as(render)].found.chosen.values) for render in renders)
    return Choice(changed, GridMemory(budget, 0 if process else RESERVED, tuple(found.values())))


def _with(render: Render, values: Mapping[str, Any]) -> Render:
    return replace(render, **values)


def _kept_as(render: Render) -> tuple[Hashable, ...]:
    """What a loaded base is apart from another by."""
    base = (render.base_sha256, render.base_config_sha256, render.prediction, render.precision)
    return (*base, render.base_dtype, render.text_encoder_dtype, render.compute, render.swap_blocks)


def _of_base(
    memory: str, budget: Budget, group: Sequence[Render], resolver: Resolver, free: Collection[str], *, batch_size: int, process: int
) -> BaseMemory:
    first = group[0]
    drawing = drawing_of(group, resolver, batch_size=batch_size, process=process)
    able = [name for name in free if name in ("swap_blocks", "vae_tiling") or _can_be_quantised(name, group, resolver)]
    given = {name: getattr(first, name) for name in SEARCHED}
    main = main_memory_bytes()
    try:
        found = search(
            given,
            drawing,
            budget.bytes,
            able,
            swaps=first.device not in SHARED,
            reserved=0 if process else RESERVED,
            main_memory=None if main is None else int(main * MAIN_MEMORY),
        )
    except Exception as error:
        raise Refused(
            f"memory={memory}: the empty model of {first.base} could not be traced ({type(error).__name__}: {error}), so that no settings"
            " can be found for it. Leave memory out, and give them."
        ) from error
    left = tuple(f"{name}={as_typed(given[name])}" for name in SEARCHED if name not in able and given[name] not in (None, 0))
    made = BaseMemory(base=first.base, found=found, given=left, stage=drawing.stages(found.chosen.values).largest[0])
    if not found.fits:
        raise _refusal(memory, budget, made, given)
    return made


def search(
    given: Values,
    drawing: Drawing,
    budget: int,
    free: Collection[str],
    *,
    swaps: bool,
    reserved: int = 0,
    main_memory: int | None = None,
) -> Found:
    """The cheapest settings for so many bytes, of which `reserved` are no tensor's.

    `swaps`: the device has memory of its own, and swapped blocks save some; they take at most `main_memory` of the other (None: no limit).
    """

    def allowed(values: Values) -> bool:
        swapped = values["swap_blocks"]
        return swapped == given["swap_blocks"] or main_memory is None or drawing.swap(values).host_bytes <= main_memory

    settings = settings_of(given, drawing, free, swaps=swaps)
    return cheapest(settings, budget, peak=lambda values: drawing.peak(values) + reserved, allowed=allowed)


def drawing_of(group: Sequence[Render], resolver: Resolver, *, batch_size: int = 1, process: int = 0) -> Drawing:
    """What these images of one base need: their largest calls, and all that they name beside the base."""
    import torch

    first = group[0]
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[first.precision]
    base = resolver.base(first)
    return Drawing(
        base.family,
        base.skeleton,
        dtype,
        largest_of(group, resolver, batch_size=batch_size),
        beside=_beside(group, resolver) * dtype.itemsize,
        process=process,
        compute=first.compute,
    )


def _beside(group: Sequence[Render], resolver: Resolver) -> int:
    """Numbers of all adapters, ControlNets and VAEs of the images: none is dropped before its last image."""
    adapters = {one.sha256: resolver.adapter(one.reference).path for render in group for one in render.active}
    nets = {one.sha256: resolver.controlnet(one.reference).path for render in group for one in render.steering}
    vaes = {render.vae_sha256: resolver.vae(render.vae).path for render in group if render.vae is not None}
    return sum(_numbers(path) for path in {**adapters, **nets, **vaes}.values())


def _numbers(path: Path) -> int:
    """Numbers in the safetensors files of a path; a file of another format counts as half precision."""
    files = [path] if path.is_file() else sorted(path.glob("*.safetensors"))
    return sum(_in_file(file) for file in files)


def _in_file(file: Path) -> int:
    if file.suffix != ".safetensors":
        return file.stat().st_size // 2
    return sum(prod(tensor.shape) for tensor in read_header(file).tensors.values())


def _can_be_quantised(name: str, group: Iterable[Render], resolver: Resolver) -> bool:
    """Whether all adapters of the images can be drawn on a quantised base: those in the weights themselves cannot."""
    by_adapters = {render.active: render for render in group if render.active}
    quantised: dict[str, Any] = {name: "int8"}
    try:
        for render in by_adapters.values():
            resolver.resolve(replace(render, **quantised))
    except Faults:
        return False
    return True


def _refusal(memory: str, budget: Budget, made: BaseMemory, given: Mapping[str, Any]) -> Refused:
    """That nothing fits, with the least memory that would do."""
    chosen = made.found.chosen
    changed = " ".join(f"{name}={as_typed(value)}" for name, value in chosen.values.items() if value != given[name])
    peak = chosen.peak or 0
    fixed = f" What is given stays: {' '.join(made.given)}." if made.given else ""
    return Refused(
        f"memory={memory}, {budget}, does not do for {made.base}. The least that would is {both_units(peak)} or {peak:,} bytes, needed"
        f" while {made.stage}, with {changed or 'the settings as they are'}.{fixed} Give memory={size_to_give(peak)} or more, or a smaller"
        " size."
    )
