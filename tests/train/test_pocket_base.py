"""The embedded base as it lies in registry/pocket, the two sets beside it, and the promises of the recipe that made them."""

import json
import random
from itertools import product
from pathlib import Path

import pytest

from train.pocket.captions import COLOURS, View, caption
from train.pocket.nouns import NOUNS, UNSEEN, parse
from train.pocket.prompts import PLAIN, RECOMBINED
from train.pocket.sets import BLOB, BLOB_HELDOUT, INK, INK_HELDOUT
from train.pocket.sources import HELD, STYLES, TRAINING

ROOT = Path(__file__).resolve().parents[2]
POCKET = ROOT / "registry" / "pocket"
CLIP = ROOT / "registry" / "clip_bpe"


def header(path: Path) -> dict[str, dict[str, object]]:
    with path.open("rb") as file:
        return {k: v for k, v in json.loads(file.read(int.from_bytes(file.read(8), "little"))).items() if k != "__metadata__"}


def test_weights_and_tokenizer_stay_under_25_mb() -> None:
    parts = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
    size = sum(p.stat().st_size for part in parts for p in (POCKET / part).iterdir())
    assert 5e6 < size <= 25e6


def test_every_weight_is_float16() -> None:
    files = sorted(POCKET.glob("*/*.safetensors"))
    assert [f.parent.name for f in files] == ["text_encoder", "unet", "vae"]
    assert {t["dtype"] for f in files for t in header(f).values()} == {"F16"}


def test_text_encoder_says_float32_over_its_float16_bytes() -> None:
    assert json.loads((POCKET / "text_encoder" / "config.json").read_text())["dtype"] == "float32"


@pytest.mark.parametrize("text", ["a cat", "日本の猫 🍎", "ß¿Ω☃‍", "x" * 300, "", "qzx ;-) [b] (c:1.2)", "\x00\n\t"])
def test_any_text_becomes_32_tokens(text: str) -> None:
    import transformers

    tokenizer = transformers.CLIPTokenizer.from_pretrained(POCKET / "tokenizer")
    ids = tokenizer(text, padding="max_length", truncation=True, max_length=tokenizer.model_max_length).input_ids
    assert tokenizer.model_max_length == 32 and len(ids) == 32
    assert all(0 <= i < len(tokenizer) for i in ids)
    assert ids[0] == tokenizer.bos_token_id and tokenizer.eos_token_id in ids


def test_known_words_split_as_in_clip() -> None:
    import transformers

    actual, clip = (transformers.CLIPTokenizer.from_pretrained(p) for p in (POCKET / "tokenizer", CLIP))
    assert len(clip) == 49408
    assert clip("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]
    for prompt in PLAIN:
        assert actual.tokenize(prompt) == clip.tokenize(prompt)


@pytest.mark.slow
def test_plain_diffusers_draws_from_the_folder() -> None:
    import numpy as np
    import torch
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(POCKET)
    pipeline.set_progress_bar_config(disable=True)
    prompts = ["a red apple on a white background", "a tree on a white background"]
    seeds = [torch.Generator().manual_seed(0) for _ in prompts]
    apple, tree = pipeline(prompts, num_inference_steps=8, guidance_scale=4.0, generator=seeds, output_type="np").images
    assert apple.shape == (64, 64, 3) and np.isfinite(apple).all()
    centre = (slice(20, 44), slice(20, 44))
    assert apple[centre][..., 0].mean() > apple[centre][..., 1].mean() + 0.2  # red
    assert tree[centre][..., 1].mean() > tree[centre][..., 0].mean()  # green
    assert apple[:4].mean() > 0.85  # white ground


@pytest.mark.parametrize(
    ("folder", "count"), [("ink", len(INK)), ("ink/heldout", len(INK_HELDOUT)), ("blob", len(BLOB)), ("blob/heldout", len(BLOB_HELDOUT))]
)
def test_sets_are_pairs_of_128_px(folder: str, count: int) -> None:
    from PIL import Image

    images = sorted((ROOT / "datasets" / folder).glob("*.png"))
    assert len(images) == count
    for image in images:
        with Image.open(image) as opened:
            assert opened.size == (128, 128) and opened.mode == "RGB"
        assert image.with_suffix(".txt").read_text(encoding="utf-8").strip()


def test_sets_have_their_promised_sizes() -> None:
    assert (len(INK), len(INK_HELDOUT), len(BLOB), len(BLOB_HELDOUT)) == (40, 16, 24, 8)
    assert not set(INK) & set(INK_HELDOUT) and not set(BLOB) & set(BLOB_HELDOUT)
    assert {*INK, *INK_HELDOUT} <= set(NOUNS)  # concepts the base knows in other styles


def test_held_out_sets_are_no_training_source() -> None:
    assert {p.name for p in HELD} == {"@iconify-json/fluent-emoji-high-contrast", "@iconify-json/noto-v1"}
    assert not {p.name for p in HELD} & {p.name for p in TRAINING}
    assert not {"ink", "blob"} & set(STYLES)
    assert all(p.licence in ("MIT", "Apache-2.0", "CC-BY-4.0") for p in TRAINING)


def test_there_are_300_nouns_and_5_styles() -> None:
    assert len(NOUNS) >= 300 and len(STYLES) >= 5 and len(UNSEEN) >= 16


def test_a_noun_table_with_a_repeated_word_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'cat' stands for 'cat face' and for 'cat'"):
        parse("cat face = cat, kitten\ncat")


def test_captions_never_name_an_unseen_pair() -> None:
    rng = random.Random(0)
    for (noun, colour), style in product(UNSEEN, STYLES):
        for _ in range(20):
            text = caption(View(style, noun, colour=colour), (), rng)
            assert not any(f"{colour} {word}" in text for word in NOUNS[noun])
        with pytest.raises(ValueError, match="held out of the recolours"):
            caption(View(style, noun, colour=colour, recoloured=True), (), rng)


def test_recombinations_asked_for_are_unseen_pairs() -> None:
    words = {(word, colour) for noun, colour in UNSEEN for word in NOUNS[noun]}
    for prompt in RECOMBINED:
        _, colour, word = prompt.split(" ", 2)
        assert colour in COLOURS and (word, colour) in words
