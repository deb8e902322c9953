"""Tokens must stand in captions, as words of their own in their own letters."""

from collections.abc import Callable
from pathlib import Path

import pytest

from registry.errors import Refused
from registry.store import Store
from tests import tiny
from train import run
from train.config import DataConfig, TrainConfig
from train.settings.tokens import TokensConfig

Settings = Callable[..., TrainConfig]
TOKENS = TokensConfig(add=[{"token": "disky", "init": "disc"}])


def captioned(folder: Path, caption: str) -> DataConfig:
    images = tiny.tiny_dataset(folder / "discs")
    first = sorted(images.glob("*.txt"))[0]
    first.write_text(caption, encoding="utf-8")
    return DataConfig(path=str(images))


@pytest.mark.parametrize(
    ("caption", "fault"),
    [
        ("a red disc", "'disky' stands in no caption. Write it into the captions, or give data.trigger=disky"),
        ("a diskyness, disky", "stands inside another word or in another case in the captions of"),
        ("a DISKY, disky", "stands inside another word or in another case in the captions of"),
    ],
)
def test_what_is_refused(caption: str, fault: str, settings: Settings, store: Store, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=fault):
        run.plan(settings(data=captioned(tmp_path, caption), tokens=TOKENS), store)


@pytest.mark.slow
def test_the_plan_counts_the_captions_with_it(settings: Settings, store: Store, tmp_path: Path) -> None:
    some = run.plan(settings(data=captioned(tmp_path, "a disky"), tokens=TOKENS), store)
    assert "'disky' stands in 1 of" in " ".join(some.notes) and some.to_json()["tokens"][0]["images"] == 1
    every = run.plan(settings(tokens=TOKENS, data=DataConfig(path=some.config.data.path, trigger="disky")), store)
    text = every.to_text()
    assert "'disky': 4 vectors of text_encoder (128 weights), from 'disc', in 6 of 6 prompts" in text
    assert "embeddings/disky.safetensors (emb_params), loads in A1111 and Forge, ComfyUI, diffusers" in text
    assert "trained at a peak rate of 0.0005 in every step" in text and every.texts is None
    assert any(shown.startswith("disky | ,") for shown in every.shown)
    assert every.estimate.activations is not None and every.estimate.memory["text_encoder"] > 0
