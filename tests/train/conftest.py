"""One tiny base and set for all training tests, a Store of its own a test, and settings that finish in a second."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from registry.store import Store
from tests import tiny
from train.config import DataConfig, HeldoutConfig, LoraConfig, OptimConfig, PreviewConfig, TrainConfig


def short_run(base: Path, images: Path, out: Path, /, **given: Any) -> TrainConfig:
    """Settings of a run that finishes in a second; what is given takes the place of the defaults."""
    values: dict[str, Any] = {
        "name": "discs",
        "base": str(base),
        "data": DataConfig(path=str(images)),
        "resolution": 32,
        "steps": 4,
        "batch_size": 2,
        "lora": LoraConfig(rank=2),
        "optim": OptimConfig(lr=1e-2),
        "heldout": HeldoutConfig(every=100),  # the base, at checkpoints and at the end: each measurement costs more than ten steps
        "preview": PreviewConfig(prompts=[]),
        "device": "cpu",
        "out": str(out),
    }
    return TrainConfig(**(values | given))


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny sd1 folder."""
    return tiny.tiny_sd1(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pairs, and three more in heldout/."""
    folder = tiny.tiny_dataset(tmp_path_factory.mktemp("set") / "discs")
    tiny.tiny_dataset(folder / "heldout", 3, seed=5)
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "home")


@pytest.fixture
def settings(base: Path, images: Path, tmp_path: Path) -> Callable[..., TrainConfig]:
    """Makes settings for the tiny base; what is given takes the place of the defaults."""

    def make(**given: Any) -> TrainConfig:
        return short_run(base, images, tmp_path / "runs", **given)

    return make


@pytest.fixture
def prepared(store: Store, tmp_path: Path) -> Callable[[TrainConfig], Any]:
    """Makes the Work of a run that is ready to take steps."""

    def make(config: TrainConfig) -> Any:
        from registry.progress import silent
        from train.execute import make_accelerator
        from train.loop.prepare import prepare
        from train.output.folder import make_folder
        from train.output.inputs import inputs_of
        from train.run import plan

        made = plan(config, store)
        folder = make_folder(made.config, "discs", inputs_of(made, store))
        return prepare(made, folder, make_accelerator(made), report=silent, out=lambda _line: None)

    return make


def stopped(config: TrainConfig, store: Store, *, at: int, **given: Any) -> Path:
    """The folder of a run that a fault of its own ends in step `at`, from 0; it can be resumed."""
    from train import run
    from train.loop import step

    honest = step.TrainState.step

    def dies(self: step.TrainState, number: int) -> step.StepMetrics:
        if number == at:
            raise ZeroDivisionError
        return honest(self, number)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(step.TrainState, "step", dies)
        with pytest.raises(ZeroDivisionError):
            run.run(config, store, **given)
    (folder,) = (entry for entry in (Path(config.out) / str(config.name)).iterdir() if not entry.name.startswith("."))
    return folder
