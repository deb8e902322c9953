"""What an image carries: A1111's text as A1111 reads it, and our own Render, whatever the prompt holds."""

import io
import json
import struct
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from infer.draw.files import Adapter
from infer.draw.render import Render
from infer.output.infotext import ModelNames, infotext, quote
from infer.output.png import KEY, SIGNATURE, _chunks, _packed, encode_png, hash_pixels, label_png, read_carried, read_png
from infer.prompt.dialect import pieces_of, read_prompt
from infer.prompt.marks import escape
from registry.errors import BadFile
from tests.infer.images import NAMES, a1111_reads, resolved, square

PROMPTS = [
    "a cat",
    'a "quoted" cat, in (a red) hat:1.2!',
    "eine Katze, 猫, 🐈 und „Ünï“",
    "two\nlines",
    "Steps: 3, looks like: parameters",
    "</script><script>alert(1)</script>",
    "",
]


@pytest.mark.parametrize("prompt", PROMPTS)
def test_a1111_reads_our_text(prompt: str) -> None:
    render = resolved(
        prompt=prompt,
        negative="blurry, (low: quality)",
        seed=7,
        sampler="dpmpp_2m_karras",
        clip_skip=1,
        width=96,
        adapters=(Adapter(reference="x", weight=0.6, sha256="b" * 64), Adapter(reference="y", sha256="c" * 64)),
    )
    names = ModelNames(base="my, model: v1", adapters={"x": ("ink:v1", "123456789abc"), "y": ("hat", "abcdefabcdef")})
    found = a1111_reads(infotext(render, names, version="LoRA Loom 1"))
    tags = "<lora:inkv1:0.6> <lora:hat:1>"
    assert found == {
        "Prompt": f"{escape(prompt)} {tags}".strip(),
        "Negative prompt": r"blurry, \(low: quality\)",
        "Steps": "20",
        "Sampler": "DPM++ 2M",
        "Schedule type": "Karras",
        "CFG scale": "4",
        "Seed": "7",
        "Size-1": "96",
        "Size-2": "64",
        "Model hash": "a" * 10,
        "Model": "my, model: v1",
        "Prompt clip skip": "1",
        "RNG": "CPU",
        "Lora hashes": "inkv1: 123456789abc, hat: abcdefabcdef",
        "Version": "LoRA Loom 1",
    }


def test_what_is_not_given_is_not_in_the_text() -> None:
    found = a1111_reads(infotext(resolved(), NAMES, version="1"))
    assert found["Prompt"] == "a cat" and found["Sampler"] == "DDIM"
    assert not {"Clip skip", "Prompt clip skip", "Lora hashes", "Distilled CFG Scale"} & set(found) and found["Negative prompt"] == ""


def test_an_embedded_scale_is_the_distilled_one() -> None:
    found = a1111_reads(infotext(resolved(guidance=3.5), replace(NAMES, embedded_guidance=True), version="1"))
    assert found["CFG scale"] == "1" and found["Distilled CFG Scale"] == "3.5"


def test_quoting() -> None:
    assert [quote(text) for text in ("plain", "a, b", "a: b", 'say "a: b"', "ü,")] == [
        "plain",
        '"a, b"',
        '"a: b"',
        '"say \\"a: b\\""',
        '"ü,"',
    ]


@pytest.mark.parametrize("prompt", PROMPTS)
def test_round_trip(prompt: str, tmp_path: Path) -> None:
    render = resolved(prompt=prompt, adapters=(Adapter(reference="ink", weight=0.5, sha256="b" * 64),), versions=(("torch", "2.13.0"),))
    image = square((200, 30, 40))
    path = tmp_path / "image.png"
    path.write_bytes(encode_png(image, render, NAMES))
    carried = read_png(path)
    assert carried.render == render and carried.key == render.key() and carried.pixels_sha256 == hash_pixels(image)
    with Image.open(path) as opened:
        assert opened.convert("RGB").tobytes() == image.tobytes()
        texts: dict[str, Any] = opened.text  # type: ignore[attr-defined]
    assert texts["parameters"] == carried.parameters == infotext(render, NAMES, version=carried.parameters.rpartition("Version: ")[2])


def test_a_new_label_keeps_the_pixels_byte_for_byte() -> None:
    first = encode_png(square((1, 2, 3)), resolved(adapters=(Adapter(reference="ink", sha256="b" * 64),)), NAMES)
    second = label_png(first, resolved(adapters=(Adapter(reference="ink@best", sha256="b" * 64),)), NAMES)
    assert read_carried(second).render.adapters[0].reference == "ink@best"
    assert read_carried(second).pixels_sha256 == read_carried(first).pixels_sha256
    assert _pixels(first) == _pixels(second)
    with Image.open(io.BytesIO(second)) as opened:
        opened.verify()  # chunk checksums


def _pixels(png: bytes) -> bytes:
    return png[png.index(b"IDAT") :]


def test_an_image_of_others_is_refused_with_the_reason(tmp_path: Path) -> None:
    square((0, 0, 0)).save(tmp_path / "plain.png")
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "cut.png").write_bytes(encode_png(square((0, 9, 0)), resolved(), NAMES)[:-30])
    for name, code in (("plain.png", "no-render"), ("text.png", "not-a-png"), ("cut.png", "not-a-png"), ("none.png", "unreadable")):
        with pytest.raises(BadFile) as caught:
            read_png(tmp_path / name)
        assert caught.value.code == code


def relabelled(plain: object) -> bytes:
    """An image whose own text holds another Render."""
    png = encode_png(Image.new("RGB", (8, 8)), resolved(), NAMES)
    start = KEY.encode() + bytes(5)
    text = json.dumps({"key": "x", "pixels_sha256": "y", "render": plain}).encode()
    chunks = [(kind, start + text if data.startswith(start) else data) for kind, data in _chunks(png)]
    return SIGNATURE + b"".join(_packed(kind, data) for kind, data in chunks)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seed", "7"),
        ("adapters", [1]),
        ("adapters", [{"reference": 3}]),
        ("controls", {"a": 1}),
        ("prompt", None),
        ("versions", [1]),
        ("steps", [2]),
        ("init", 5),
        ("guidance", 10**400),
    ],
)
def test_a_render_of_other_types_is_no_render(field: str, value: object) -> None:
    whole = resolved().to_json()
    assert Render.from_json(json.loads(json.dumps(whole))) == read_carried(relabelled(whole)).render == resolved()
    with pytest.raises(BadFile, match="carries a Render that cannot be read"):
        read_carried(relabelled({**whole, field: value}))


def test_an_image_that_claims_more_pixels_than_any_is_refused() -> None:
    """PIL's own limit is 179 million; the header alone claims them."""
    png = encode_png(Image.new("RGB", (8, 8)), resolved(), NAMES)
    header = struct.pack(">II", 60_000, 60_000) + png[24:29]
    claimed = png[:16] + header + struct.pack(">I", zlib.crc32(b"IHDR" + header)) + png[33:]
    with pytest.raises(BadFile, match="is no image that can be read"):
        read_carried(claimed)


@pytest.mark.parametrize("prompt", ["a cat :0.5", "ratio 16:9", "(a) [b] \\c", "a:b:0.5", "x :-1.", "a cat"])
def test_a1111_draws_a_plain_prompt_letter_by_letter(prompt: str) -> None:
    """Its own arithmetic, as prompt_dialect=a1111 has it, finds one text of weight 1."""
    text = str(a1111_reads(infotext(resolved(prompt=prompt), NAMES, version="1"))["Prompt"])
    assert [(one.weight, [timed.text for timed in one.texts]) for one in read_prompt(text, "a1111", steps=20)] == [(1.0, [text])]
    assert [(one.text, one.weight) for one in pieces_of(text, "a1111")] == [(prompt, 1.0)]


@pytest.mark.parametrize("prompt", ["a (red:1.3) cat", "((a) b:0.5) [c]", "\\(x\\) a :0.5", "((nested:1.2) x)"])
def test_a1111_gives_a_prompt_of_comfyui_the_same_weights(prompt: str) -> None:
    text = str(a1111_reads(infotext(resolved(prompt=prompt, prompt_dialect="comfy"), NAMES, version="1"))["Prompt"])
    assert [one.weight for one in read_prompt(text, "a1111", steps=20)] == [1.0]

    def letters(dialect: str, whole: str) -> list[tuple[str, float]]:
        return [(letter, round(one.weight, 5)) for one in pieces_of(whole, dialect) for letter in one.text if letter != " "]

    assert letters("a1111", text) == letters("comfy", prompt)
