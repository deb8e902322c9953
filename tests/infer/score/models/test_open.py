"""Embedding models by path: their vectors are those of transformers' own classes, of torch, of the formula; the rest is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy
import pytest

from infer.score.models.open import faults_of, open_embedder
from registry.errors import Refused
from tests.infer.score.models import models

IMAGENET = numpy.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Any]]:
    """Folders and models by name."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    found = {}
    for build in (models.clip, models.dinov2, models.siglip, models.dino):
        folder = tmp_path_factory.mktemp(build.__name__)
        found[build.__name__] = (folder, build(folder))
    return found


@pytest.fixture(scope="module")
def cpu() -> Any:
    import torch

    return torch.device("cpu")


def units(rows: Any) -> Any:
    table = numpy.asarray(rows, dtype=numpy.float64)
    return table / numpy.linalg.norm(table, axis=-1, keepdims=True)


def by_hand(name: str, folder: Path, model: Any) -> Any:
    """The vectors that the model's own classes give, all images in one batch."""
    import torch
    from transformers import BitImageProcessor, CLIPImageProcessor, SiglipImageProcessor, ViTImageProcessor

    kinds = {"clip": CLIPImageProcessor, "dinov2": BitImageProcessor, "siglip": SiglipImageProcessor, "dino": ViTImageProcessor}
    pixels = kinds[name].from_pretrained(folder)(images=models.images(6), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        if name == "dino":
            return units(model(pixels).last_hidden_state[:, 0])
        if name == "dinov2":
            return units(model(pixels).pooler_output)
        vision = model.vision_model(pixels).pooler_output
        return units(model.visual_projection(vision) if name == "clip" else vision)


@pytest.mark.parametrize(
    ("name", "output"),
    [
        ("clip", "get_image_features"),
        ("dinov2", "pooler_output"),
        ("siglip", "get_image_features"),
        ("dino", "class token of last_hidden_state"),
    ],
)
def test_images_are_those_of_the_models_own_classes(built: dict[str, tuple[Path, Any]], cpu: Any, name: str, output: str) -> None:
    """A pooler that is not in the file would be random: its output is not used."""
    folder, model = built[name]
    assert faults_of(str(folder), option="--embed") == []
    embedder = open_embedder(str(folder), device=cpu)
    found = embedder.images(models.images(6))
    numpy.testing.assert_allclose(found, by_hand(name, folder, model), atol=2e-5)  # one image at a time, and not in a batch
    assert abs(found @ found.T - numpy.eye(6)).max() > 0.01 and numpy.array_equal(found, embedder.images(models.images(6)))
    definition = embedder.definition
    assert (definition.kind, definition.output, definition.width) == ("transformers", output, found.shape[1])
    assert definition.name == type(model).__name__ and len(definition.sha256) == 64 and "ImageProcessor" in definition.input


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_texts_are_those_of_the_models_own_classes(built: dict[str, tuple[Path, Any]], cpu: Any, name: str) -> None:
    """CLIP's are read at their own length, SigLIP's at the full one."""
    import torch
    from transformers import AutoTokenizer

    folder, model = built[name]
    assert faults_of(str(folder), texts=True, option="--embed") == []
    embedder = open_embedder(str(folder), device=cpu, texts=True)
    prompts = ["a red disc", "a cat and a dog", "a very long prompt " * 10]
    tokens = AutoTokenizer.from_pretrained(folder)(prompts, padding="max_length", max_length=20, truncation=True, return_tensors="pt")
    with torch.no_grad():
        text = model.text_model(tokens.input_ids, attention_mask=tokens.attention_mask if name == "clip" else None).pooler_output
        expected = units(model.text_projection(text) if name == "clip" else text)
    numpy.testing.assert_allclose(embedder.texts(prompts), expected, atol=2e-5)
    assert embedder.tokens is not None and embedder.tokens(prompts[2])[0] > embedder.tokens(prompts[2])[1] == 20


def test_a_torchscript_file_reads_288_pixels_as_sscd_does(tmp_path: Path, cpu: Any) -> None:
    import torch
    from PIL import Image

    model = models.torchscript(tmp_path / "net.pt")
    assert faults_of(str(tmp_path / "net.pt"), option="--embed") == []
    embedder = open_embedder(str(tmp_path / "net.pt"), device=cpu)
    given = models.images(3)
    for image, size, found in zip(given, ((288, 432), (432, 288), (288, 288)), embedder.images(given), strict=True):
        pixels = (numpy.asarray(image.resize(size, Image.Resampling.BILINEAR)) / 255 - IMAGENET[0]) / IMAGENET[1]
        with torch.no_grad():
            expected = model(torch.tensor(pixels.transpose(2, 0, 1)[None], dtype=torch.float32))
        numpy.testing.assert_allclose(found, units(expected)[0], atol=1e-5)
    assert (embedder.definition.kind, embedder.definition.width) == ("torchscript", 8)
    assert embedder.definition.input == "short side 288 px, ImageNet mean and deviation"


def test_a_torchscript_file_that_takes_squares_alone_is_given_squares(tmp_path: Path, cpu: Any) -> None:
    models.torchscript(tmp_path / "net.pt", squares=True)
    found = open_embedder(str(tmp_path / "net.pt"), device=cpu, side=32)
    assert found.definition.input == "32 x 32 px, ImageNet mean and deviation" and found.images(models.images(2)).shape == (2, 8)


@pytest.mark.parametrize("are_bytes", [False, True])
def test_an_onnx_file_is_run_at_its_own_size(tmp_path: Path, cpu: Any, are_bytes: bool) -> None:
    from PIL import Image

    weights = models.onnx(tmp_path / "means.onnx", are_bytes=are_bytes)
    assert faults_of(str(tmp_path / "means.onnx"), option="--embed") == []
    embedder = open_embedder(str(tmp_path / "means.onnx"), device=cpu)
    given = models.images(2)
    means = numpy.array([numpy.asarray(image.resize((8, 8), Image.Resampling.BILINEAR)).mean((0, 1)) for image in given])
    read = means if are_bytes else (means / 255 - IMAGENET[0]) / IMAGENET[1]
    numpy.testing.assert_allclose(embedder.images(given), units(read @ weights), atol=1e-5)
    assert embedder.definition.input == f"8 x 8 px, {'bytes' if are_bytes else 'ImageNet mean and deviation'}"


def test_a_processor_beside_a_file_is_followed(built: dict[str, tuple[Path, Any]], tmp_path: Path, cpu: Any) -> None:
    from transformers import CLIPImageProcessor

    weights = models.onnx(tmp_path / "means.onnx", side=None)
    shutil.copy(built["clip"][0] / "preprocessor_config.json", tmp_path)
    embedder = open_embedder(str(tmp_path / "means.onnx"), device=cpu)
    pixels = CLIPImageProcessor.from_pretrained(tmp_path)(images=models.images(2), return_tensors="np")["pixel_values"]
    numpy.testing.assert_allclose(embedder.images(models.images(2)), units(pixels.mean((2, 3)) @ weights), atol=1e-5)
    assert embedder.definition.input.startswith("CLIPImageProcessor")


def test_what_is_no_model_is_refused_before_it_is_loaded(built: dict[str, tuple[Path, Any]], tmp_path: Path) -> None:
    import torch

    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "config.json").write_text(json.dumps({"model_type": "mine", "auto_map": {"AutoModel": "a.B"}}))
    torch.save({"a": torch.zeros(1)}, tmp_path / "weights.pt")
    (tmp_path / "plain.pt").write_text("x")
    (tmp_path / "notes.txt").write_text("x")
    expected = {
        tmp_path / "none": ["there is no such file or folder"],
        tmp_path: ["has no config.json"],
        tmp_path / "text": ["GPT2Model has no image side", "has no weights", "has no preprocessor_config.json"],
        tmp_path / "own": ["it needs code of its own, which is not run"],
        tmp_path / "weights.pt": ["it holds weights without a model"],
        tmp_path / "plain.pt": ["it holds no TorchScript"],
        tmp_path / "notes.txt": ["it is no model by its ending"],
    }
    for path, words in expected.items():
        faults = faults_of(str(path), option="--embed")
        assert len(faults) == len(words) and all(word in fault for word, fault in zip(words, faults, strict=True)), faults
    (fault,) = faults_of(str(built["dinov2"][0]), texts=True, option="--clip")
    assert fault.startswith("--clip") and "Dinov2Model has no text side" in fault
    assert "Expected a folder" in faults_of(str(tmp_path / "plain.pt"), texts=True, option="--embed")[0]


def test_without_onnxruntime_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models.onnx(tmp_path / "means.onnx")
    monkeypatch.setattr("infer.score.models.files.find_spec", lambda name: None)
    assert "pip install 'loraloom[tagger]'" in faults_of(str(tmp_path / "means.onnx"), option="--embed")[0]


def test_weights_that_are_missing_are_no_random_numbers(built: dict[str, tuple[Path, Any]], tmp_path: Path, cpu: Any) -> None:
    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(built["dinov2"][0], tmp_path / "part"))
    weights = load_file(folder / "model.safetensors")
    save_file({name: value for name, value in weights.items() if "layer.1" not in name}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(Refused, match=r"has no weights of .*layer\.1.*would be random numbers"):
        open_embedder(str(folder), device=cpu)


def test_a_damaged_onnx_file_is_refused(tmp_path: Path, cpu: Any) -> None:
    (tmp_path / "a.onnx").write_bytes(b"no model")
    with pytest.raises(Refused, match=r"a\.onnx cannot be loaded \("):
        open_embedder(str(tmp_path / "a.onnx"), device=cpu)


def test_a_model_that_gives_no_vector_is_refused(tmp_path: Path, cpu: Any) -> None:
    """One that gives a map, one that gives the same for every image, one that cannot be run at that size."""
    import warnings

    import torch

    class Map(torch.nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return pixels

    class Same(torch.nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return torch.ones(1, 4)

    class Small(torch.nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return pixels.reshape(1, 3 * 8 * 8)

    words = {Map: "expected one vector", Same: "the same vector for different images", Small: r"--embed-size PIXELS"}
    for kind, word in words.items():
        file = tmp_path / f"{kind.__name__}.pt"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            torch.jit.script(kind()).save(str(file))  # type: ignore[no-untyped-call]
        with pytest.raises(Refused, match=word):
            open_embedder(str(file), device=cpu)
    assert open_embedder(str(tmp_path / "Small.pt"), device=cpu, side=8).definition.width == 192
