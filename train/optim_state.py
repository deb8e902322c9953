"""What a built optimizer holds: rates, a checkpoint's state, the weights to use, bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

CHANGEABLE = ("weight_decay", "rate")  # options of a group that a resume may change; `lr` is set anew in each step
OWN_RATE = ("prodigy", "dadapt")  # these estimate the rate: optim.lr is a factor on it
KERNELS = ("fused", "foreach", "capturable")  # options of a group that suit the device it was built for


def estimates_rate(name: str) -> bool:
    """Whether an optimizer of this name estimates its learning rate."""
    return any(word in name.rpartition(".")[2].lower() for word in OWN_RATE)


def set_rate(optimizer: Any, rate: float) -> None:
    """Give each group the learning rate, times the group's own factor `rate`."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("rate", 1.0)


def load_state(optimizer: Any, saved: Mapping[str, Any]) -> None:
    """Put a checkpoint's state back. What a resume may change, and what suits the device at hand, stays as it was built."""
    groups = [
        {**old, **{name: group[name] for name in (*CHANGEABLE, *KERNELS) if name in group and (name in old or name == "rate")}}
        for old, group in zip(saved["param_groups"], optimizer.param_groups, strict=True)
    ]
    optimizer.load_state_dict({**saved, "param_groups": groups})
    _keep_dtypes(optimizer, saved["state"])


def _keep_dtypes(optimizer: Any, saved: Mapping[Any, Any]) -> None:
    """Give tensors of the state the precision that they were saved in: torch's `load_state_dict` takes the weight's."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    for number, weight in enumerate(weights):
        own = optimizer.state.get(weight, {})
        for name, value in saved.get(number, {}).items():
            if hasattr(value, "dtype") and hasattr(own.get(name), "dtype") and own[name].dtype != value.dtype:
                own[name] = value.clone().to(own[name].device)


def has_evaluation_weights(optimizer: Any) -> bool:
    """Whether the weights it trains are other ones than those to use, as schedule-free's are: it has `train()` and `eval()`."""
    inner = getattr(optimizer, "optimizer", optimizer)  # accelerate's wrapper has both for every optimizer
    return callable(getattr(inner, "eval", None)) and callable(getattr(inner, "train", None))


@contextmanager
def evaluation_weights(optimizer: Any, weights: Sequence[Tensor], averages: Sequence[Tensor] | None = None) -> Iterator[None]:
    """The weights to use in place of those that train, which come back to the same bits afterwards.

    These are the optimizer's own, as schedule-free's, or `averages`, one a weight.
    """
    import torch

    own = has_evaluation_weights(optimizer)
    if not own and averages is None:
        yield
        return
    trained = [weight.detach().clone() for weight in weights]
    if own:
        optimizer.eval()
    if averages is not None:
        _copy(averages, weights)
    try:
        yield
    finally:
        if own:
            optimizer.train()
        with torch.no_grad():
            _copy(trained, weights)


def _copy(source: Sequence[Tensor], target: Sequence[Tensor]) -> None:
    import torch

    with torch.no_grad():
        for weight, value in zip(target, source, strict=True):
            weight.copy_(value)


def state_bytes(optimizer: Any) -> float:
    """Bytes that it keeps for each weight beside the weight and its gradient (Adam 8), from its state after a step."""
    weights: int = sum(weight.numel() for group in optimizer.param_groups for weight in group["params"])
    return sum(tensor_bytes(state) for state in optimizer.state.values()) / weights


def tensor_bytes(value: Any) -> int:
    """Bytes of the tensors in a state, however deep; single numbers are not counted, nor is what shares a storage counted twice."""
    import torch
    from torch.utils._pytree import tree_leaves

    tensors = [leaf for leaf in tree_leaves(value) if isinstance(leaf, torch.Tensor) and leaf.dim() > 0]
    return sum({leaf.untyped_storage().data_ptr(): leaf.nbytes for leaf in tensors}.values())
