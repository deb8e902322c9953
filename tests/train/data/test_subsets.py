"""Sets of several folders: kohya's folder names, and data.sets."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from registry.errors import Faults
from train.config import DataConfig, HeldoutConfig, TrainConfig
from train.data.dataset import read_set
from train.data.lint import lint
from train.data.split import choose_split
from train.settings.sets import short_names

COLOURS = iter((red, green, 99) for green in range(0, 256, 3) for red in range(0, 256, 5))


def images(folder: Path, *names: str, caption: str | None = None) -> Path:
    """Images of these names, each another colour."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.effect_noise((16, 16), next(COLOURS)[0] + 30).convert("RGB").save(folder / name)
        if caption:
            (folder / name).with_suffix(".txt").write_text(caption)
    return folder


def sets(*entries: dict[str, Any], **given: Any) -> DataConfig:
    return DataConfig(sets=list(entries), **given)


def test_kohyas_folders_are_sets_with_repeats(tmp_path: Path) -> None:
    images(tmp_path / "10_sks cat", "a.png", "b.png")
    images(tmp_path / "10_sks cat", "c.png", caption="a cat on a mat")
    images(tmp_path / "2_dog", "a.png", caption="a dog")
    images(tmp_path / "heldout", "z.png", caption="a cow")
    found = read_set(DataConfig(path=str(tmp_path)))
    rows = [(sample.name, sample.repeats, sample.caption) for sample in found.samples]
    assert rows == [
        ("10_sks cat/a.png", 10, "sks cat"), ("10_sks cat/b.png", 10, "sks cat"), ("10_sks cat/c.png", 10, "a cat on a mat"),
        ("2_dog/a.png", 2, "a dog"),
    ]  # fmt: skip
    assert "read as 2 sets with repeats, as sd-scripts names folders: 10_sks cat/ 10, 2_dog/ 2" in found.notes
    assert "10_sks cat/: 'sks cat', of the folder's name, is the caption of 2 images without one: a.png, b.png" in found.notes
    split = choose_split(TrainConfig(data=DataConfig(path=str(tmp_path))), found, lambda _tick: None)
    assert [sample.name for sample in split.heldout] == ["z.png"]


def test_folders_with_and_without_a_number_are_a_fault(tmp_path: Path) -> None:
    images(tmp_path / "10_cat", "a.png")
    images(tmp_path / "0_bird", "b.png")
    images(tmp_path / "dog", "a.png")
    with pytest.raises(Faults) as caught:
        read_set(DataConfig(path=str(tmp_path)))
    assert "dog: images beside folders with repeats, in a folder without a number; name it 1_dog" in str(caught.value)
    assert "0_bird/: the number in front is how often an epoch has its images, and must be 1 to 10000" in str(caught.value)


def test_faults_of_all_sets_are_reported_with_their_names(tmp_path: Path) -> None:
    images(tmp_path / "a", "x.png")
    images(tmp_path / "b", "x.png", caption="   ")
    with pytest.raises(Faults) as caught:
        read_set(sets({"path": str(tmp_path / "a")}, {"path": str(tmp_path / "b")}, {"path": str(tmp_path / "c")}))
    text = str(caught.value)
    assert "a/: none of its 1 image has a caption, and data.trigger or the set's own trigger is not set" in text
    assert "b/: x.png: its caption is empty" in text and "c/: data.path=" in text


def test_sets_have_their_own_repeats_weight_and_trigger(tmp_path: Path) -> None:
    images(tmp_path / "cats", "x.png", caption="a cat")
    images(tmp_path / "cats" / "heldout", "y.png", caption="another cat")
    images(tmp_path / "dogs", "x.png")
    images(tmp_path / "dogs" / "heldout", "x.png")
    images(tmp_path / "people", "x.png", caption="a person")
    config = sets(
        {"path": str(tmp_path / "cats"), "repeats": "3", "weight": 0.5},
        {"path": str(tmp_path / "dogs"), "trigger": "rex"},
        {"path": str(tmp_path / "people"), "prior": True},
    )
    found = read_set(config)
    rows = [(s.name, s.set, s.repeats, s.weight, s.trigger, s.prior) for s in found.samples]
    assert rows == [
        ("cats/x.png", "cats", 3, 0.5, None, False), ("dogs/x.png", "dogs", 1, 1.0, "rex", False),
        ("people/x.png", "people", 1, 1.0, None, True),
    ]  # fmt: skip
    split = choose_split(TrainConfig(data=config), found, lambda _tick: None)
    assert [(s.name, s.trigger, s.repeats) for s in split.heldout] == [("cats/heldout/y.png", None, 1), ("dogs/heldout/x.png", "rex", 1)]
    checked = lint(config)
    assert not checked.faults and len(checked.samples) == 3 and len(checked.heldout) == 2


def test_a_share_is_held_out_across_sets_and_never_of_regularisation_images(tmp_path: Path) -> None:
    for name in ("a", "b"):
        images(tmp_path / name, "1.png", "2.png", "3.png", caption="a thing")
    images(tmp_path / "prior", "1.png", "2.png", "3.png", caption="any thing")
    config = TrainConfig(
        data=sets(*({"path": str(tmp_path / name)} for name in "ab"), {"path": str(tmp_path / "prior"), "prior": True}),
        heldout=HeldoutConfig(share=0.34),
    )
    split = choose_split(config, read_set(config.data), lambda _tick: None)
    assert len(split.heldout) == 2 and not any(sample.prior for sample in split.heldout) and len(split.train) == 7


def test_the_same_image_in_two_sets_is_noted(tmp_path: Path) -> None:
    images(tmp_path / "a", "x.png", caption="a thing")
    (images(tmp_path / "b") / "y.png").write_bytes((tmp_path / "a" / "x.png").read_bytes())
    (tmp_path / "b" / "y.txt").write_text("another thing")
    found = read_set(sets({"path": str(tmp_path / "a")}, {"path": str(tmp_path / "b")}))
    assert "the same image several times: a/x.png = b/y.png" in found.notes


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("cats", "data.sets must be a list of {path, repeats, weight, trigger, prior, masks}, of which path is needed"),
        ([], "data.sets must be a list of"),
        ([5], "data.sets[0] must be {path, repeats, weight, trigger, prior, masks}, got 5"),
        ([{"repeats": 2}], "data.sets[0].path is needed"),
        ([{"path": "a", "repeat": 2}], "data.sets[0].repeat is no key of a set: {path, repeats, weight, trigger, prior, masks}, got 2"),
        ([{"path": "a", "repeats": 0}], "data.sets[0].repeats must be 1 to 10000, got 0"),
        ([{"path": "a", "repeats": "many"}], "data.sets[0].repeats must be a whole number, got 'many'"),
        ([{"path": "a"}, {"path": "b", "weight": -1}], "data.sets[1].weight must be above 0, got -1"),
        ([{"path": "a", "trigger": " "}], "data.sets[0].trigger must not be empty"),
        ([{"path": "a", "prior": "yes"}], "data.sets[0].prior must be true or false, got 'yes'"),
        ([{"path": "a"}, {"path": "a/"}], "data.sets must name each path once"),
        ([{"path": "a", "prior": True}], "data.sets must have a set that is not prior"),
    ],
)
def test_every_fault_of_data_sets_has_its_place(value: Any, words: str) -> None:
    with pytest.raises(Faults) as caught:
        TrainConfig(data=DataConfig(sets=value))
    assert words in str(caught.value)


def test_path_and_sets_are_not_given_together() -> None:
    with pytest.raises(Faults, match=r"data\.sets must be null beside data\.path"):
        TrainConfig(data=DataConfig(path="a", sets=[{"path": "b"}]))


def test_names_of_sets_differ_and_are_short() -> None:
    assert short_names(["a/cats", "b/dogs/"]) == ["cats", "dogs"]
    assert short_names(["a/img", "b/img", "c"]) == ["a/img", "b/img", "c"]
    assert short_names(["x/a/img", "y/a/img"]) == ["x/a/img", "y/a/img"]
