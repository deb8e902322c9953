"""Block swap on a loaded denoiser: hooks that fetch each swapped block for its forward pass, and again for its backward pass."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from registry.errors import JobFailed, Refused
from registry.family import Family
from registry.swapping.blocks import block_sizes, blocks_of, swap_of, tensors_of
from registry.swapping.host import locked_memory
from registry.swapping.slots import HeldBlock, Ledger, Slots

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

LOG = logging.getLogger(__name__)


class BlockSwap:
    """Swapped blocks of a denoiser. Made before adapters are added, so that theirs stay on the device; `begin` then moves all else there.

    With gradients, gradient checkpointing must be on: a block is fetched when a gradient reaches its outputs, and dropped when one
    reaches the block before it or the backward pass ends. The autograd engine runs the nodes of one device from the last to the first,
    so that all of a block's backward pass is enqueued by then. Outside of a pass every weight lies in main memory.
    """

    def __init__(self, family: Family, denoiser: nn.Module, count: int) -> None:
        modules = blocks_of(family, denoiser)
        chosen = swap_of(block_sizes(family, denoiser, lambda tensor: tensor.nbytes), count, title=family.title).swapped
        shared = _shared(denoiser, chosen)
        self._denoiser = denoiser
        self._modules: Mapping[str, nn.Module] = {name: modules[name] for name in chosen}
        self._blocks = {name: HeldBlock(name, _own(name, modules[name], shared)) for name in chosen}
        self._held = {id(tensor) for block in self._blocks.values() for tensor in block.tensors}
        self._slots: Slots | None = None
        self._device: torch.device | None = None
        self._next: dict[str, str] = {}  # as the first pass went
        self._before: dict[str, str] = {}
        self._last: str | None = None  # block of this forward pass
        self._task = -1  # the backward pass, as autograd numbers them

    @property
    def ledger(self) -> Ledger:
        """What the blocks take of the device, and how often each was fetched."""
        assert self._slots is not None, "begin was not called"
        return self._slots.ledger

    def begin(self, device: torch.device) -> None:
        """Move the denoiser to the device but for the swapped blocks, lock these in main memory, and fetch them from now on."""
        blocks = list(self._blocks.values())
        if device.type == "cuda":
            unlocked = [block.name for block in blocks if not _gather_locked(block)]
            if unlocked:
                LOG.warning(
                    "%d of %d swapped blocks lie in memory that the system does not lock: their copies go on beside no arithmetic, and"
                    " steps are slower",
                    len(unlocked),
                    len(blocks),
                )
        self._device = device
        self._move_the_rest()
        self._slots = Slots(blocks, device)
        self._denoiser.register_forward_pre_hook(self._begin_forward)
        for name, module in self._modules.items():
            module.register_forward_pre_hook(partial(self._enter, name))
            module.register_forward_hook(partial(self._leave, name), always_call=True, with_kwargs=True)

    def wait(self) -> None:
        """Return when no copy is under way: before weights in main memory are written."""
        if self._slots is not None:
            self._slots.wait()

    def names_in(self, module: nn.Module) -> list[str]:
        """Names of the swapped tensors in a module that holds the denoiser."""
        return [name for name, tensor in (*module.named_parameters(), *module.named_buffers()) if id(tensor) in self._held]

    def _move_the_rest(self) -> None:
        """Move all that is not swapped to the device, adapters too that were added since."""
        assert self._device is not None
        for tensor in tensors_of(self._denoiser):
            if id(tensor) not in self._held and tensor.device.type != self._device.type:
                tensor.data = tensor.data.to(self._device)

    # --- hooks

    def _begin_forward(self, denoiser: Any, _inputs: object) -> None:
        import torch

        self._last = None
        self._move_the_rest()
        if self._slots is not None and _backward_pass() == -1:
            self._slots.drop_all()  # of a pass that failed
        if torch.is_grad_enabled() and not denoiser.is_gradient_checkpointing:
            raise JobFailed(
                "Swapped blocks are computed with gradients and without gradient checkpointing: set gradient_checkpointing=true."
            )

    def _enter(self, name: str, _module: object, _inputs: object) -> None:
        slots = self._slots
        assert slots is not None
        task = _backward_pass()
        if task == -1:
            self._learn(name)
        elif task != self._task:
            self._task = task
            _at_the_end_of_backward(slots.drop_all)
        slots.use(self._blocks[name])
        ahead = (self._next if task == -1 else self._before).get(name)
        if ahead is not None:
            slots.fetch_ahead(self._blocks[ahead])

    def _leave(self, name: str, _module: object, inputs: tuple[Any, ...], named: Mapping[str, Any], outputs: Any) -> None:
        import torch

        assert self._slots is not None
        if _backward_pass() != -1:  # computed again: its backward pass follows
            return
        self._slots.drop(self._blocks[name])
        given = {id(one) for one in (*inputs, *named.values())}
        for one in outputs if isinstance(outputs, (tuple, list)) else (outputs,):
            if isinstance(one, torch.Tensor) and one.requires_grad and id(one) not in given:
                one.register_hook(partial(self._begin_backward, name))  # type: ignore[no-untyped-call]

    def _begin_backward(self, name: str, _gradient: object) -> None:
        """Before the first of its nodes, which may read a weight before anything is computed again (a quantised layer keeps no tensor)."""
        self._enter(name, None, None)

    def _learn(self, name: str) -> None:
        """The order of the blocks, in which they are fetched ahead."""
        if self._last is not None:
            self._next[self._last], self._before[name] = name, self._last
        self._last = name


def _gather_locked(block: HeldBlock) -> bool:
    """Put the block into one page-locked piece of main memory. False: the system locks no more, it lies there unlocked."""
    whole, locked = locked_memory(block.size)
    block.gather(whole)
    return locked


def _shared(denoiser: nn.Module, blocks: Sequence[str]) -> set[int]:
    """id of each tensor that is not of one of these blocks alone."""
    every = (*denoiser.named_parameters(remove_duplicate=False), *denoiser.named_buffers(remove_duplicate=False))
    users: dict[int, set[str]] = {}
    for name, tensor in every:
        users.setdefault(id(tensor), set()).add(next((block for block in blocks if name.startswith(f"{block}.")), ""))
    return {tensor for tensor, places in users.items() if len(places) > 1 or "" in places}


def _own(name: str, block: nn.Module, shared: set[int]) -> list[Tensor]:
    """The block's tensors, but for those that are used elsewhere too. Raises Refused for a kind that has no storage of its own."""
    from torch.utils._python_dispatch import is_traceable_wrapper_subclass

    found = [tensor for tensor in tensors_of(block) if id(tensor) not in shared and tensor.nbytes]
    kinds: list[Any] = [tensor for tensor in list[Any](found) if is_traceable_wrapper_subclass(tensor)]
    if kinds:
        raise Refused(f"{name} has weights of {type(kinds[0]).__name__}, which cannot be swapped. Leave swap_blocks out.")
    return found


def _backward_pass() -> int:
    """The number of the backward pass that this is in; -1: none."""
    import torch

    return torch._C._current_graph_task_id()


def _at_the_end_of_backward(work: Any) -> None:
    import torch

    engine: Any = torch.autograd.Variable._execution_engine
    engine.queue_callback(work)
