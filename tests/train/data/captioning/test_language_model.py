"""Image-to-text models of transformers: tiny builds of four kinds, each captioned as its own classes do it."""

import json
from pathlib import Path
from typing import Any

import numpy
import pytest
from PIL import Image

from registry.errors import Refused
from train.data.captioning.captioner import CaptionerOptions, faults_of, open_captioner

_WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] a red blue disc cat dog on the of photo describe this image"
WORDS = _WORDS.split()
VISION = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 16, "patch_size": 8}
TEXT = {"vocab_size": len(WORDS), "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
ENDS = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
CHAT = (
    "{% for m in messages %}{% for c in m['content'] %}{% if c['type'] == 'image' %}<image> {% else %}{{ c['text'] }} {% endif %}"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %}the{% endif %}"
)


def lively(model: Any) -> Any:
    """The model with weights so large that what it writes depends on the image."""
    import torch

    generator = torch.Generator().manual_seed(3)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.6
    return model.eval()


def tokenizer() -> Any:
    from transformers import BertTokenizer

    return BertTokenizer(vocab={word: number for number, word in enumerate(WORDS)})


def squares(name: str) -> Any:
    """An image processor that gives 16 x 16 pixels."""
    import transformers

    return getattr(transformers, name)(size={"height": 16, "width": 16})


def build_git(folder: Path) -> Any:
    from transformers import CLIPImageProcessor, GitConfig, GitForCausalLM, GitProcessor

    images = CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    model = lively(GitForCausalLM(GitConfig(vision_config=VISION, **TEXT, **ENDS)))
    GitProcessor(images, tokenizer()).save_pretrained(folder)
    model.save_pretrained(folder)
    return model


def build_blip(folder: Path) -> Any:
    from transformers import BlipConfig, BlipForConditionalGeneration, BlipProcessor

    text = TEXT | ENDS | {"encoder_hidden_size": 16, "sep_token_id": 3}
    model = lively(BlipForConditionalGeneration(BlipConfig(text_config=text, vision_config=VISION, projection_dim=8)))
    BlipProcessor(squares("BlipImageProcessor"), tokenizer()).save_pretrained(folder)
    model.save_pretrained(folder)
    return model


def build_encoder_decoder(folder: Path) -> Any:
    from transformers import GPT2Config, VisionEncoderDecoderConfig, VisionEncoderDecoderModel, ViTConfig

    decoder = GPT2Config(vocab_size=len(WORDS), n_embd=16, n_layer=2, n_head=2, add_cross_attention=True, **ENDS)
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(ViTConfig(**VISION), decoder, decoder_start_token_id=2, **ENDS)
    model = lively(VisionEncoderDecoderModel(config))
    squares("ViTImageProcessor").save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    model.save_pretrained(folder)
    return model


def build_llava(folder: Path) -> Any:
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
        PreTrainedTokenizerFast,
    )

    words = PreTrainedTokenizerFast(tokenizer_object=tokenizer()._tokenizer, unk_token="[UNK]", pad_token="[PAD]", eos_token="[SEP]")
    words.add_tokens(["<image>"], special_tokens=True)
    text = LlamaConfig(**(TEXT | {"vocab_size": len(words)}), num_key_value_heads=2, **ENDS)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**VISION), text_config=text, image_token_id=len(WORDS), vision_feature_select_strategy="default"
    )
    model = lively(LlavaForConditionalGeneration(config))
    images = CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    LlavaProcessor(
        images, words, patch_size=8, vision_feature_select_strategy="default", chat_template=CHAT, num_additional_image_tokens=1
    ).save_pretrained(folder)
    model.save_pretrained(folder)
    return model


BUILDS = {"git": build_git, "blip": build_blip, "encoder-decoder": build_encoder_decoder, "llava": build_llava}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Any]]:
    """Folders and models by kind."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    found = {}
    for name, build in BUILDS.items():
        folder = tmp_path_factory.mktemp(name)
        found[name] = (folder, build(folder))
    return found


def four_colours(seed: int) -> Image.Image:
    """Four colours."""
    colours = numpy.random.default_rng(seed).integers(0, 256, (2, 2, 3), dtype=numpy.uint8)
    return Image.fromarray(colours).resize((16, 16), Image.Resampling.NEAREST)


def by_hand(name: str, folder: Path, model: Any, image: Image.Image) -> str:
    """What the model's own classes give, eight tokens at most."""
    import torch
    from transformers import BlipProcessor, GitProcessor, LlavaProcessor, ViTImageProcessor

    limits = {"max_new_tokens": 8, "do_sample": False, "num_beams": 1}
    with torch.no_grad():
        if name == "llava":
            processor = LlavaProcessor.from_pretrained(folder)
            inputs = processor(images=image, text="<image> describe this image the", return_tensors="pt")
            return str(processor.decode(model.generate(**inputs, **limits)[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
        processor = {"git": GitProcessor, "blip": BlipProcessor, "encoder-decoder": ViTImageProcessor}[name].from_pretrained(folder)
        pixels = processor(images=image, return_tensors="pt")["pixel_values"]
        return str(tokenizer().decode(model.generate(pixel_values=pixels, **limits)[0], skip_special_tokens=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", BUILDS)
def test_captions_are_those_of_the_models_own_classes(built: dict[str, tuple[Path, Any]], name: str) -> None:
    folder, model = built[name]
    options = CaptionerOptions(max_tokens=8, prompt="describe this image" if name == "llava" else None)
    assert faults_of(folder, options) == []
    captioner = open_captioner(folder, options, device="cpu")
    captions = [captioner(four_colours(seed)) for seed in range(5)]
    assert captions == [by_hand(name, folder, model, four_colours(seed)) for seed in range(5)]
    assert len(set(captions)) > 2 and captions == [captioner(four_colours(seed)) for seed in range(5)]


@pytest.mark.parametrize("name", ["git", "blip"])
def test_a_prompt_is_continued(built: dict[str, tuple[Path, Any]], name: str) -> None:
    captioner = open_captioner(built[name][0], CaptionerOptions(max_tokens=8, prompt="a photo of"), device="cpu")
    assert all(captioner(four_colours(seed)).startswith("a photo of") for seed in range(4))


def test_what_is_missing_is_all_named(built: dict[str, tuple[Path, Any]], tmp_path: Path) -> None:
    assert "has no config.json" in faults_of(tmp_path, CaptionerOptions())[0]
    for text, words in (
        ("[" * 100_000, "nested too deeply"),
        ('{"model_type": ["blip"]}', "model_type is ['blip']"),
        ("[]", "model_type is None"),
    ):
        (tmp_path / "config.json").write_text(text)
        assert words in faults_of(tmp_path, CaptionerOptions())[0]
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    assert [fault.partition(":")[2][:20] for fault in faults_of(tmp_path, CaptionerOptions(general=0.5))][1:4] == [
        " has no weights (*.s",
        " has no tokenizer (t",
        " has no preprocessor",
    ]
    assert "there is no such folder" in faults_of(tmp_path / "none", CaptionerOptions())[0]


def test_a_model_that_reads_no_prompt_refuses_one_before_the_first_image(built: dict[str, tuple[Path, Any]]) -> None:
    with pytest.raises(Refused, match="reads no prompt"):
        open_captioner(built["encoder-decoder"][0], CaptionerOptions(prompt="a cat"), device="cpu")
