"""Peak memory and arithmetic of a computation, traced on the meta device: shapes without values.

Every tensor that an operation makes is counted from its birth until nothing holds it: activations kept for the backward pass,
what that pass makes, what gradient checkpointing computes again. Two things are not as the meta device would do them: attention keeps
queries, keys, values, its result and one number a row (Dao 2023, algorithm 1), never the matrix of all pairs; and half precision casts
as in torch.autocast's lists, those for CUDA or those for a CPU.
"""

# B batch, N heads, T tokens, S tokens attended to, D width of a head

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

# of torch.autocast for CUDA: what is computed in half precision, and what in float32
LOW = ("linear", "conv1d", "conv2d", "conv3d", "matmul", "mm", "bmm", "addmm", "baddbmm", "einsum", "__matmul__", "__rmatmul__")
HIGH = ("layer_norm", "group_norm", "softmax", "log_softmax", "norm", "sum", "prod", "cumsum", "exp", "log", "pow", "__pow__", "rsqrt")


@dataclass(frozen=True)
class Trace:
    """Peak memory of a computation without its weights, and its arithmetic."""

    peak: int  # bytes
    operations: float  # floating point operations of matrix products and convolutions, a product and a sum counted as two
    moved: float = 0.0  # bytes that the other operations read and write
    calls: int = 0  # operations dispatched, views left out
    in_8_bits: float = 0.0  # of products of 8-bit numbers, beside `operations`
    away: int = 0  # bytes of activations that lie in main memory between forward and backward pass
    code: int = 0  # bytes of a CPU's code for it, which stays in memory


def trace(work: Callable[[], object], modules: Iterable[nn.Module], *, low: torch.dtype | None = None, on_cpu: bool = False) -> Trace:
    """Run the computation on modules on the meta device, and count. `low` is autocast's dtype; None: no autocast.

    `on_cpu`: what a CPU's convolutions take beside their tensors is counted too, and the code that it keeps. Its autocast casts none of
    these operations to float32.
    """
    from registry.budget.code import code_bytes
    from registry.budget.convolutions import workspace
    from registry.tensors.live_bytes import LiveBytes
    from registry.tensors.meta_results import Made, described

    given = {weight.untyped_storage()._cdata for module in modules for weight in (*module.parameters(), *module.buffers())}
    known: dict[Hashable, tuple[Made, _Cost]] = {}  # as most operations of a model come again

    class Live(LiveBytes):  # type: ignore[no-untyped-call]  # of torch, as its base
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = kwargs or {}
            key = described(func, args, kwargs)
            if key is not None and key in known:
                kept, cost = known[key]
                made = kept.again()
            else:
                made = func(*args, **kwargs)
                cost = _cost(func, args, kwargs, made)
                if on_cpu and (beside := workspace(func, args, made)):
                    cost = replace(cost, beside=beside)
                if key is not None and (shapes := Made.of(made, args, kwargs)) is not None:
                    known[key] = (shapes, cost)
                    code[0] += code_bytes(func, args) if on_cpu else 0
            operations[0] += cost.operations
            operations[1] += cost.in_8_bits
            calls[0] += cost.calls
            calls[1] += cost.moved
            self.count_passing(cost.beside)
            self.count_all(made)
            return made

    operations, calls, code = [0.0, 0.0], [0, 0], [0]
    with Live(given) as live, _fused_and_cast(low, operations, high=() if on_cpu else HIGH):
        work()
    return Trace(live.peak, operations[0], float(calls[1]), calls[0], operations[1], code=code[0])


@dataclass(frozen=True)
class _Cost:
    """What a call of an operation adds to a trace."""

    operations: float = 0.0
    in_8_bits: float = 0.0
    moved: int = 0
    calls: int = 1
    beside: int = 0  # bytes in passing, those of the result among them


def _cost(func: Any, args: Any, kwargs: Any, made: Any) -> _Cost:
    import torch
    from torch.utils._pytree import tree_leaves
    from torch.utils.flop_counter import flop_registry

    packet = func._overloadpacket
    if packet is torch.ops.aten._int_mm or packet is torch.ops.aten._scaled_mm:
        return _Cost(in_8_bits=2.0 * args[0].shape[0] * args[0].shape[1] * args[1].shape[1])
    if packet in flop_registry:  # the counter's table without its mode, whose hooks on modules keep tensors alive
        return _Cost(operations=flop_registry[packet](*args, **kwargs, out_val=made))
    if func.is_view:
        return _Cost(calls=0)
    return _Cost(moved=sum(leaf.nbytes for leaf in tree_leaves((args, kwargs, made)) if isinstance(leaf, torch.Tensor)))


def backward(loss: Tensor) -> None:
    """The backward pass inside a trace, by the autograd engine itself: torch's public functions drop the dispatch modes of a trace, and
    gradient checkpointing would compute its layers again without them."""
    import torch

    engine: Any = torch.autograd.Variable._execution_engine
    engine.run_backward((loss,), (torch.ones_like(loss),), False, False, (), allow_unreachable=True, accumulate_grad=True)


def _fused_and_cast(low: torch.dtype | None, operations: list[float], *, high: Sequence[str]) -> Any:
    """A mode in which attention is fused and casts are autocast's, `high` to float32. What attention computes is added to operations[0]."""
    import torch
    from torch.overrides import TorchFunctionMode

    attend = _fused_attention(operations)
    functions: dict[Any, Any] = {}
    for names, dtype in ((LOW, low), (high, torch.float32)):
        for name in names if low is not None else ():
            for place in (torch, torch.nn.functional, torch.Tensor):
                if hasattr(place, name):
                    functions[getattr(place, name)] = dtype

    class AsAGpu(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = kwargs or {}
            if func is torch.nn.functional.scaled_dot_product_attention:
                return attend(*(_cast(one, low) for one in args[:3]), *args[3:], **{name: _cast(one, low) for name, one in kwargs.items()})
            dtype = functions.get(func)
            if dtype is None:
                return func(*args, **kwargs)
            return func(*(_cast(one, dtype) for one in args), **{name: _cast(one, dtype) for name, one in kwargs.items()})

    return AsAGpu()


def _cast(value: Any, dtype: torch.dtype | None) -> Any:
    import torch

    real = isinstance(value, torch.Tensor) and value.dtype in (torch.float32, torch.float16, torch.bfloat16)
    return value.to(dtype) if real and dtype is not None else value


def _fused_attention(operations: list[float]) -> Callable[..., Tensor]:
    """Attention by shapes: q (B, N, T, D), k and v (B, N, S, D) -> (B, N, T, D)."""
    import torch

    def products(q: Tensor, k: Tensor, v: Tensor) -> float:
        return 2.0 * q[..., 0].numel() * k.shape[-2] * (q.shape[-1] + v.shape[-1])

    class Fused(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            operations[0] += products(q, k, v)
            out = q.new_empty(*q.shape[:-1], v.shape[-1])
            ctx.save_for_backward(q, k, v, out, q.new_empty(q.shape[:-1], dtype=torch.float32))
            return out

        @staticmethod
        def backward(ctx: Any, _gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            q, k, v, _out, _rows = ctx.saved_tensors
            operations[0] += 2.5 * products(q, k, v)  # the scores again, and four products more for two
            return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)

    def attend(query: Tensor, key: Tensor, value: Tensor, *_mask: Any, **_options: Any) -> Tensor:
        attended: Tensor = Fused.apply(query, key, value)  # type: ignore[no-untyped-call]
        return attended

    return attend
