"""Regularisation images: beside the set, without the trigger, with their own weight, never held out."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from registry.errors import LoomError
from registry.store import Store
from tests import tiny
from train import run
from train.config import DataConfig, HeldoutConfig, TrainConfig

Settings = Callable[..., TrainConfig]


@pytest.fixture(scope="module")
def women(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three images of the class without captions."""
    folder = tiny.tiny_dataset(tmp_path_factory.mktemp("prior") / "women", 3, seed=9)
    for file in folder.glob("*.txt"):
        file.unlink()
    return folder


def test_the_plan_has_them_without_the_trigger_as_often_as_the_others(settings: Settings, images: Path, women: Path, store: Store) -> None:
    data = DataConfig(path=str(images), trigger="sks", prior=str(women), prior_prompt="a disc", prior_weight=0.25)
    made = run.plan(settings(data=data, heldout=HeldoutConfig(path=str(images / "heldout"))), store)
    own = [prompt for sample, prompt in zip(made.train, made.prompts, strict=True) if sample.prior]
    assert own == ["a disc"] * 3 and not any(sample.prior for sample in made.heldout)
    assert [(sample.weight, sample.repeats) for sample in made.train] == [(1.0, 1)] * 6 + [(0.25, 2)] * 3
    assert "prior      3 regularisation images: 6 of the 12 images of an epoch\n" in made.to_text()
    assert "data.path: 6 images x 1, 50.0% of the steps" in made.to_text()
    assert made.to_json()["prior"] == {"pictures": 3, "share": 0.5, "drawn": None}
    assert made.to_json()["sets"][1]["name"] == "data.prior"


def test_few_images_of_a_subject_are_repeated_beside_many_of_the_class(
    settings: Settings, women: Path, tmp_path: Path, store: Store
) -> None:
    few = tiny.tiny_dataset(tmp_path / "few", 1)
    made = run.plan(settings(data=DataConfig(path=str(few), prior=str(women), prior_prompt="a disc")), store)
    assert [(sample.prior, sample.repeats) for sample in made.train] == [(False, 3), (True, 1), (True, 1), (True, 1)]


def test_sets_of_the_class_keep_their_repeats_and_have_the_weight(images: Path, women: Path, settings: Settings, store: Store) -> None:
    sets = [{"path": str(images)}, {"path": str(women), "prior": True, "trigger": "a disc", "weight": 0.5}]
    made = run.plan(settings(data=DataConfig(sets=sets, trigger="sks", prior_weight=0.5)), store)
    assert [(sample.weight, sample.repeats) for sample in made.train if sample.prior] == [(0.25, 1)] * 3


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"prior_prompt": "a disc"}, r"data\.prior_prompt needs data\.prior"),
        ({"prior_images": 4}, r"data\.prior_images needs data\.prior_prompt"),
        ({"prior_images": 0, "prior_prompt": "a"}, r"data\.prior_images must be 1 to 10000"),
        ({"prior_images": 4, "prior_prompt": "a", "prior": "b"}, r"data\.prior_images must be null beside data\.prior"),
        ({"prior_images": 4, "prior_prompt": "a {b|c}", "wildcards": True}, r"data\.prior_prompt must have no \{"),
        ({"prior_weight": 0.5}, r"data\.prior_weight needs regularisation images"),
        ({"prior": "b", "prior_weight": 0.0}, r"data\.prior_weight must be above 0"),
    ],
)
def test_settings_that_do_not_go_together(given: dict[str, Any], message: str) -> None:
    with pytest.raises(LoomError, match=message):
        TrainConfig(data=DataConfig(path="photos", **given))


def test_a_caption_with_the_trigger_is_refused(settings: Settings, images: Path, women: Path, tmp_path: Path, store: Store) -> None:
    captioned = tiny.tiny_dataset(tmp_path / "class", 2, seed=9)
    (captioned / "001.txt").write_text("a photo of SKS")
    with pytest.raises(LoomError, match=r"data\.prior/001\.png: the caption of a regularisation image has the trigger 'sks'"):
        run.plan(settings(data=DataConfig(path=str(images), trigger="sks", prior=str(captioned))), store)
    with pytest.raises(LoomError, match=r"data\.prior_prompt='a photo of sks' has the trigger"):
        run.plan(settings(data=DataConfig(path=str(images), trigger="sks", prior=str(women), prior_prompt="a photo of sks")), store)
    with pytest.raises(LoomError, match=r"none of its 3 images has a caption, and data\.prior_prompt is not set"):
        run.plan(settings(data=DataConfig(path=str(images), trigger="sks", prior=str(women))), store)


def test_kohyas_folders_of_the_class_are_read_with_their_words(
    settings: Settings, images: Path, women: Path, tmp_path: Path, store: Store
) -> None:
    (tmp_path / "reg").mkdir()
    (tmp_path / "reg" / "1_disc").symlink_to(women)
    made = run.plan(settings(data=DataConfig(path=str(images), prior=str(tmp_path / "reg"))), store)
    assert [(sample.name, sample.caption) for sample in made.train[6:]] == [(f"data.prior/1_disc/00{n}.png", "disc") for n in range(3)]


@pytest.mark.slow
def test_their_loss_counts_by_its_weight(settings: Settings, images: Path, tmp_path: Path, prepared: Callable[[TrainConfig], Any]) -> None:
    """The gradient of a step is that of sum(w loss) / images, with w = .25 of class images: written out image by image."""
    prior = tiny.tiny_dataset(tmp_path / "class", 6, seed=9)
    state = prepared(settings(data=DataConfig(path=str(images), prior=str(prior), prior_weight=0.25), batch_size=6)).state
    batch = state.order.step(0)[0][0]
    weights = [0.25 if state.items[item].sample.prior else 1.0 for item in batch.items]
    assert set(weights) == {1.0, 0.25}
    losses, _ = state._pass(0, batch, of=6)
    state.optimizer.zero_grad(set_to_none=True)
    (losses * torch.tensor(weights)).sum().div(6).backward()
    wanted = [weight.grad.clone() for _, weight in state.weights]
    state.step(0)
    for (_, weight), grad in zip(state.weights, wanted, strict=True):
        torch.testing.assert_close(weight.grad, grad, rtol=1e-4, atol=1e-8)
