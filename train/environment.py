"""Environment variables of accelerate that would change the arithmetic of a run: an engine is refused, a number is overruled."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from registry.errors import Faults, Refused
from registry.launch.processes import RANKS, SIZES, processes_of
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
    """Raise Faults for variables that would turn on an engine, another device than the run's, or processes that are not there."""
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
    faults += _launch_faults(device, environment)
    if faults:
        raise Faults("The environment asks accelerate for what would change the run:", faults)


def _launch_faults(device: torch.device | None, environment: Mapping[str, str]) -> Iterator[str]:
    """Variables of a launcher without the launcher: this process would count others that are not there, or wait for them."""
    for name in RANKS:
        if (value := environment.get(name)) and not value.removeprefix("-").isdecimal():
            yield f"{name}={value} is no number of a process. Unset it, or launch with accelerate launch."
    try:
        processes = processes_of(environment)
    except Refused as error:
        yield str(error)
        return
    ranks = RANKS if device is None or device.type == "cpu" else RANKS[:1]  # accelerate takes MPI's on a CPU alone
    if processes > 1 and not any(environment.get(name) for name in ranks):
        given = next(name for name in SIZES if environment.get(name))
        yield (
            f"{given}={environment[given]} counts {processes} processes, but no {' or '.join(ranks)} says which of them this is."
            " Unset it, or launch with accelerate launch."
        )


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
