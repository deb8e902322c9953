import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from train.config import DataConfig, TrainConfig
from train.loop.history import History
from train.loop.probes import probed_points
from train.measures.images import (
    CAPTIONS,
    COLUMNS,
    FINE,
    GRID,
    MOST,
    ImageProbe,
    image_rows,
    measured_images,
    suspects_of,
    unmeasured,
    write_images,
)


class Named:
    """A sample as far as it matters here."""

    def __init__(self, *, prior: bool = False) -> None:
        self.prior = prior


def test_all_images_of_a_small_set_and_some_of_a_large_one_are_measured() -> None:
    some: Any = [Named(), Named(prior=True), Named()]
    assert measured_images(some) == [0, 2] and unmeasured(some) == 0
    many: Any = [Named()] * 1000
    assert len(set(measured_images(many))) == MOST and measured_images(many)[:3] == [0, 15, 31]
    assert unmeasured([Named()] * 40) == 32  # type: ignore[list-item]


@pytest.mark.slow
def test_the_losses_are_those_of_the_table_at_two_points(
    prepared: Callable[[TrainConfig], Any], settings: Callable[..., TrainConfig], images: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(images, tmp_path / "more"))
    for file in [*folder.glob("*.png"), *folder.glob("*.txt")]:
        data = file.read_bytes()
        (folder / f"again-{file.name}").write_bytes(data if file.suffix == ".txt" else data + b"\0")  # another file of the same image
    work = prepared(settings(data=DataConfig(path=str(folder))))
    state, probe = work.state, work.probe
    assert len(probe.image_names) == 12 == len(work.plan.train)
    assert "images" not in probe.measure(state, model=state.model)
    assert probe.measure_seldom(state, model=state.model, others=False)["image_others"] == []
    measured = probe.measure_seldom(state, model=state.model, others=True)
    every = probe.seldom[-1].images
    points = [probed_points(every.points)[column] for column in COLUMNS]
    table = every.table(state, model=state.model, points=points).mean(1).tolist()
    assert measured["images"] == pytest.approx(table, abs=1e-6)
    others = every.table(state, model=state.model, points=points, captions=probe.seldom[-1].captions).mean(1).tolist()
    assert measured["image_others"] == pytest.approx(others, abs=1e-6) and measured["image_others"] != measured["images"]
    _suspects_are_measured_again(state, probe.seldom[-1])


def _suspects_are_measured_again(state: Any, probe: ImageProbe) -> None:
    """Each with the captions of other suspects, then of the images behind it; a prompt that is its own is left out."""
    from dataclasses import replace

    prompts = list(probe.prompts)
    assert probe._other_captions(3, [3, 9])[0] == (9 if prompts[9] != prompts[3] else probe._other_captions(3, [3])[0])
    found = probe._shares([3, 5], state, state.model)
    every, expected = replace(probe.images, points=GRID), []
    for image in (3, 5):
        own = every.table(state, model=state.model)[image, list(FINE)]
        captions = probe._other_captions(image, [3, 5])
        assert all(prompts[other] != prompts[image] for other in captions)
        tables = [every.table(state, model=state.model, captions=[other] * len(prompts))[image, list(FINE)] for other in captions]
        expected += (sum(tables) / CAPTIONS - own).tolist()
    assert found == pytest.approx(expected, abs=1e-6) and len(found) == 16 and any(found)


def test_suspects_are_the_captions_that_are_worth_least() -> None:
    shares = [0.1, 0.03, 0.12, -0.02, 0.1, 0.06, 0.1, 0.2, 0.01, 0.0]
    assert suspects_of(shares) == [3, 9, 8, 1]
    assert suspects_of([0.1] * 10) == [] and suspects_of(shares[:7]) == [] and suspects_of([-share for share in shares]) == []


def test_the_file_has_a_line_for_each_image_and_step(tmp_path: Path) -> None:
    history = History(
        before={"images": [0.5, 0.6], "image_others": [0.7, 0.8]},
        heldout=[{"step": 20, "images": [0.3, 0.4], "image_others": []}, {"step": 10, "losses": [1.0]}],
    )
    write_images(tmp_path, history, ["a.png", "b.png"])
    rows = [json.loads(line) for line in (tmp_path / "images.jsonl").read_text().splitlines()]
    assert rows == list(image_rows(history, ["a.png", "b.png"]))
    assert rows == [
        {"step": 0, "image": "a.png", "loss": 0.5, "other": 0.7},
        {"step": 0, "image": "b.png", "loss": 0.6, "other": 0.8},
        {"step": 20, "image": "a.png", "loss": 0.3, "other": None},
        {"step": 20, "image": "b.png", "loss": 0.4, "other": None},
    ]
