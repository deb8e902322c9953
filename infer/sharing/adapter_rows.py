"""Plain LoRAs with weights of each row's own: one forward serves images of several adapters.

W x + B (w A x), w the row's weight of each adapter: all adapters of a forward are one product, A stacked and B side by side, and w
scales its middle, as wide as their ranks together. peft's `adapter_names` takes one adapter a row and no weight. In fp32, where rows that
lie together have equal weights, (W + B w A) x is the same in one product, which costs nothing beside that of the base.
"""

# B rows of the forward, R ranks of its adapters together

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from registry.errors import JobFailed

if TYPE_CHECKING:
    from torch import Tensor, nn

Weights = Mapping[str, float]
MOST_RUNS = 8  # of rows with equal weights: beyond, a product for each costs more calls than it saves


@dataclass(frozen=True)
class _Stacked:
    """The adapters of one layer, in the order of `names`."""

    names: tuple[str, ...]  # those that this layer has
    ranks: tuple[int, ...]
    scalings: tuple[float, ...]  # alpha / rank
    down: Tensor | None  # (R, in, ...); None: they are applied one by one
    up: Tensor | None  # (out, R, ...)


class RowAdapters:
    """The plain LoRAs attached to a denoiser, each row with its own weights. What peft adds is off from `install` until `remove`."""

    def __init__(self, denoiser: nn.Module) -> None:
        self._denoiser = denoiser
        self._layers: list[Any] = []
        self._rows: tuple[tuple[tuple[str, float], ...], ...] = ()
        self._runs: list[tuple[int, int]] = []  # rows from .. to, of equal weights
        self._names: tuple[str, ...] = ()
        self._stacks: dict[int, _Stacked] = {}
        self._scales: dict[Hashable, Tensor] = {}

    @property
    def installed(self) -> bool:
        """Whether rows have adapters of their own now."""
        return bool(self._layers)

    def install(self) -> None:
        """Take over every LoRA layer that the denoiser has now. Needed again when an adapter was attached, detached or set."""
        self.remove()
        for layer in _lora_layers(self._denoiser):
            layer._disable_adapters = True
            layer.forward = partial(self._output, layer)
            self._layers.append(layer)

    def remove(self) -> None:
        """Leave the layers to peft, inactive until `set_weights`."""
        for layer in self._layers:
            del layer.forward  # its class has its own
        self._layers, self._rows, self._runs, self._names = [], (), [], ()
        self._stacks.clear()
        self._scales.clear()

    def use(self, rows: Sequence[Weights]) -> None:
        """The weights of each row of the next forwards, by name of adapter."""
        wanted = tuple(tuple(sorted((name, weight) for name, weight in row.items() if weight != 0.0)) for row in rows)
        if wanted == self._rows:
            return
        names = tuple(sorted({name for row in wanted for name, _ in row}))
        if names != self._names:
            self._stacks.clear()
        self._rows, self._names = wanted, names
        starts = [place for place, row in enumerate(wanted) if not place or row != wanted[place - 1]]
        self._runs = list(zip(starts, [*starts[1:], len(wanted)], strict=True))
        self._scales.clear()

    def _output(self, layer: Any, inputs: Tensor, *rest: Any, **options: Any) -> Tensor:
        """The output of a layer with its adapters, each row's by its own weights."""
        base = layer.base_layer
        stack = self._stacks.get(id(layer))
        if stack is None:
            stack = self._stacks[id(layer)] = _stacked(layer, [name for name in self._names if name in layer.lora_A])
        if not stack.names:
            return base(inputs, *rest, **options)  # type: ignore[no-any-return]  # peft is untyped
        folded, odd = divmod(inputs.shape[0], len(self._rows))  # Krea 2 has the tokens of a row, one behind the other, for rows
        if odd:
            raise JobFailed(
                f"A layer with adapters has {inputs.shape[0]} rows where the forward has {len(self._rows)} images and prompts: "
                "its rows cannot have adapters of their own."
            )
        if _merges(base, stack, inputs, len(self._runs)):
            return self._merged(base, stack, inputs, folded)
        output: Tensor = base(inputs, *rest, **options)
        if stack.down is None or stack.up is None:
            return self._one_by_one(layer, stack, inputs, output, folded)
        inputs, scale = inputs.to(stack.down.dtype), self._scale(stack, like=stack.down).repeat_interleave(folded, dim=0)
        if stack.down.ndim == 2:
            return _linear(inputs, output, stack.down, stack.up, scale)
        return _convolved(layer, stack, inputs, output, scale)

    def _merged(self, base: Any, stack: _Stacked, inputs: Tensor, folded: int) -> Tensor:
        """A linear layer by W + B w A, formed anew for each run of rows: kept, they would be the layer once more for each."""
        import torch

        assert stack.down is not None and stack.up is not None
        scale = self._scale(stack, like=stack.down)
        output = inputs.new_empty(*inputs.shape[:-1], base.out_features)
        for start, end in self._runs:
            weight = base.weight
            if self._rows[start]:
                weight = torch.addmm(weight, stack.up * scale[start], stack.down)
            rows = inputs[start * folded : end * folded].reshape(-1, base.in_features)
            into = output[start * folded : end * folded].view(-1, base.out_features)
            if base.bias is None:
                torch.mm(rows, weight.t(), out=into)
            else:
                torch.addmm(base.bias, rows, weight.t(), out=into)
        return output

    def _one_by_one(self, layer: Any, stack: _Stacked, inputs: Tensor, output: Tensor, folded: int) -> Tensor:
        """For layers whose adapters have biases or groups."""
        first = layer.lora_A[stack.names[0]].weight
        scale = self._scale(stack, like=first, wide=False).repeat_interleave(folded, dim=0)  # (B, adapters)
        total = output
        for place, name in enumerate(stack.names):
            added = layer.lora_B[name](layer.lora_A[name](inputs.to(first.dtype)))
            total = total + _scaled(added, scale[:, place].view(-1, *(1,) * (added.ndim - 1)))
        return total.to(output.dtype)

    def _scale(self, stack: _Stacked, *, like: Tensor, wide: bool = True) -> Tensor:
        """(B, R): the weight of each row at each rank of the stack; (B, adapters) where it is not `wide`."""
        import torch

        key = (stack.names, stack.ranks, stack.scalings, wide, like.dtype, like.device)
        if key not in self._scales:
            rows = [
                [
                    dict(row).get(name, 0.0) * scaling
                    for name, rank, scaling in zip(stack.names, stack.ranks, stack.scalings, strict=True)
                    for _ in range(rank if wide else 1)
                ]
                for row in self._rows
            ]
            self._scales[key] = torch.tensor(rows, dtype=like.dtype, device=like.device)
        return self._scales[key]


def _stacked(layer: Any, names: Sequence[str]) -> _Stacked:
    import torch

    scalings = []
    for name in names:
        layer.set_scale(name, 1.0)
        scalings.append(float(layer.scaling[name]))
    downs, ups = [layer.lora_A[name] for name in names], [layer.lora_B[name] for name in names]
    ranks = tuple(int(down.weight.shape[0]) for down in downs)
    if any(not bool(one.weight.isfinite().all()) for one in (*downs, *ups)):
        raise JobFailed("An adapter holds numbers that are not finite: in a forward of several images it would spoil them all.")
    plain = all(one.bias is None and getattr(one, "groups", 1) == 1 for one in (*downs, *ups))
    return _Stacked(
        names=tuple(names),
        ranks=ranks,
        scalings=tuple(scalings),
        down=torch.cat([one.weight.detach() for one in downs]) if names and plain else None,
        up=torch.cat([one.weight.detach() for one in ups], dim=1) if names and plain else None,
    )


def _merges(base: Any, stack: _Stacked, inputs: Tensor, runs: int) -> bool:
    """Whether weights with the adapters in them cost less than the adapters beside them, and round no worse: in fp32."""
    import torch

    if type(base) is not torch.nn.Linear or stack.down is None or stack.down.ndim != 2 or runs > MOST_RUNS:
        return False
    if not inputs.dtype == base.weight.dtype == stack.down.dtype == torch.float32:
        return False
    rank, wide, tall = sum(stack.ranks), base.in_features, base.out_features
    tokens = inputs.numel() // wide
    return bool(runs * wide * tall * (rank + 1) <= tokens * (rank * (wide + tall) + 2 * tall))  # multiplications, and numbers gone through


def _linear(inputs: Tensor, output: Tensor, down: Tensor, up: Tensor, scale: Tensor) -> Tensor:
    """(B, ..., in) and the base's output (B, ..., out)."""
    import torch

    middle = torch.nn.functional.linear(inputs, down)
    middle = _scaled(middle, scale.view(scale.shape[0], *(1,) * (middle.ndim - 2), scale.shape[1]))
    if output.dtype != up.dtype:
        return (output + torch.nn.functional.linear(middle, up)).to(output.dtype)
    return torch.addmm(output.reshape(-1, output.shape[-1]), middle.reshape(-1, middle.shape[-1]), up.t()).view(output.shape)


def _convolved(layer: Any, stack: _Stacked, inputs: Tensor, output: Tensor, scale: Tensor) -> Tensor:
    """(B, in, H, W) and the base's output (B, out, H', W')."""
    down, up = layer.lora_A[stack.names[0]], layer.lora_B[stack.names[0]]  # stride and padding are the base's in all
    middle = down._conv_forward(inputs, stack.down, None)
    middle = _scaled(middle, scale.view(*scale.shape, *(1,) * (middle.ndim - 2)))
    return (output + up._conv_forward(middle, stack.up, None)).to(output.dtype)  # type: ignore[no-any-return]  # peft is untyped


def _scaled(middle: Tensor, scale: Tensor) -> Tensor:
    """`middle` by `scale`, and 0 where that is 0: a product that overflows in half precision stays out of rows without its adapter."""
    return (middle * scale).masked_fill(scale == 0.0, 0.0)


def _lora_layers(module: nn.Module) -> Iterator[Any]:
    from peft.tuners.lora import LoraLayer

    return (layer for layer in module.modules() if isinstance(layer, LoraLayer))
