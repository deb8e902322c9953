"""The speed of a device, and what a traced computation takes by it."""

from pathlib import Path

import pytest
import torch

from registry.budget.peak import Trace, trace
from registry.store import Store
from train import run
from train.config import DataConfig, HeldoutConfig, Precision, PreviewConfig, TrainConfig
from train.plan import estimate
from train.plan.speed import Speed, measure_speed


def test_a_time_is_the_sum_of_products_traffic_and_calls() -> None:
    assert Speed(operations=1e9, bytes=1e8, overhead=1e-3).seconds(Trace(0, 2e9, 5e7, 10)) == pytest.approx(2 + 0.5 + 0.01)


def test_a_cpus_speed_is_of_this_century() -> None:
    found = measure_speed(torch.device("cpu"), Precision.fp32)
    assert 1e8 < found.operations < 1e14 and 1e7 < found.bytes <= 50e9 and 1e-7 < found.overhead < 0.05


def test_a_trace_counts_calls_and_traffic_but_no_views() -> None:
    layer = torch.nn.Linear(8, 4, device="meta")
    found = trace(lambda: layer(torch.empty(2, 8, device="meta")).view(8).relu(), [layer])
    assert found.calls == 3 and found.operations == 2 * 2 * 8 * 4  # empty, addmm, relu
    assert found.moved == 2 * 8 * 4 + 2 * (8 * 4)  # the empty input, and what relu reads and writes


@pytest.mark.slow
def test_what_happens_more_often_takes_longer(base: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "measure_speed", lambda *_: Speed(operations=1e10, bytes=1e9, overhead=1e-5))

    def parts(steps: int, every: int) -> dict[str, float]:
        config = TrainConfig(
            name="t",
            base=str(base),
            data=DataConfig(path=str(images)),
            resolution=32,
            steps=steps,
            device="cpu",
            heldout=HeldoutConfig(share=0.4, every=every),
            preview=PreviewConfig(every=every),
            out=str(tmp_path / "runs"),
        )
        found = run.plan(config, Store(tmp_path / "home")).estimate.seconds
        assert found is not None
        return dict(found)

    few, many, most = parts(20, 20), parts(200, 20), parts(300, 20)
    assert few.keys() == {"steps", "held-out loss", "previews", "start and proof"}
    assert many["steps"] == pytest.approx(10 * few["steps"]) and many["start and proof"] == few["start and proof"]
    assert many["previews"] == pytest.approx(5.5 * few["previews"])  # before the first step and at 20, 40 .. 200, against 0 and 20
    # 6, 11 and 16 measurements, with each checkpoint too: of 20 steps every fourth. Other captions of training images are measured once
    five = many["held-out loss"] - few["held-out loss"]
    assert most["held-out loss"] - many["held-out loss"] == pytest.approx(five) and 1 < few["held-out loss"] / five < 2
