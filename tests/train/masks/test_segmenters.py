"""Segmenters of transformers' own classes, tiny, with weights that are known; files are refused with what to do."""

import json
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image

from registry.errors import Refused
from train.masks.segmenters import ModelOptions, open_segmenter, shares_of


def tiny_segformer(folder: Path) -> Path:
    """A SegFormer of one block a stage, with the labels background, person and dog."""
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    torch.manual_seed(0)
    config = SegformerConfig(
        depths=[1, 1, 1, 1], hidden_sizes=[8, 8, 8, 8], num_attention_heads=[1, 1, 1, 1], decoder_hidden_size=8,
        id2label={0: "background", 1: "person", 2: "dog"}, label2id={"background": 0, "person": 1, "dog": 2},
    )  # fmt: skip
    SegformerForSemanticSegmentation(config).save_pretrained(folder)
    settings = {"size": {"height": 64, "width": 96}, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


def noise(width: int = 96, height: int = 64) -> Image.Image:
    return Image.fromarray(numpy.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=numpy.uint8))


def test_a_transformers_folder_gives_the_share_of_its_classes(tmp_path: Path) -> None:
    from transformers import SegformerForSemanticSegmentation

    place = tiny_segformer(tmp_path / "model")
    image = noise()
    found = open_segmenter(str(place), ModelOptions())
    assert found.classes == ("background", "person", "dog") and found.kept == (1, 2)
    model = SegformerForSemanticSegmentation.from_pretrained(place).eval()
    pixels = torch.from_numpy(numpy.asarray(image, dtype=numpy.float32) / 127.5 - 1).permute(2, 0, 1)[None]
    with torch.no_grad():
        wanted = model(pixel_values=pixels).logits.softmax(1)[0]  # (3, 16, 24)
    numpy.testing.assert_allclose(found(image), wanted[1:].sum(0).numpy(), atol=1e-5)
    only = open_segmenter(str(place), ModelOptions(labels=("dog",)))
    numpy.testing.assert_allclose(only(image), wanted[2].numpy(), atol=1e-5)


def test_masks_by_query_are_joined() -> None:
    """Two queries, two classes and `no object`: sum of softmax(class) sigmoid(mask)."""
    big = 50.0
    answer = {
        "class_queries_logits": torch.tensor([[[big, 0.0, 0.0], [0.0, 0.0, 0.0]]]),
        "masks_queries_logits": torch.tensor([[[[big, -big]], [[0.0, 0.0]]]]),
    }
    assert shares_of(answer).flatten().tolist() == pytest.approx([1.0, 1 / 6, 1 / 6, 1 / 6], abs=1e-5)


def test_what_is_no_segmenter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"--model nowhere: there is no such file or folder\. Expected a transformers folder"):
        open_segmenter("nowhere", ModelOptions())
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "config.json").write_text(json.dumps({"architectures": ["BiRefNet"], "auto_map": {"AutoModel": "x.y"}}))
    with pytest.raises(Refused, match=r"BiRefNet needs code of its own, which is not run\. Give the model as an ONNX file"):
        open_segmenter(str(tmp_path / "own"), ModelOptions())
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "config.json").write_text(json.dumps({"architectures": ["BertModel"]}))
    with pytest.raises(Refused, match="BertModel is no segmentation model"):
        open_segmenter(str(tmp_path / "bert"), ModelOptions())


@pytest.mark.parametrize("settings", [{"size": {"height": "many", "width": 1}}, {"image_mean": ["grey"]}, [1]])
def test_settings_that_cannot_be_understood_are_refused_before_the_first_image(settings: object, tmp_path: Path) -> None:
    folder = tiny_segformer(tmp_path / "model")
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    with pytest.raises(Refused, match=r"preprocessor_config\.json"):
        open_segmenter(str(folder), ModelOptions())
