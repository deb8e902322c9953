"""A1111's text: every key is read, or reported by name and value."""

from time import process_time
from typing import Any

import pytest

from infer.metadata.a1111 import parts, read
from infer.metadata.result import ControlName, ImageMetadata, LoraName, ModelName, SecondPass
from tests.infer.images import a1111_reads
from tests.infer.metadata.images import A1111


def found(text: str) -> ImageMetadata:
    one = read(text, source="parameters")
    assert one is not None
    return one


def with_pairs(pairs: str, prompt: str = "a cat") -> ImageMetadata:
    return found(f"{prompt}\nSteps: 20, Sampler: Euler, CFG scale: 7, Seed: 1, {pairs}")


def test_every_setting_of_a_text() -> None:
    one = found(A1111)
    assert (one.tool, one.version, one.dialect, one.noise) == ("A1111", "v1.10.1", "a1111", "GPU")
    assert one.prompt == "a (red:1.2) cat, \\(sitting\\)\non a mat" and one.negative == "blurry, low\nquality"
    assert (one.seed, one.steps, one.sampler, one.schedule, one.guidance) == (965400086, 20, "DPM++ 2M", "Karras", 7.0)
    assert (one.width, one.height, one.clip_skip, one.strength) == (512, 768, 2, None)
    assert one.model == ModelName(name="v1-5-pruned", digits="6ce0161689") and one.vae == ModelName(
        name="vae-ft.safetensors", digits="735e4c3a44"
    )
    assert one.loras == (LoraName(name="ink", digits="123456789abc", weight=0.6),)
    assert one.embeddings == (ModelName(name="bad", digits="abcdefabcdef"),)
    assert one.controls == (ControlName(name="control_v11p_sd15_canny", digits="d14c016b", scale=0.8, end=0.9, module="canny"),)
    assert one.second == SecondPass(scale=2.0, upscaler="Latent", strength=0.5) and one.init is None and one.hires == {}
    assert {each.name: each.value for each in one.unread} == {"ControlNet 0 threshold a": "100", "ADetailer model": "face_yolov8n.pt"}


def test_what_our_own_text_has_and_is_not_taken_over_names_the_setting_to_give() -> None:
    """As an image has it whose own metadata were removed, by a page that keeps `parameters` alone."""
    own = with_pairs("Base dtype: int8, Text encoder dtype: nf4, Compute: int8, Version: LoRA Loom 0.1.0")
    assert [each.why for each in own.unread] == ["give base_dtype=int8", "give text_encoder_dtype=nf4", "give compute=int8"]
    other = with_pairs("Compute: int8, Version: v1.10.1")
    assert [each.why for each in other.unread] == ["there is no such setting here"]


def test_the_parts_are_those_that_a1111_reads() -> None:
    """Held against A1111's own way to read the text, reimplemented for the tests of what is written."""
    reference = a1111_reads(A1111)
    prompt, negative, pairs = parts(A1111)
    assert (prompt, negative) == (reference.pop("Prompt"), reference.pop("Negative prompt"))
    assert (reference.pop("Size-1"), reference.pop("Size-2")) == ("512", "768")
    assert pairs.pop("Size") == "512x768" and pairs == reference


@pytest.mark.parametrize(
    ("pairs", "field", "value"),
    [
        ("RNG: CPU", "noise", "CPU"),
        ("Emphasis: No norm", "dialect", "a1111_no_norm"),
        ("Emphasis: None", "dialect", "plain"),
        ("Version: f2.0.1v1.10.1-previous-659", "tool", "Forge"),
        ("Version: ComfyUI", "tool", "ComfyUI"),
        ("Distilled CFG Scale: 3.5", "distilled", 3.5),
        ("Denoising strength: 0.4", "init", "an image that was redrawn (img2img)"),
        ('Hashes: {"model": "6ce0161689", "lora:ink": "123456789a"}, Tiling: True', "model", ModelName(digits="6ce0161689")),
        ('Hashes: "{\\"model\\": \\"6ce0161689\\", \\"lora:ink\\": \\"123456789a\\"}"', "model", ModelName(digits="6ce0161689")),
    ],
)
def test_single_keys(pairs: str, field: str, value: object) -> None:
    assert getattr(with_pairs(pairs), field) == value


def test_tags_of_all_spellings() -> None:
    one = with_pairs("Size: 64x64", "a <lora:a:0.5:1><lyco:b:te=0.1:unet=2> cat <lora:c> <hypernet:d:1> <lora:e:x>")
    assert one.prompt == "a  cat" and one.loras == (
        LoraName(name="a", weight=1.0, text_weight=0.5),
        LoraName(name="b", weight=2.0, text_weight=0.1),
        LoraName(name="c"),
    )
    assert [each.value for each in one.unread] == ["<hypernet:d:1>"]
    assert [str(each) for each in one.unread_loras] == ["prompt: <lora:e:x> (has the weight 'x'. Expected a number such as 0.8)"]


def test_values_of_other_types_are_reported() -> None:
    one = with_pairs("Size: big, Clip skip: two, Model hash: xyz, Model: m, Lora hashes: what, Variation seed: 7, Seed resize from: 64x64")
    assert {each.name: each.value for each in one.unread} == {
        "Size": "big",
        "Clip skip": "two",
        "Model hash": "xyz",
        "Lora hashes": "what",
        "Variation seed": "7",
        "Seed resize from": "64x64",
    }


def test_why_a_value_is_not_read() -> None:
    one = found(f"a cat\nSteps: 20, Sampler: Euler, CFG scale: 7,5, Seed: {'9' * 30}, Size: 9999999x64, Version: v1, x")
    assert one.guidance == 7.0 and [str(each) for each in one.unread] == [
        "CFG scale: 7,5 (read as 7: a comma ends a value)",
        f"Seed: {'9' * 30} (it has more than 20 digits)",
        "Size: 9999999x64 (a side has more than 6 digits)",
    ]


def test_parts_of_the_steps() -> None:
    ranges = 'Lora ranges: "a: 0..0.5 of the steps, a: 0.5..1 of the steps, b: 1..0 of the steps, c: 0.2..0.8 of the steps"'
    one = with_pairs(ranges, "<lora:a:1><lora:b:1><lora:a:0.5>")
    assert [(each.name, each.start, each.end) for each in one.loras] == [("a", 0.0, 0.5), ("b", 0.0, 1.0), ("a", 0.5, 1.0)]
    assert [each.value for each in one.unread] == ["b: 1..0 of the steps", "c: 1"]


@pytest.mark.parametrize("value", ["x: " + "." * 500_000, ", ".join(f"ab{number}:1,;" for number in range(40_000))])
def test_a_long_text_takes_no_longer(value: str) -> None:
    """Nothing of a stranger's text is read in quadratic time: that would be minutes."""
    began = process_time()
    with_pairs(f"Lora ranges: {value}")
    assert process_time() - began < 10


@pytest.mark.parametrize("text", ["", "a cat", "a cat, 4k: yes", "Steps: 20, Sampler: Euler"])
def test_other_texts_are_none(text: str) -> None:
    assert read(text, source="parameters") is None


def test_a_second_pass_with_settings_of_its_own() -> None:
    pairs = "Denoising strength: 0.45, Hires resize: 0x1024, Hires steps: 12, Hires upscaler: 4x-UltraSharp, Hires CFG Scale: 5"
    one = with_pairs(f"{pairs}, Hires sampler: DPM++ 2M, Hires schedule type: Use same scheduler, Hires prompt: sharp")
    sampled: dict[str, Any] = {"sampler": "DPM++ 2M", "guidance": 5.0, "steps": 12, "strength": 0.45}
    assert one.second == SecondPass(width=0, height=1024, upscaler="4x-UltraSharp", **sampled)
    assert [(each.name, each.value) for each in one.unread] == [("Hires prompt", "sharp")]
    assert with_pairs("Hires upscaler: Latent").second is None and with_pairs("Hires resize: big, RNG: CPU").unread[0].value == "big"
