import pytest
import torch

from infer.draw import machine


def test_the_cpu_asks_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan with device=cpu imports no torch, whatever torch was built for."""

    def asked() -> bool:
        raise AssertionError("torch was asked")

    monkeypatch.setattr(machine, "_only_cpu", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_available", asked)
    machine.pick_device.cache_clear()
    try:
        assert machine.pick_device("cpu") == "cpu"
        with pytest.raises(AssertionError, match="asked"):
            machine.pick_device("auto")
    finally:
        machine.pick_device.cache_clear()
