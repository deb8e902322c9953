"""New tokens beside what else acts on a step: accumulation, half precision, masks, regularisation images, chunks of a prompt."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from tests import tiny
from train.config import DataConfig, LoraConfig, Precision, TrainConfig
from train.settings.tokens import TokensConfig

Settings = Callable[..., TrainConfig]
Prepared = Callable[[TrainConfig], Any]
TOKENS = TokensConfig(add=[{"token": "<ab>", "init": "ox"}])


def alone(settings: Settings, images: Path, /, data: dict[str, Any] | None = None, **given: Any) -> TrainConfig:
    values = {"path": str(images), "trigger": "<ab>"} | (data or {})
    return settings(data=DataConfig(**values), lora=LoraConfig(kind="none"), tokens=TOKENS, **given)


def gradient(state: Any, step: int = 0) -> Tensor:
    """That of the vectors in a step."""
    state.step(step)
    rows = state.vectors.rows["text_encoder"]
    assert rows.dtype == rows.grad.dtype == torch.float32 and bool(torch.isfinite(rows.grad).all())
    found: Tensor = rows.grad.clone()
    return found


def cosine(one: Tensor, other: Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(one.flatten(), other.flatten(), dim=0))


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Path:
    """A mask for each image that keeps its left half."""
    folder = tmp_path_factory.mktemp("masks")
    for file in images.glob("*.png"):
        with Image.open(file) as image:
            mask = Image.new("L", image.size, 0)
        mask.paste(255, (0, 0, mask.width // 2, mask.height))
        mask.save(folder / file.name)
    return folder


@pytest.mark.slow
def test_passes_halves_of_precision_and_masks_change_what_they_should(
    settings: Settings, prepared: Prepared, images: Path, halves: Path
) -> None:
    whole = gradient(prepared(alone(settings, images, batch_size=4)).state)
    passes = gradient(prepared(alone(settings, images, batch_size=2, accumulate=2)).state)
    torch.testing.assert_close(passes, whole, rtol=1e-4, atol=1e-7)
    half = gradient(prepared(alone(settings, images, batch_size=2, accumulate=2, precision=Precision.bf16)).state)
    assert cosine(half, whole) > 0.95 and not half.equal(passes)
    masked = gradient(prepared(alone(settings, images, {"masks": str(halves)}, batch_size=4)).state)
    assert bool(masked.any()) and cosine(masked, whole) < 0.999


@pytest.mark.slow
def test_class_images_leave_the_vectors_alone(settings: Settings, prepared: Prepared, images: Path, tmp_path: Path) -> None:
    prior = tiny.tiny_dataset(tmp_path / "class", 6, seed=9)
    state = prepared(alone(settings, images, {"prior": str(prior)}, batch_size=1, steps=12)).state
    seen = {}
    for step in range(12):
        (batch,) = state.order.step(step)[0]
        is_prior = state.items[batch.items[0]].sample.prior
        if is_prior not in seen:
            seen[is_prior] = gradient(state, step)
    assert not seen[True].any() and seen[False].any()


@pytest.mark.slow
def test_a_token_in_a_later_chunk_learns(settings: Settings, prepared: Prepared, images: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(images, tmp_path / "long")
    for file in folder.rglob("*.txt"):
        file.write_text("a very long caption of  <ab> disc", encoding="utf-8")
    state = prepared(alone(settings, folder, {"trigger": None}, prompt_chunks=2)).state
    embeds = state.family.encode_prompts(state.parts, state.texts.rows([0]))["embeds"]
    assert embeds.shape[1] == 2 * tiny.POSITIONS and bool(gradient(state).any())
