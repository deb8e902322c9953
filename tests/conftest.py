"""What every test stands on: a home of its own, one thread, no network. Set before anything heavy is imported."""

import gc
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Generator
from contextlib import nullcontext

import pytest

from tests.endless import limited

_HOME = tempfile.mkdtemp(prefix="loraloom-tests-")

os.environ.update(
    {
        "LORALOOM_HOME": os.path.join(_HOME, "home"),
        "XDG_CACHE_HOME": os.path.join(_HOME, "cache"),
        "HF_HOME": os.path.join(_HOME, "huggingface"),
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "WANDB_MODE": "offline",
        "WANDB_SILENT": "true",
        "MPLBACKEND": "agg",
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "NO_COLOR": "1",
        "COLUMNS": "120",
        "PYTHONFAULTHANDLER": "1",
    }
)

for _name in ("LORALOOM_INDEX", "LORALOOM_BLOBS", "LORALOOM_POCKET"):
    os.environ.pop(_name, None)

# A job that a script put in the background ignores SIGINT, and so would every program that a test starts and interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config: pytest.Config) -> None:
    """The tests are of the CPU's numbers on a machine with a GPU too; it is seen where those that need one are chosen: -m gpu."""
    chosen = config.option.markexpr
    if "gpu" not in chosen or "not gpu" in chosen:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(_HOME, ignore_errors=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Of the long tests those that wait for a process which does not end fail with what it says; pyproject.toml ends all others later."""
    with limited() if item.get_closest_marker("slow") else nullcontext():
        return (yield)


_modules = 0  # that were imported when their objects were last set aside


def _set_aside_imports() -> None:
    """Keep what libraries made when they were imported out of later collections, of which a training run asks for several: 0.3 s each."""
    global _modules
    if len(sys.modules) - _modules >= 100:
        gc.collect()
        gc.freeze()
        _modules = len(sys.modules)


def pytest_collection_finish(session: pytest.Session) -> None:
    _set_aside_imports()


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    _set_aside_imports()
