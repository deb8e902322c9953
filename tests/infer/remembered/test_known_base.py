"""A plan of a base that was planned with before: the same plan, without torch, and always of the files as they are."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from infer.draw.render import Render
from infer.draw.resolve import Resolver
from infer.grid.config import Axes, GridConfig
from infer.grid.job import plan
from registry.errors import Faults
from registry.store import Store
from tests.infer.conftest import Shelf
from tests.patience import PATIENCE
from tests.tiny import tiny_adapter, tiny_sd1, tiny_sdxl

PROGRAM = """
import json, sys
from infer.grid.config import Axes, GridConfig
from infer.grid.job import plan
from registry.store import Store
given = json.loads(sys.argv[1])
found = plan(GridConfig(axes=Axes(**given.pop("axes")), **given), Store()).to_json()
heavy = [name for name in ("torch", "diffusers", "transformers", "peft", "scipy") if name in sys.modules]
print(json.dumps({"plan": found, "heavy": heavy}))
"""
SETTINGS: dict[str, Any] = {
    "base": "tiny",
    "negative": "blue",
    "clip_skip": 1,
    "steps": 3,
}
AXES: dict[str, Any] = {
    "prompt": ["a cat", "a cat " * 60],
    "seed": [1, 2],
    "adapter": ["none", "words", "hat"],
    "sampler": ["dpmpp_2m_karras", "euler_a"],
}


def in_a_process(home: Path, settings: dict[str, Any]) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(settings)],
        env=os.environ | {"LORALOOM_HOME": str(home)},
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
    )
    return json.loads(done.stdout)  # type: ignore[no-any-return]


@pytest.mark.slow
def test_a_second_plan_is_the_same_and_imports_no_torch(shelf: Shelf) -> None:
    first = plan(GridConfig(axes=Axes(**AXES), **SETTINGS), shelf.store).to_json()
    assert any("is truncated" in note for note in first["notes"])
    again = in_a_process(shelf.home, {**SETTINGS, "axes": AXES})
    assert again["heavy"] == []
    assert again["plan"] == json.loads(json.dumps(first))


@pytest.mark.slow
def test_a_base_that_is_not_registered_is_known_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    monkeypatch.setenv("LORALOOM_HOME", str(home))
    settings: dict[str, Any] = {"base": str(tiny_sd1(tmp_path / "base")), "prompt": "a cat", "steps": 2}
    store = Store(home)
    first = plan(GridConfig(axes=Axes(), **settings), store).to_json()
    store.close()
    again = in_a_process(home, {**settings, "axes": {}})
    assert again["heavy"] == [] and again["plan"] == json.loads(json.dumps(first))


def keys(store: Store, render: Render) -> str:
    """The key of a Render by a new plan."""
    resolver = Resolver(store)
    try:
        return resolver.resolve(render).key()
    finally:
        resolver.keep_answers()


def test_a_base_that_changed_is_asked_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    monkeypatch.setenv("LORALOOM_HOME", str(home))
    base = tiny_sd1(tmp_path / "base")
    store = Store(home)
    render = Render(base=str(base), prompt="a cat", steps=2, width=32, height=32)
    before = keys(store, render)
    assert keys(store, render) == before
    config = base / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"prediction_type": "v_prediction"}))
    assert Resolver(store).base(render).facts.prediction == "v_prediction" and keys(store, render) != before
    store.close()


@pytest.mark.slow
def test_an_adapter_that_was_replaced_is_checked_anew(tmp_path: Path, shelf: Shelf) -> None:
    adapter = tmp_path / "mine.safetensors"
    tiny_adapter(shelf.base, adapter, seed=5)
    config = GridConfig(base="tiny", prompt="a cat", steps=2, adapters=str(adapter), axes=Axes())
    plan(config, shelf.store)
    adapter.unlink()
    tiny_adapter(tiny_sdxl(tmp_path / "other"), adapter, seed=5)
    with pytest.raises(Faults, match="does not fit the base"):
        plan(config, shelf.store)


def test_a_refusal_is_given_again(shelf: Shelf) -> None:
    config = GridConfig(base="tiny", prompt="a cat", steps=80, sampler="lcm", axes=Axes())
    found = []
    for _ in range(2):
        with pytest.raises(Faults) as caught:
            plan(config, shelf.store)
        found.append(caught.value.faults)
    assert found[0] == found[1] and "picks its steps among the 50" in found[0][0]


def test_a_home_that_cannot_be_written_to_plans_all_the_same(shelf: Shelf) -> None:
    (shelf.home / "plans").write_text("no folder")
    assert plan(GridConfig(base="tiny", prompt="a cat", steps=2, axes=Axes()), shelf.store).distinct == 1
