"""Pairs of images in positive/ and negative/; every fault of them is found."""

import shutil
from pathlib import Path

import pytest
from PIL import Image

from registry.errors import Faults, Refused
from registry.progress import silent
from tests import tiny
from train.config import DataConfig, HeldoutConfig, LoraConfig, TrainConfig
from train.objective.slider import slider
from train.settings.lora import LoraParams
from train.slider.dataset import is_drawn, slider_dataset


def config(path: Path | None, **given: object) -> TrainConfig:
    return TrainConfig(data=DataConfig(path=None if path is None else str(path)), **given)  # type: ignore[arg-type]


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    for number, end in enumerate(("positive", "negative")):
        tiny.tiny_dataset(tmp_path / "pairs" / end, 3, seed=number)
    return tmp_path / "pairs"


def test_each_positive_image_has_its_negative_half_the_set_behind_it(pairs: Path) -> None:
    names = [sample.name for sample in slider_dataset(config(pairs), slider(), silent).samples]
    stems = [name.partition("/")[2] for name in names]
    assert len(names) == 6 and stems[:3] == stems[3:]
    assert all(name.startswith("positive/") for name in names[:3]) and all(name.startswith("negative/") for name in names[3:])


def test_a_prompt_slider_needs_no_images(tmp_path: Path) -> None:
    one, other = (slider_dataset(config(None), slider(positive=text), silent) for text in ("night", "day"))
    assert is_drawn(one) and one.sha256 != other.sha256


def test_images_without_a_pair_or_of_two_sizes_are_named(pairs: Path) -> None:
    first, second, third = sorted((pairs / "negative").glob("*.png"))
    first.unlink()
    Image.open(second).resize((64, 32)).save(second)
    shutil.copy(third, pairs / "negative" / "more.png")
    (pairs / "negative" / "more.txt").write_text("a disc")
    with pytest.raises(Faults) as found:
        slider_dataset(config(pairs), slider(), silent)
    faults = str(found.value)
    assert f"{first.stem} of positive/ has no image of that name in negative/" in faults
    assert "more of negative/ has no image of that name in positive/" in faults
    assert f"{second.stem} is 32x32 in positive/ and 64x32 in negative/" in faults


def test_what_a_slider_cannot_have_is_refused(pairs: Path, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"needs objective\.params\.positive or negative, two prompts, or data\.path"):
        slider_dataset(config(None), slider(), silent)
    shutil.rmtree(pairs / "negative")
    with pytest.raises(Refused, match="has no negative/"):
        slider_dataset(config(pairs), slider(), silent)
    with pytest.raises(Faults, match=r"heldout\.share has no meaning(.|\n)*lora\.text_encoder=true"):
        slider_dataset(config(None, heldout=HeldoutConfig(share=0.2), lora=LoraConfig(text_encoder=True)), slider(positive="night"), silent)
    for lora in (LoraConfig(kind="oft"), LoraConfig(params=LoraParams(init="pissa"))):
        with pytest.raises(Faults, match=r"cannot be a slider: its two ends are the adapter at weight 1 and -1"):
            slider_dataset(config(None, lora=lora), slider(positive="night"), silent)
