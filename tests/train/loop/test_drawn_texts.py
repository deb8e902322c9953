"""Runs in which captions, tags, choices, crops and mirror images are drawn: what is trained, and a stop in the middle."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from registry.errors import Faults, Refused
from registry.store import Store
from tests.tiny import tiny_dataset
from tests.train.conftest import stopped
from train import run
from train.config import CheckpointConfig, DataConfig, LoraConfig, TrainConfig
from train.data.dataset import Sample
from train.loop.drawn_texts import CachedTexts, FreshTexts
from train.loop.encode import Texts

Settings = Callable[..., TrainConfig]
DRAWN: dict[str, Any] = {
    "trigger": "sks", "captions": "lines", "shuffle_tags": True, "keep_tokens": 1, "tag_dropout": 0.2, "caption_dropout": 0.3,
    "wildcards": True, "variants": 4, "flip": True, "crops": 2,
}  # fmt: skip


@pytest.fixture
def tagged(tmp_path: Path) -> Path:
    """Kohya's folders of images that are not square, with tags, choices and two captions each."""
    for name, seed in (("2_red", 1), ("1_blue", 2)):
        folder = tiny_dataset(tmp_path / "tagged" / name, 2, size=48, seed=seed)
        for file in sorted(folder.glob("*.png")):
            from PIL import Image

            Image.open(file).resize((60, 44)).save(file)
            file.with_suffix(".txt").write_text(f"disc, {{big|small}}, {name}, round, plain\na {{lone|single}} disc")
    return tmp_path / "tagged"


def text_state(number: float) -> dict[str, torch.Tensor]:
    return {"text": torch.full((1, 2), number)}


def test_each_place_of_a_step_draws_one_of_its_image_s_prompts() -> None:
    texts = CachedTexts(Texts(tuple(map(text_state, range(5))), (0, 1, 2, 3, 4)), (range(3), range(3, 4)), seed=7, dropout=0.25, empty=4)
    drawn = torch.stack([texts.drawn([0, 1], step, [0, 1])["text"][:, 0] for step in range(400)])  # type: ignore[call-overload]
    assert set(drawn[:, 0].tolist()) == {0.0, 1.0, 2.0, 4.0} and set(drawn[:, 1].tolist()) == {3.0, 4.0}
    assert (drawn == 4.0).float().mean().item() == pytest.approx(0.25, abs=0.05)
    assert texts.drawn([0, 1], 9, [0, 1])["text"].equal(texts.drawn([0, 1], 9, [0, 1])["text"])  # type: ignore[call-overload]
    assert texts.rows([1, 0])["text"][:, 0].tolist() == [3.0, 0.0]


def test_text_encoders_that_learn_get_a_new_variant_each_time() -> None:
    from registry.formats.image_file import Size

    sample = Sample("a.png", "1" * 64, Size(8, 8), ", ".join("abcdefgh"), bytes)
    config = DataConfig(shuffle_tags=True, caption_dropout=0.2, trigger="sks")
    texts = FreshTexts([sample, replace(sample, caption="one")], config, 0, lambda text: (len(text), 77))
    drawn = [prompt for step in range(30) for prompt in texts.drawn([0, 1], step, [0, 1])]
    assert "" in drawn and len(set(drawn[::2])) > 20 and set(drawn[1::2]) == {"", "sks, one"}
    assert all(prompt.startswith("sks, ") for prompt in drawn if prompt)


@pytest.mark.slow
@pytest.mark.parametrize("text_encoder", [False, True])
def test_stopped_with_all_of_it_drawn_a_run_ends_the_same(
    text_encoder: bool, tagged: Path, settings: Settings, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1767225600")
    lora = LoraConfig(rank=2, text_encoder=text_encoder)

    def config(place: str) -> TrainConfig:
        data = DataConfig(path=str(tagged), **DRAWN)
        return settings(steps=6, data=data, lora=lora, out=str(tmp_path / place), checkpoint=CheckpointConfig(every=2))

    straight = run.run(config("straight"), store)
    folder = stopped(config("stopped"), store, at=3)
    torch.manual_seed(123)
    run.resume(folder, {}, store)
    for name in ("discs.safetensors", "checkpoints/step-000006/adapter.safetensors"):
        assert (straight.folder / name).read_bytes() == (folder / name).read_bytes(), name
    one, other = (torch.load(place / "checkpoints/step-000006/training.pt", weights_only=False) for place in (straight.folder, folder))
    for key, moments in one["optimizer"]["state"].items():
        assert all(torch.equal(moments[name], other["optimizer"]["state"][key][name]) for name in moments)
    assert (straight.folder / "metrics.jsonl").read_bytes() == (folder / "metrics.jsonl").read_bytes()


@pytest.mark.slow
def test_another_caption_or_choice_is_not_resumed(tagged: Path, settings: Settings, store: Store) -> None:
    done = run.run(settings(steps=1, data=DataConfig(path=str(tagged), **DRAWN)), store)
    file = tagged / "2_red" / "000.txt"
    file.write_text(file.read_text().replace("small", "tiny"))
    with pytest.raises(Faults, match=r"2_red/000\.png has another image, caption or mask"):
        run.resume(done.folder, {"steps": 2}, store)


def test_the_plan_shows_sets_prompts_and_views(tagged: Path, settings: Settings, store: Store) -> None:
    made = run.plan(settings(data=DataConfig(path=str(tagged), **DRAWN)), store)
    text = made.to_text()
    assert "sets       1_blue: 2 images x 1, 33.3% of the steps" in text and "2_red: 2 images x 2, 66.7% of the steps" in text
    assert f"the prompts of 4 images are drawn in each step: {made.texts} are encoded, up to 4 an image" in text
    assert "30.0% of the images of a step have the empty prompt" in text
    assert "16 crops and mirror images are encoded, 4 of each image at each size; a step draws one" in text
    plain = made.to_json()
    assert plain["texts"] == len({prompt for several in made.variants for prompt in several}) > 8
    assert plain["sets"][1] == {
        "name": "2_red", "images": 2, "share": 2 / 3, "repeats": 2, "weight": 1.0, "trigger": None, "prior": False
    }  # fmt: skip
    assert len(plain["prompts"]) == 5 and not any("{" in prompt for several in made.variants for prompt in several)
    assert made.prompts[0] == "sks, disc, big, 1_blue, round, plain"


def test_repeats_are_how_often_an_epoch_has_an_image(tagged: Path, settings: Settings, store: Store) -> None:
    made = run.plan(settings(data=DataConfig(path=str(tagged))), store)
    assert made.order.occurrences == 6 and made.order.epoch_steps == 3


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"keep_tokens": 9}, "no caption has two tags with ',' between them"),
        ({"tag_separator": ";"}, "no caption has two tags with ';' between them"),
        ({"variants": 1}, "data.variants=1: an image has 2 captions"),
    ],
)
def test_settings_that_do_not_suit_the_captions_are_refused(
    given: dict[str, Any], words: str, tagged: Path, settings: Settings, store: Store
) -> None:
    with pytest.raises((Faults, Refused)) as caught:
        run.plan(settings(data=DataConfig(path=str(tagged), **(DRAWN | given))), store)
    assert words in str(caught.value)
