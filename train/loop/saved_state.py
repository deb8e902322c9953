"""What the next step depends on beside the adapter, as a checkpoint holds it, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from registry.errors import JobFailed, is_out_of_memory
from train.adapters.attach import training_resumed
from train.loop import checkpoint
from train.loop.step import TrainState
from train.lora import kind_of, scales, set_lora_tensors
from train.optim_state import has_evaluation_weights, load_state


def training_state(state: TrainState) -> dict[str, Any]:
    """Optimizer state, random states and weights: all that the next step depends on beside the adapter."""
    saved: dict[str, Any] = {
        "optimizer": state.optimizer.state_dict(),
        "weights": [name for name, _ in state.weights],
        "random": checkpoint.random_states(),
    }
    scaled = not holds_training(state)
    if state.ema is not None:
        saved["ema"] = state.ema.state(saved["weights"])
    if has_evaluation_weights(state.optimizer) or state.ema is not None or scaled:  # the adapter holds those to use, not those that train
        saved["trained"] = {name: weight.detach().cpu().clone() for name, weight in state.weights}
    scaler = getattr(state.accelerator, "scaler", None)
    return saved | ({"scaler": scaler.state_dict()} if scaler is not None else {})


def holds_training(state: TrainState) -> bool:
    """Whether the adapter's file has the numbers that train: factors without a scale in them, or tensors of other kinds."""
    kind = kind_of(state.config.lora)
    if state.vectors is not None:
        return False
    return all(scale == 1.0 for scale in scales(state.modules).values()) if kind.factors and kind.make is None else not kind.factors


def restore(state: TrainState, found: checkpoint.Checkpoint, tensors: Mapping[str, Any]) -> None:
    """Weights, optimizer and random states as they were at the checkpoint. Raises JobFailed when they do not belong to this model."""
    try:
        _restore(state, found, tensors)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:  # of torch and numpy, for other contents
        if is_out_of_memory(error):
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise JobFailed(f"The checkpoint {found.folder} does not hold this run's state ({reason}). Remove it, and resume.") from error


def _restore(state: TrainState, found: checkpoint.Checkpoint, tensors: Mapping[str, Any]) -> None:
    names = [name for name, _ in state.weights]
    if list(found.training["weights"]) != names:
        raise JobFailed(f"The checkpoint {found.folder} has other layers than this run's settings.")
    set_lora_tensors(state.modules, tensors)
    load_state(state.optimizer, found.training["optimizer"])
    _restore_trained(state, found.training.get("trained", {}))
    for module in state.modules.values():
        training_resumed(module)
    if state.ema is not None:
        state.ema.load(found.training["ema"], names)
    checkpoint.set_random_states(found.training["random"])
    scaler = getattr(state.accelerator, "scaler", None)
    if scaler is not None and "scaler" in found.training:
        scaler.load_state_dict(found.training["scaler"])


def _restore_trained(state: TrainState, trained: Mapping[str, Any]) -> None:
    """The weights of an optimizer that trains other ones than those to use."""
    import torch

    with torch.no_grad():
        for name, weight in state.weights:
            if name in trained:
                weight.copy_(trained[name])
