"""Speed of this device for models like those that are trained: matrix products, memory traffic, and the cost of a call.

Time of a computation = operations / rate + bytes moved / bandwidth + calls x overhead. The rate is that of a matrix product; bandwidth
and overhead come from a training step of a small block with LoRA layers, timed at a small and at a larger size.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from registry.budget.peak import Trace, backward, trace
from train.config import Precision

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

SIZES = (4, 16)  # pixels a side of the block's input: calls dominate the first, traffic counts in the second
CHANNELS = 80
REPEATS = 3
EFFICIENCY = 0.35  # of a large matrix product's rate; small layers do worse
FASTEST = 50e9  # bytes a second, where the time left for traffic is within the noise


@dataclass(frozen=True)
class Speed:
    """What the device does in a second."""

    operations: float  # floating point operations of products
    bytes: float  # read and written by the other operations
    overhead: float  # seconds a call
    in_8_bits: float | None = None  # operations of products of 8-bit numbers

    def seconds(self, found: Trace) -> float:
        """Time of a traced computation."""
        eight = found.in_8_bits / (self.in_8_bits or self.operations)
        return eight + found.operations / self.operations + found.moved / self.bytes + found.calls * self.overhead


@lru_cache(maxsize=8)
def measure_speed(device: torch.device, precision: Precision) -> Speed:
    """The speed of a CPU, from half a second of small computations; of a GPU its rate alone, as its calls overlap with the work.

    Measured once a process.
    """
    rate = products_a_second(device, precision)
    if device.type != "cpu":
        return Speed(rate * EFFICIENCY, float("inf"), 0.0)
    small, large = (_Block(side) for side in SIZES)
    overhead = small.seconds() / small.traced.calls
    left = large.seconds() - large.traced.calls * overhead - large.traced.operations / rate
    return Speed(rate, large.traced.moved / max(left, large.traced.moved / FASTEST), overhead)


class _Block:
    """A training step of convolution, normalisation and attention with LoRA layers, on the CPU and as a trace."""

    def __init__(self, side: int) -> None:
        import torch

        self.shape = (2, CHANNELS, side, side)
        self.module = _module()
        self.image = torch.zeros(self.shape)
        meta = _module().to("meta")
        image = torch.zeros(self.shape, device="meta")
        self.traced = trace(lambda: backward(_loss(meta, image)), [meta])

    def seconds(self) -> float:
        """Least seconds of several steps."""
        import torch

        return least_seconds(lambda: torch.autograd.backward(_loss(self.module, self.image)))


def _loss(module: nn.Module, image: Tensor) -> Tensor:
    loss: Tensor = module(image).float().square().mean()
    return loss


def _module() -> nn.Module:
    import torch
    from peft import LoraConfig, inject_adapter_in_model
    from torch import nn
    from torch.nn.functional import scaled_dot_product_attention, silu

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.convolution = nn.GroupNorm(8, CHANNELS), nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)
            self.layer_norm = nn.LayerNorm(CHANNELS)
            self.to_q, self.to_k, self.to_v, self.to_out = (nn.Linear(CHANNELS, CHANNELS) for _ in range(4))

        def forward(self, image: Tensor) -> Tensor:
            image = image + self.convolution(silu(self.norm(image)))
            tokens = self.layer_norm(image.flatten(2).transpose(1, 2))
            q, k, v = (layer(tokens).unflatten(2, (4, -1)).transpose(1, 2) for layer in (self.to_q, self.to_k, self.to_v))
            found: Tensor = tokens + self.to_out(scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
            return found.transpose(1, 2).reshape(image.shape)

    with torch.random.fork_rng(devices=[]):
        model = nn.Sequential(*(Block() for _ in range(2))).requires_grad_(False)
        inject_adapter_in_model(LoraConfig(r=4, target_modules=["to_q", "to_k", "to_v", "to_out"]), model)
    return model


def least_seconds(work: Callable[[], object]) -> float:
    """Least wall-clock seconds of several runs: other work on the machine only adds."""
    best = float("inf")
    for _ in range(REPEATS):
        begin = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - begin)
    return best


def products_a_second(device: torch.device, precision: Precision) -> float:
    """Floating point operations per second of the device in a matrix product."""
    import torch

    dtype = torch.float32 if precision is Precision.fp32 else torch.bfloat16
    size = 4096 if device.type == "cuda" else 512
    a = torch.ones(size, size, device=device, dtype=dtype)

    def product() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        float((a @ a)[0, 0])  # waits for it

    return 2.0 * size**3 / least_seconds(product)
