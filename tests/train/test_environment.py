from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from registry.errors import Faults, Refused
from registry.launch.processes import processes_of
from registry.store import Store
from train import run
from train.config import Precision, TrainConfig
from train.environment import ENGINES, check_environment, environment_notes
from train.execute import make_accelerator

Settings = Callable[..., TrainConfig]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "ACCELERATE_MIXED_PRECISION", "ACCELERATE_GRADIENT_CLIPPING"])
def test_numbers_of_the_environment_change_no_step(
    name: str, prepared: Callable[[TrainConfig], Any], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = prepared(settings()).state
    plain = [first.step(step) for step in range(2)]  # before the second: accelerate's state is shared by all of a process
    monkeypatch.setenv(name, {"ACCELERATE_MIXED_PRECISION": "bf16"}.get(name, "4"))
    second = prepared(settings()).state
    for step, one in enumerate(plain):
        two = second.step(step)
        assert one.gradient_norm == two.gradient_norm > 0 and torch.equal(one.losses, two.losses)


@pytest.mark.parametrize("name", ENGINES)
def test_an_engine_is_refused_in_the_plan(name: str, settings: Settings, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "true")
    with pytest.raises(Refused, match=f"{name}=true turns on .*Unset it"):
        run.plan(settings(), store)


def test_a_compiler_and_another_device_are_refused_together() -> None:
    environment = {"ACCELERATE_DYNAMO_BACKEND": "INDUCTOR", "ACCELERATE_TORCH_DEVICE": "cpu", "ACCELERATE_USE_CPU": "yes"}
    with pytest.raises(Faults) as caught:
        check_environment(torch.device("cuda"), environment)
    assert len(caught.value.faults) == 3 and "give device=cpu" in caught.value.faults[1]
    check_environment(torch.device("cpu"), {**environment, "ACCELERATE_DYNAMO_BACKEND": "NO", "ACCELERATE_USE_FSDP": "false"})


def test_overruled_variables_are_noted(settings: Settings) -> None:
    config = settings(accumulate=2, precision=Precision.fp32)
    environment = {"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4", "ACCELERATE_MIXED_PRECISION": "no", "ACCELERATE_GRADIENT_CLIPPING": "1"}
    assert environment_notes(config, environment) == ["ACCELERATE_GRADIENT_ACCUMULATION_STEPS=4 has no effect: accumulate=2 acts"]
    assert environment_notes(config, {"ACCELERATE_MIXED_PRECISION": "fp16"}) == [
        "ACCELERATE_MIXED_PRECISION=fp16 has no effect: precision=fp32 acts"
    ]


@pytest.mark.parametrize("size", ["WORLD_SIZE", "OMPI_COMM_WORLD_SIZE"])
def test_processes_without_a_launcher_are_refused(size: str, settings: Settings, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU accelerate would wait for the others, on a GPU it would be one process where the plan counts four."""
    monkeypatch.setenv(size, "4")
    with pytest.raises(Refused, match=f"{size}=4 counts 4 processes, but no LOCAL_RANK or RANK .* Unset it"):
        run.plan(settings(), store)
    with pytest.raises(Faults, match=f"{size}=4 counts 4 processes, but no LOCAL_RANK says"):
        check_environment(torch.device("cuda"), {size: "4", "OMPI_COMM_WORLD_RANK": "0"})
    check_environment(torch.device("cuda"), {size: "4", "LOCAL_RANK": "0"})
    check_environment(torch.device("cpu"), {size: "4", "OMPI_COMM_WORLD_RANK": "0"})


@pytest.mark.parametrize("value", ["abc", "0", "-1", "1.5"])
def test_what_is_no_number_of_processes_is_refused(value: str, settings: Settings, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", value)
    with pytest.raises(Refused, match=f"WORLD_SIZE={value} is no number of processes"):
        run.plan(settings(epochs=1.0), store)
    with pytest.raises(Faults, match="LOCAL_RANK=x is no number of a process"):
        check_environment(None, {"LOCAL_RANK": "x"})
    assert processes_of({"WORLD_SIZE": "3"}) == 3 and processes_of({}) == 1


def test_other_processes_than_the_plan_counts_are_refused(settings: Settings, store: Store) -> None:
    plan = replace(run.plan(settings(), store), processes=2)
    with pytest.raises(Refused, match="The plan counts 2 processes, and accelerate started 1"):
        make_accelerator(plan)
