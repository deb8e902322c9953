"""The reader of files: where each program keeps its text, one clear error, and no input that ends in anything else."""

import contextlib
import json
import random
import struct
import time
import zlib
from pathlib import Path

import pytest
from PIL import Image

from infer.metadata.reader import metadata_of, read_metadata
from registry.errors import BadFile, LoomError
from tests.infer.metadata.images import A1111, GRAPH, comfy_png, png
from tests.infer.metadata.test_comfy import workflow


def exif_image(path: Path, tag: int, value: bytes | str, *, inner: bool = False) -> Path:
    exif = Image.Exif()
    (exif.get_ifd(0x8769) if inner else exif)[tag] = value
    Image.new("RGB", (8, 8)).save(path, exif=exif)
    return path


@pytest.mark.parametrize("suffix", ["jpg", "webp"])
@pytest.mark.parametrize("code", [("UNICODE\0", "utf-16-be"), ("UNICODE\0", "utf-16-le"), ("ASCII\0\0\0", "ascii"), ("\0" * 8, "utf-8")])
def test_user_comments(tmp_path: Path, suffix: str, code: tuple[str, str]) -> None:
    path = exif_image(tmp_path / f"image.{suffix}", 0x9286, code[0].encode() + A1111.encode(code[1]), inner=True)
    assert read_metadata(path).seed == 965400086


def test_comfyuis_webp_has_its_graph_in_the_model_tag(tmp_path: Path) -> None:
    path = exif_image(tmp_path / "image.webp", 0x0110, "prompt:" + json.dumps(GRAPH))
    assert (read_metadata(path).tool, read_metadata(path).seed) == ("ComfyUI", 77)


def test_the_graph_that_was_drawn_comes_before_what_a_saver_says(tmp_path: Path) -> None:
    path = png(tmp_path / "a.png", parameters=A1111, prompt=json.dumps(GRAPH), workflow=json.dumps(workflow()))
    assert read_metadata(path).source == "prompt"
    assert read_metadata(png(path, parameters=A1111, prompt="no graph", workflow=json.dumps(workflow()))).source == "workflow"
    assert read_metadata(png(path, parameters=A1111, prompt="{}")).source == "parameters"


def test_an_image_that_says_nothing_is_refused_with_what_it_has(tmp_path: Path) -> None:
    for texts, said in (({}, "It has no text at all"), ({"Title": "x\x1b[31m"}, "It has Title, of which none")):
        with pytest.raises(BadFile, match=said) as caught:
            read_metadata(png(tmp_path / "a.png", **texts))
        assert caught.value.code == "no-metadata" and "\x1b" not in str(caught.value)
    (tmp_path / "text.png").write_text("no image")
    for name in ("text.png", "none.png", "."):
        with pytest.raises(LoomError):
            read_metadata(tmp_path / name)


def test_a_compression_bomb_of_a_text_is_refused(tmp_path: Path) -> None:
    whole = png(tmp_path / "a.png").read_bytes()
    data = b"parameters\0\0" + zlib.compress(bytes(20 << 20))
    chunk = struct.pack(">I", len(data)) + b"zTXt" + data + struct.pack(">I", zlib.crc32(b"zTXt" + data))
    (tmp_path / "bomb.png").write_bytes(whole[:33] + chunk + whole[33:])
    with pytest.raises(BadFile):
        read_metadata(tmp_path / "bomb.png")


HOSTILE = [
    "[" * 100_000,
    '{"1":' * 50_000,
    json.dumps({"3": {"class_type": "KSampler", "inputs": {"steps": ["3", 0], "sampler_name": ["3", 0], "positive": ["3", 0]}}}),
    json.dumps({str(n): {"class_type": "Reroute", "inputs": {"a": [str(1 - n), 0]}} for n in range(2)}),
    json.dumps(GRAPH).replace('"4", 0', '"11", 0').replace('"12", 0', '"12", 0'),
    json.dumps(GRAPH | {"21": {"class_type": "StringConcatenate", "inputs": {c: ["21", 0] for c in "abcdefgh"}}}),
    json.dumps(GRAPH | {str(n): {"class_type": "join", "inputs": {"a": [str(n + 1), 0], "b": [str(n + 1), 0]}} for n in range(21, 90)}),
    json.dumps(GRAPH).replace("77", "1" * 4000).replace("0.7", "NaN").replace("20", "-Infinity"),
    json.dumps({"nodes": [{"id": [], "type": "KSampler"}, {"id": 1, "type": "KSampler", "widgets_values": [{}] * 9, "inputs": 5}]}),
    "a: " * 60_000 + "\nSteps: 1, Sampler: x, CFG scale: y",
    ("k" * 90 + ' : "') * 3000 + "\n" + 'ab: "' * 60_000,
    "<lora:" * 60_000 + "\nSteps: 1, Sampler: x, CFG scale: 1e999, Seed: " + "9" * 5000,
    "x\nSteps: 1, Sampler: \u202e\x00, Size: 99999999x1, Lora hashes: " + '":::,,,", TI hashes: "a: zz"',
    '{"sui_image_params": []}',
    " " * 500_000 + "Steps",
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_texts_are_read_or_not_and_quickly(text: str) -> None:
    began = time.process_time()
    for name in ("parameters", "prompt", "workflow", "UserComment", "loraloom", "Comment", "invokeai_metadata", "sd-metadata"):
        found = metadata_of({name: text})
        assert found is None or json.dumps(found.to_json(), allow_nan=False)
    assert time.process_time() - began < 5


def test_garbled_and_cut_images_end_in_one_error_or_an_answer(tmp_path: Path) -> None:
    """A fuzz: bytes changed, chunks cut, texts garbled; LoomError is the one thing that may be raised."""
    draw = random.Random(7)
    files = [png(tmp_path / "a.png", parameters=A1111).read_bytes(), comfy_png(tmp_path / "b.png", GRAPH).read_bytes()]
    files.append(exif_image(tmp_path / "c.webp", 0x9286, b"UNICODE\0" + A1111.encode("utf-16-be"), inner=True).read_bytes())
    files.append(exif_image(tmp_path / "d.jpg", 0x9286, b"UNICODE\0" + A1111.encode("utf-16-be"), inner=True).read_bytes())
    answered = 0
    for number in range(240):
        data = bytearray(files[number % len(files)])
        for _ in range(draw.randint(1, 8)):
            data[draw.randrange(len(data))] = draw.randrange(256)
        (tmp_path / "fuzz").write_bytes(bytes(data[: draw.randint(8, len(data))] if number % 3 else data))
        with contextlib.suppress(LoomError):
            read_metadata(tmp_path / "fuzz")
            answered += 1
    for _ in range(400):  # the texts alone, which no checksum protects
        text = list(draw.choice([A1111, json.dumps(GRAPH), json.dumps(workflow())]))
        for _ in range(draw.randint(1, 40)):
            text[draw.randrange(len(text))] = draw.choice('{}[]",:\\ 0a\x00\ud800')
        made = "".join(text)
        answered += metadata_of({"parameters": made, "prompt": made, "workflow": made}) is not None
    assert answered > 50
