"""Scores by models, each against transformers' own call, torch, or the formula; what is no such model is refused."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy
import pytest
from PIL import Image

from infer.score.given import ready_scores
from infer.score.kinds.ocr import distance, plain, quoted, similarity
from infer.score.models.reader import text_reader
from infer.score.scorer import Found, Scene, Scorer, Subject
from registry.errors import Faults
from tests.infer.score.models import models


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    from transformers.utils import logging

    logging.disable_progress_bar()
    folder = tmp_path_factory.mktemp("clip")
    return folder, models.clip(folder)


def subject(image: Image.Image, prompt: str | None = None, first: Subject | None = None) -> Subject:
    return Subject(key="k", sha256="s", image=lambda: image, prompt=prompt, seconds=None, first=lambda axis: first)


def ready(given: object, scene: Scene | None = None) -> Scorer:
    (scorer,) = ready_scores(given, scene or Scene(), try_models=True)
    return scorer


def found(given: object, one: Subject) -> Found:
    scorer = ready(given)
    assert scorer.inputs(one) is not None
    return scorer.open()(one)


def faults(given: object, scene: Scene | None = None) -> str:
    with pytest.raises(Faults) as refused:
        ready(given, scene)
    return str(refused.value)


def test_clip_is_transformers_own_cosine(clip: tuple[Path, Any]) -> None:
    import torch
    from transformers import AutoTokenizer, CLIPImageProcessor

    folder, model = clip
    texts, images = ["a red disc", "a cat and a dog", "a house"], models.images(3)
    tokens = AutoTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="pt")
    pixels = CLIPImageProcessor.from_pretrained(folder)(images=images, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        logits = model(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask, pixel_values=pixels).logits_per_image
        expected = 100 * (logits / model.logit_scale.exp()).diagonal()
    values = [found({"clip": str(folder)}, subject(image, text)).value for image, text in zip(images, texts, strict=True)]
    assert values == pytest.approx(expected.tolist(), abs=2e-3) and len(set(values)) == 3  # of 100: float32 in a batch and alone
    prefixed = {"clip": {"model": str(folder), "prefix": "a photo of "}}
    assert found(prefixed, subject(images[2], texts[2])).value != values[2]
    scorer = ready({"clip": str(folder)}, Scene(prompts=("a cat", "a word and another " * 12)))
    assert scorer.inputs(subject(images[0], " ")) is None and any(
        "1 of 2 prompts is longer than the 20 tokens" in one for one in scorer.notes
    )


def test_the_definition_has_the_content_of_the_model(clip: tuple[Path, Any], tmp_path: Path) -> None:
    import shutil

    copied = tmp_path / "copied"
    shutil.copytree(clip[0], copied)
    first, second = ready({"clip": str(clip[0])}).model, ready({"clip": str(copied)}).model
    assert first is not None and second is not None and first["sha256"] == second["sha256"] and first["path"] != second["path"]
    settings = json.loads((copied / "preprocessor_config.json").read_text())
    (copied / "preprocessor_config.json").write_text(json.dumps(settings | {"image_mean": [0.1, 0.2, 0.3]}))
    changed = ready({"clip": str(copied)}).model
    assert changed is not None and changed["sha256"] != first["sha256"]


@pytest.mark.parametrize("name", ["clip_image", "dino"])
def test_cosines_to_references(clip: tuple[Path, Any], tmp_path: Path, name: str) -> None:
    import torch
    from transformers import CLIPImageProcessor

    own, *others = models.images(4)
    for number, image in enumerate(others):
        image.save(tmp_path / f"{number}.png")
    pixels = CLIPImageProcessor.from_pretrained(clip[0])(images=[own, *others], return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        vectors = torch.nn.functional.normalize(clip[1].get_image_features(pixel_values=pixels).pooler_output, dim=-1)
    cosines = 100 * (vectors[1:] @ vectors[0])
    options = {"model": str(clip[0]), "references": str(tmp_path)}
    assert found({name: options}, subject(own)).value == pytest.approx(float(cosines.mean()), abs=2e-3)
    assert found({name: {**options, "take": "nearest"}}, subject(own)).value == pytest.approx(float(cosines.max()), abs=2e-3)


def test_nearest_and_copy_name_the_training_image(clip: tuple[Path, Any], tmp_path: Path) -> None:
    generator = numpy.random.default_rng(0)
    (tmp_path / "10_set").mkdir()
    (tmp_path / "heldout").mkdir()
    images = [Image.fromarray(generator.integers(0, 256, (24, 24, 3), dtype=numpy.uint8)) for _ in range(3)]
    for image, name in zip(images, ("a.png", "10_set/<b>.png", "heldout/c.png"), strict=True):
        image.save(tmp_path / name)
    assert found({"nearest": str(tmp_path)}, subject(images[1])) == Found(0.0, "nearest to <b>.png")
    copied = found({"copy": {"model": str(clip[0]), "data": str(tmp_path)}}, subject(images[1]))
    assert copied.value == pytest.approx(100) and copied.text == "nearest to <b>.png"
    assert found({"nearest": str(tmp_path)}, subject(images[2])).value > 10
    assert "this grid has no adapter" in faults("nearest") and "no data set that abc" in faults("nearest", Scene(adapters=("abc",)))


def torchscript(file: Path, net: Any) -> str:
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(net.eval()).save(str(file))
    return str(file)


def test_lpips_is_the_files_own_distance(tmp_path: Path) -> None:
    import torch

    class Pair(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Conv2d(3, 4, 3)

        def forward(self, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = (self.layer(one) - self.layer(other)).square().mean((1, 2, 3), keepdim=True)
            return found

    class Same(torch.nn.Module):
        def forward(self, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
            return (one + other).mean() * 0

    class Single(torch.nn.Module):
        def forward(self, one: torch.Tensor) -> torch.Tensor:
            return one.mean()

    net = Pair()
    path = torchscript(tmp_path / "pair.pt", net)
    one, other = models.images(1, seed=1)[0], models.images(1, seed=2)[0]
    with torch.no_grad():
        pixels = [torch.tensor(numpy.asarray(image).transpose(2, 0, 1)[None] / 127.5 - 1).float() for image in (one, other)]
        expected = float(net(*pixels))
    assert found({"lpips": path}, subject(one, first=subject(other))).value == pytest.approx(expected, rel=1e-5)
    other.save(tmp_path / "reference.png")
    options = {"model": path, "references": str(tmp_path / "reference.png")}
    assert found({"lpips": options}, subject(one)).value == pytest.approx(expected, rel=1e-5)
    assert "that is no distance" in faults({"lpips": torchscript(tmp_path / "same.pt", Same())})
    assert "cannot be run on two images" in faults({"lpips": torchscript(tmp_path / "single.pt", Single())})
    assert "both given" in faults({"lpips": {**options, "axis": "steps"}}, Scene(axes=("steps",)))
    assert "no such file" in faults({"lpips": str(tmp_path / "none.pt")})


def improved_predictor(width: int) -> Any:
    """The network of improved-aesthetic-predictor's simple_inference.py, by its own shapes but the first."""
    from torch import nn

    return nn.Sequential(
        nn.Linear(width, 1024),
        nn.Dropout(0.2),
        nn.Linear(1024, 128),
        nn.Dropout(0.2),
        nn.Linear(128, 64),
        nn.Dropout(0.1),
        nn.Linear(64, 16),
        nn.Linear(16, 1),
    ).eval()


def test_aesthetic_reads_the_state_dicts_as_they_are_published(clip: tuple[Path, Any], tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    from infer.score.models.open import open_embedder

    net, image = improved_predictor(8), models.images(1)[0]
    torch.save({f"layers.{name}": value for name, value in net.state_dict().items()}, tmp_path / "improved.pth")
    linear = torch.nn.Linear(8, 1)
    torch.save(linear.state_dict(), tmp_path / "linear.pth")
    save_file(linear.state_dict(), tmp_path / "linear.safetensors")
    vector = torch.tensor(open_embedder(str(clip[0]), device=torch.device("cpu")).images([image])[0]).float()
    with torch.no_grad():
        for file, head in (("improved.pth", net), ("linear.pth", linear), ("linear.safetensors", linear)):
            options = {"head": str(tmp_path / file), "model": str(clip[0])}
            assert found({"aesthetic": options}, subject(image)).value == pytest.approx(float(head(vector)), abs=1e-5)
    torch.save(improved_predictor(6)[0].state_dict(), tmp_path / "wide.pth")
    torch.save({"layers.0.weight": torch.zeros(1, 6)}, tmp_path / "six.pth")
    torch.save({"conv.weight": torch.zeros(1, 6)}, tmp_path / "conv.pth")
    (tmp_path / "text.pth").write_text("no weights")
    for file, said in (
        ("wide.pth", "a chain that ends in one number"),
        ("six.pth", "is for 6 numbers"),
        ("conv.pth", "Expected linear layers alone"),
        ("text.pth", "cannot be read as weights"),
        ("none.pth", "there is no such file"),
    ):
        assert said in faults({"aesthetic": {"head": str(tmp_path / file), "model": str(clip[0])}}), file


def test_the_text_in_quotes_and_its_edit_distance() -> None:
    assert quoted("a sign that says \"Open 24h\" and 'OK', it's night") == "Open 24h OK"
    assert quoted("„Hallo“ «monde» “two words”") == "Hallo monde two words" and quoted("no text") == ""
    assert plain("Ｏpen, 24 H!") == "open24h"
    assert [distance(*pair) for pair in (("kitten", "sitting"), ("", "abc"), ("abc", "abc"), ("flaw", "lawn"))] == [3, 3, 0, 2]
    assert similarity("kitten", "sitting") == pytest.approx(1 - 3 / 7) and similarity("", "") == 1


@pytest.mark.slow
def test_ocr_by_a_model_and_by_tesseract(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.train.data.captioning.test_language_model import build_encoder_decoder

    build_encoder_decoder(tmp_path)
    scorer = ready({"ocr": str(tmp_path)})
    assert scorer.inputs(subject(models.images(1)[0], "a sign")) is None
    one = subject(models.images(1)[0], 'a sign "of a cat"')
    value = scorer.open()(one)
    assert value.text.startswith("read: ") and 0 <= value.value <= 1
    read = text_reader(Scene(), str(tmp_path))[1]()(one.image())
    assert value.value == similarity("ofacat", plain(read)) and value.text == f"read: {plain(read)[:200]!r}"
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert "tesseract" in faults("ocr") and "pip install 'loraloom[ocr]'" in faults("ocr")


def test_what_is_no_such_model_is_refused_all_at_once(clip: tuple[Path, Any], tmp_path: Path) -> None:
    models.dinov2(tmp_path / "dino")
    (tmp_path / "empty").mkdir()
    given = [
        {"clip": str(tmp_path / "dino")},
        {"clip": {"model": str(tmp_path / "none"), "name": "b"}},
        {"clip_image": {"model": str(tmp_path / "empty"), "references": "init"}},
        {"dino": str(tmp_path / "dino")},
        {"copy": {"model": str(clip[0])}},
    ]
    text = faults(given)
    for said in ("has no text side", "no such file or folder", "has no config.json", "dino needs references", "no adapter"):
        assert said in text, said
