"""Captions longer than CLIP's context, read in chunks: trained on, cached, measured, drawn, saved and resumed."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from registry.errors import Refused
from registry.progress import silent
from registry.store import Store
from tests import tiny
from tests.train.conftest import stopped
from train import run
from train.config import CheckpointConfig, DataConfig, LoraConfig, PreviewConfig, TrainConfig
from train.loop import checkpoint
from train.loop.cache import Cache
from train.loop.encode import Prompts, encode_texts

Settings = Callable[..., TrainConfig]
BEHIND = "a very long caption of "  # 19 letters: the colour is behind the first 22 tokens


@pytest.fixture
def long(images: Path, tmp_path: Path) -> Path:
    """The tiny set with each caption's end in the second chunk."""
    folder = shutil.copytree(images, tmp_path / "long")
    for number, file in enumerate(sorted(folder.rglob("*.txt"))):
        file.write_text(f"{BEHIND} one disc, number {'abcdefghijk'[number]}", encoding="utf-8")
    return folder


@pytest.mark.parametrize("text_encoder", [False, True])
def test_a_step_is_trained_on_all_chunks(
    prepared: Callable[[TrainConfig], Any], settings: Settings, long: Path, text_encoder: bool
) -> None:
    given = settings(data=DataConfig(path=str(long)), prompt_chunks=2, lora=LoraConfig(rank=2, text_encoder=text_encoder), clip_skip=1)
    work = prepared(given)
    state = work.state
    text = state.texts.rows([0, 1])
    if text_encoder:
        assert isinstance(state.texts.texts, Prompts)
        with torch.no_grad():
            text = state.family.encode_prompts(state.parts, text, clip_skip=1)
    embeds = text["embeds"]
    assert embeds.shape == (2, 2 * tiny.POSITIONS, 32)
    first, second = embeds[:, : tiny.POSITIONS], embeds[:, tiny.POSITIONS :]
    assert torch.allclose(first[0], first[1]) and not torch.allclose(second[0], second[1]), "the captions differ in their second chunk"
    assert torch.isfinite(state.step(0).losses).all()


@pytest.mark.slow
def test_a_run_of_long_captions_is_saved_and_resumed_to_the_bit(
    settings: Settings, store: Store, long: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1767225600")
    given: dict[str, Any] = {
        "steps": 4,
        "data": DataConfig(path=str(long)),
        "prompt_chunks": 2,
        "lora": LoraConfig(rank=2, text_encoder=True),
        "checkpoint": CheckpointConfig(every=2),
        "preview": PreviewConfig(prompts=["a disc"], steps=2, guidance=4.0),
    }
    straight = run.run(settings(out=str(tmp_path / "straight"), **given), store)
    folder = stopped(settings(out=str(tmp_path / "stopped"), **given), store, at=3)
    assert checkpoint.newest(folder, print) is not None
    with pytest.raises(Refused, match=r"prompt_chunks \(2 -> 1\)"):
        run.resume(folder, {"prompt_chunks": 1}, store)
    again = run.resume(folder, {}, store)
    files = [Path(outcome.result["files"]["kohya"]) for outcome in (straight, again)]
    assert files[0].read_bytes() == files[1].read_bytes()
    with safe_open(files[0], "pt") as file:
        assert file.metadata()["ss_max_token_length"] == "44"
    assert (straight.folder / "samples" / "step-000004-01.png").exists()


def test_cached_states_of_another_number_of_chunks_are_not_taken(tmp_path: Path) -> None:
    family, parts = tiny.tiny_parts("sd1")
    cache = Cache("texts", root=tmp_path)
    lengths = [
        encode_texts(family, replace(parts, prompt_chunks=chunks), ["a disc"], device=torch.device("cpu"), cache=cache, report=silent)
        .states[0]["embeds"]
        .shape[1]
        for chunks in (1, 2, 1)
    ]
    assert lengths == [tiny.POSITIONS, 2 * tiny.POSITIONS, tiny.POSITIONS]
    assert len(list(tmp_path.rglob("*.safetensors"))) == 2


def test_a_base_whose_prompts_are_one_chunk_is_refused(settings: Settings, store: Store, tmp_path: Path) -> None:
    base = tiny.tiny_flux1(tmp_path / "flux1")
    with pytest.raises(Refused, match=r"prompt_chunks is 2, but a prompt of FLUX.1 is read in one: CLIP gives it a pooled state alone"):
        run.plan(settings(base=str(base), resolution=64, prompt_chunks=2), store)
