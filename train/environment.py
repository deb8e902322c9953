"""Environment variables of accelerate that would change the arithmetic of a run: an engine is refused, a number is overruled."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from registry.errors import Faults
from train.config import TrainConfig

if TYPE_CHECKING:
    import torch

ENGINES = {  # accelerate 1.15: what each variable turns on
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "tensor and context parallelism",
    "ACCELERATE_USE_SAGEMAKER": "SageMaker",
}
COMPILER = "ACCELERATE_DYNAMO_BACKEND"
OVERRULED = {  # variable -> the setting that acts in its place
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "accumulate",
    "ACCELERATE_GRADIENT_CLIPPING": "optim.clip",
    "ACCELERATE_MIXED_PRECISION": "precision",
}
SAME = {"no": "fp32"}  # accelerate's word for a precision


def check_environment(device: torch.device | None, environment: Mapping[str, str] = os.environ) -> None:
    """Raise Faults for variables that would turn on an engine or another device than the run's."""
    faults = [
        f"{name}={environment[name]} turns on {engine}, which loraloom does not train with. Unset it, or launch without it."
        for name, engine in ENGINES.items()
        if _is_on(environment.get(name, ""))
    ]
    backend = environment.get(COMPILER, "")
    if backend.lower() not in ("", "no"):
        faults.append(f"{COMPILER}={backend} compiles the model, whose numbers are then others. Unset it, or launch without it.")
    wanted = environment.get("ACCELERATE_TORCH_DEVICE")
    if device is not None and wanted and wanted.partition(":")[0] != device.type:
        faults.append(f"ACCELERATE_TORCH_DEVICE={wanted}, but the run is on {device}. Unset it, or give device={wanted}.")
    if device is not None and device.type != "cpu" and _is_on(environment.get("ACCELERATE_USE_CPU", "")):
        faults.append(f"ACCELERATE_USE_CPU={environment['ACCELERATE_USE_CPU']}, but the run is on {device}. Unset it, or give device=cpu.")
    if faults:
        raise Faults("The environment asks accelerate for what would change the run:", faults)


def environment_notes(config: TrainConfig, environment: Mapping[str, str] = os.environ) -> list[str]:
    """Notes on variables that settings overrule."""
    acting = {"accumulate": f"{config.accumulate}", "optim.clip": f"{config.optim.clip:g}", "precision": config.precision.name}
    return [
        f"{name}={environment[name]} has no effect: {setting}={acting[setting]} acts"
        for name, setting in OVERRULED.items()
        if environment.get(name) and SAME.get(environment[name], environment[name]) != acting[setting]
    ]


def _is_on(value: str) -> bool:
    return value.lower() in ("1", "true", "t", "yes", "y", "on")
