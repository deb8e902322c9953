"""The JSON of SwarmUI, Fooocus, InvokeAI and NovelAI, as each of them documents it; what is hidden in the pixels."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy
import pytest
from PIL import Image

from infer.metadata.invoke import compel_pieces
from infer.metadata.novelai import novelai_pieces
from infer.metadata.reader import metadata_of, read_metadata
from infer.metadata.result import ControlName, ImageMetadata, LoraName, ModelName
from infer.metadata.weighted_text import Weighted, spelt
from infer.prompt.attention import a1111_pieces, comfy_pieces
from tests.infer.metadata.images import A1111, png


def found(**texts: Any) -> ImageMetadata:
    one = metadata_of({name: text if isinstance(text, str) else json.dumps(text) for name, text in texts.items()})
    assert one is not None
    return one


def unread(one: ImageMetadata) -> dict[str, str]:
    return {each.name: each.value for each in one.unread}


def test_swarm() -> None:
    one = found(
        parameters={
            "sui_image_params": {
                "prompt": "a (red:1.2) cat <lora:hat:0.5:0.25> <segment:face>",
                "negativeprompt": "",
                "model": "OfficialStableDiffusion/sd_xl_base_1.0",
                "seed": 1,
                "steps": "20",
                "cfgscale": 7.0,
                "aspectratio": "1:1",
                "width": 1024,
                "height": 1024,
                "sampler": "dpmpp_2m",
                "scheduler": "karras",
                "loras": "styles/ink,soft",
                "loraweights": ["0.8", "1"],
                "automaticvae": True,
                "clipstopatlayer": "-2",
                "variationseed": 9,
                "swarm_version": "0.9.3.1",
            },
            "sui_extra_data": {"date": "2024-11-13"},
            "sui_models": [
                {"name": "OfficialStableDiffusion/sd_xl_base_1.0.safetensors", "param": "model", "hash": "0xD7A9105A900FD52748F20725"},
                {"name": "styles/ink.safetensors", "param": "loras", "hash": "0x0123456789ab"},
            ],
        }
    )
    assert (one.tool, one.version, one.dialect, one.prompt, one.negative) == ("SwarmUI", "0.9.3.1", "comfy", "a (red:1.2) cat", None)
    assert (one.seed, one.steps, one.guidance, one.width, one.height, one.clip_skip) == (1, 20, 7.0, 1024, 1024, 2)
    assert one.model == ModelName(name="OfficialStableDiffusion/sd_xl_base_1.0", digits="d7a9105a900fd52748f20725")
    assert one.loras == (
        LoraName(name="styles/ink", digits="0123456789ab", weight=0.8),
        LoraName(name="soft"),
        LoraName(name="hat", weight=0.5, text_weight=0.25),
    )
    assert unread(one) == {"prompt": "<segment:face>", "variationseed": "9"}


FOOOCUS = {
    "adm_guidance": "(1.5, 0.8, 0.3)",
    "base_model": "juggernautXL_v8Rundiffusion",
    "base_model_hash": "aeb7e9e689",
    "full_prompt": ["cinematic a cat, 35mm", "extra"],
    "full_negative_prompt": ["anime"],
    "guidance_scale": 4,
    "lora_combined_1": "sd_xl_offset_example-lora_1.0 : 0.1",
    "loras": [["sd_xl_offset_example-lora_1.0", 0.1, "4852686128"]],
    "metadata_scheme": "fooocus",
    "negative_prompt": "",
    "performance": "Speed",
    "prompt": "a cat",
    "refiner_model": "None",
    "resolution": "(896, 1152)",
    "sampler": "dpmpp_2m_sde_gpu",
    "scheduler": "karras",
    "seed": "2155412",
    "sharpness": 2,
    "steps": 30,
    "styles": "['Fooocus V2']",
    "vae": "Default (model)",
    "version": "Fooocus v2.5.5",
}


def test_fooocus_own_scheme() -> None:
    one = found(parameters=FOOOCUS, fooocus_scheme="fooocus")
    assert (one.tool, one.typed, one.prompt, one.negative) == ("Fooocus", "a cat", "cinematic a cat, 35mm, extra", "anime")
    assert (one.seed, one.steps, one.sampler, one.schedule, one.width, one.height) == (2155412, 30, "dpmpp_2m_sde_gpu", "karras", 896, 1152)
    assert one.model == ModelName(name="juggernautXL_v8Rundiffusion", digits="aeb7e9e689") and one.vae is None
    assert one.loras == (LoraName(name="sd_xl_offset_example-lora_1.0", digits="4852686128", weight=0.1),)
    assert unread(one).keys() == {"adm_guidance", "sharpness", "full_prompt"}


def test_fooocus_a1111_scheme() -> None:
    pairs = (
        "Steps: 30, Sampler: DPM++ 2M SDE Karras, Seed: 7, Size: 896x1152, CFG scale: 4, Sharpness: 2",
        'ADM Guidance: "(1.5, 0.8, 0.3)", Model: jugger, Model hash: aeb7e9e689, Performance: Speed, Scheduler: karras',
        'VAE: Default (model), Raw prompt: a cat, Raw negative prompt: , Lora hashes: "ink: 4852686128", Lora weights: "ink: 0.1"',
        "Version: Fooocus v2.5.5",
    )
    one = found(parameters=f"cinematic a cat\nNegative prompt: anime\n{', '.join(pairs)}")
    assert (one.tool, one.sampler, one.schedule, one.noise, one.vae) == ("Fooocus", "DPM++ 2M SDE Karras", "karras", "CPU", None)
    assert one.loras == (LoraName(name="ink", digits="4852686128", weight=0.1),)
    assert unread(one) == {"Sharpness": "2", "ADM Guidance": "(1.5, 0.8, 0.3)"}


INVOKE: dict[str, Any] = {
    "app_version": "5.4.2",
    "generation_mode": "sdxl_txt2img",
    "positive_prompt": "a (red)1.2 cat++ \\(sitting\\)",
    "negative_prompt": "low quality",
    "width": 768,
    "height": 432,
    "seed": 356120443,
    "rand_device": "cpu",
    "cfg_scale": 7.5,
    "cfg_rescale_multiplier": 0.5,
    "steps": 50,
    "scheduler": "dpmpp_2m_sde_k",
    "clip_skip": 1,
    "model": {"key": "x", "hash": "blake3:0123456789abcdef", "name": "amixx", "base": "sd-1", "type": "main"},
    "vae": {"model_name": "sd-vae-ft-mse", "base_model": "sd-1"},
    "loras": [{"model": {"name": "ink", "hash": "blake3:fedcba9876543210"}, "weight": 0.6}, {"weight": 1}],
    "controlnets": [
        {
            "control_model": {"name": "canny"},
            "control_weight": 0.8,
            "begin_step_percent": 0,
            "end_step_percent": 0.9,
            "image": {"image_name": "e.png"},
        }
    ],
    "hrf_enabled": True,
    "hrf_strength": 0.4,
    "ipAdapters": [{"weight": 1}],
}


def test_invoke() -> None:
    one = found(invokeai_metadata=INVOKE)
    assert (one.tool, one.prompt, one.dialect) == ("InvokeAI", "a (red:1.2) (cat:1.21) \\(sitting\\)", "comfy")
    assert (one.sampler, one.rescale, one.clip_skip, one.noise) == ("dpmpp_2m_sde_k", 0.5, 2, "CPU")
    assert one.model == ModelName(name="amixx", digits="0123456789abcdef") and one.vae == ModelName(name="sd-vae-ft-mse")
    assert one.loras == (LoraName(name="ink", digits="fedcba9876543210", weight=0.6),)
    assert one.controls == (ControlName(name="canny", scale=0.8, end=0.9, image="e.png"),)
    assert one.hires == {"hrf_enabled": "", "hrf_strength": "0.4"} and {"loras", "ipAdapters"} <= unread(one).keys()


def test_older_invoke() -> None:
    image = {"prompt": [{"prompt": "a cat [blurry]", "weight": 1}], "steps": 20, "cfg_scale": 7, "sampler": "k_euler_a", "seed": 5}
    one = found(**{"sd-metadata": {"model_weights": "sd15", "model_hash": "ab" * 32, "image": image | {"width": 512, "height": 640}}})
    assert (one.prompt, one.negative, one.seed, one.sampler, one.width) == ("a cat", "blurry", 5, "k_euler_a", 512)
    assert one.model == ModelName(name="sd15", digits="ab" * 32)


NOVELAI = {
    "prompt": "1girl, {{red}} [hat], 1.5::blue eyes::, (smile)",
    "steps": 28,
    "height": 1216,
    "width": 832,
    "scale": 5.0,
    "uncond_scale": 1.0,
    "cfg_rescale": 0.0,
    "seed": 42,
    "n_samples": 1,
    "noise_schedule": "karras",
    "sampler": "k_euler_ancestral",
    "sm": False,
    "sm_dyn": False,
    "dynamic_thresholding": True,
    "uc": "lowres, {bad}",
    "v4_prompt": {
        "caption": {"base_caption": "1girl, {{red}} [hat], 1.5::blue eyes::, (smile)", "char_captions": [{"char_caption": "boy"}]}
    },
}


def test_novelai() -> None:
    one = found(Software="NovelAI", Source="NovelAI Diffusion V3 C1E1DE52", Description=NOVELAI["prompt"], Comment=NOVELAI)
    assert one.prompt == r"1girl, (red:1.1025) (hat:0.952381), (blue eyes:1.5), \(smile\)" and one.negative == "lowres, (bad:1.05)"
    assert (one.seed, one.steps, one.sampler, one.schedule, one.guidance, one.rescale) == (42, 28, "k_euler_ancestral", "karras", 5.0, None)
    assert one.model == ModelName(name="NovelAI Diffusion V3", digits="c1e1de52") and one.noise == "GPU"
    assert unread(one).keys() == {"dynamic_thresholding", "v4_prompt char_captions"}


def hide(path: Path, text: str, *, kind: str = "stealth_pngcomp") -> Path:
    """An image with a text in its pixels, as NovelAI hides it."""
    data = gzip.compress(text.encode()) if kind.endswith("comp") else text.encode()
    bits = numpy.unpackbits(numpy.frombuffer(kind.encode() + (len(data) * 8).to_bytes(4, "big") + data, dtype=numpy.uint8))
    bands = 3 if "rgb" in kind else 4
    pixels = numpy.full((96, 96, bands), 254, dtype=numpy.uint8)
    flat = numpy.ascontiguousarray((pixels if bands == 3 else pixels[..., 3:]).transpose(1, 0, 2))
    flat.reshape(-1)[: len(bits)] |= bits
    (pixels if bands == 3 else pixels[..., 3:])[...] = flat.transpose(1, 0, 2)
    Image.fromarray(pixels).save(path)
    return path


@pytest.mark.parametrize("kind", ["stealth_pngcomp", "stealth_pnginfo", "stealth_rgbcomp", "stealth_rgbinfo"])
def test_what_is_hidden_in_the_pixels(tmp_path: Path, kind: str) -> None:
    whole = json.dumps({"Software": "NovelAI", "Source": "x C1E1DE52", "Comment": json.dumps(NOVELAI)})
    one = read_metadata(hide(tmp_path / "a.png", whole, kind=kind))
    assert (one.tool, one.seed, one.source) == ("NovelAI", 42, "Comment")
    assert read_metadata(hide(tmp_path / "b.png", A1111, kind=kind)).seed == 965400086


def test_damaged_hidden_texts_are_none(tmp_path: Path) -> None:
    from infer.metadata.stealth import hidden_text

    with Image.open(hide(tmp_path / "a.png", "x" * 50)) as image:
        assert hidden_text(image) == "x" * 50
        assert hidden_text(image.crop((0, 0, 2, 96))) is None  # its end is cut off
        assert hidden_text(image.crop((0, 0, 1, 1))) is None and hidden_text(Image.new("RGBA", (8, 8))) is None


def letters(pieces: Any) -> dict[str, float]:
    """Letter -> the weight it has."""
    return {letter: one.weight for one in pieces for letter in one.text if not letter.isspace()}


@pytest.mark.parametrize("text", ["{a}", "a {b [c] d} e", "{{{a", "a}} b", "1.5::a::b", "2::a {b}::c", "[[a]] (b) \\(c", "-1::a::", "::a"])
def test_novelais_weights_survive_a1111s_grammar(text: str) -> None:
    pieces = novelai_pieces(text)
    assert letters(a1111_pieces(spelt(pieces, square=True))) == pytest.approx(letters(pieces), abs=1e-6)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a cd++", {"a": 1.0, "c": 1.21, "d": 1.21}),
        ("(a (b)1.5 c)2", {"a": 2.0, "b": 3.0, "c": 2.0}),
        ("(a b)-- c", {"a": 0.81, "b": 0.81, "c": 1.0}),
        ("a-b, c-", {"a": 1.0, "-": 1.0, "b": 1.0, ",": 1.0, "c": 0.9}),
        ("(a) \\(x\\)", {"a": 1.0, "(": 1.0, "x": 1.0, ")": 1.0}),
        ("a) b (", {"a": 1.0, ")": 1.0, "b": 1.0}),
    ],
)
def test_compels_weights_in_comfyuis_grammar(text: str, expected: dict[str, float]) -> None:
    assert letters(comfy_pieces(spelt(compel_pieces(text)))) == pytest.approx(expected, abs=1e-6)


def test_a_weight_stands_around_words_and_not_blanks() -> None:
    assert spelt([Weighted("a "), Weighted(" b ", 1.2), Weighted(" ", 3.0), Weighted("c")]) == "a  (b:1.2)  c"


def test_a_prompt_of_any_other_program() -> None:
    one = found(UserComment={"prompt": "a cat", "negativePrompt": "x", "seed": 3, "steps": 8, "odd": [1]})
    assert (one.tool, one.prompt, one.negative, one.seed, one.steps, unread(one)) == ("another program", "a cat", "x", 3, 8, {"odd": "[1]"})


def test_every_program_is_bounded_by_type(tmp_path: Path) -> None:
    """Each value replaced by one of another type: read, or reported, and never a fault."""
    wrong: list[Any] = [None, True, -1, 1e308, "x", [], [[]], {}, {"a": [1]}, ["y", None]]
    for name, whole in (("parameters", FOOOCUS), ("Comment", NOVELAI)):
        for key in whole:
            for value in wrong:
                one = metadata_of({name: json.dumps({**whole, key: value})})
                assert one is None or json.dumps(one.to_json(), allow_nan=False)
    assert read_metadata(png(tmp_path / "a.png", parameters=json.dumps(FOOOCUS))).seed == 2155412
