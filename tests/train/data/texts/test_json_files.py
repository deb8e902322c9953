"""Captions in JSON files, several captions an image, and files of a caption a line."""

import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from registry.errors import Faults
from train.config import DataConfig
from train.data.dataset import ImageSet, read_set


def folder(tmp_path: Path, *names: str, **files: str) -> Path:
    """Images of these names, each another gray, and files of these texts: cat__json is cat.json."""
    for number, name in enumerate(names):
        Image.new("RGB", (8, 8), (40 * number, 9, 9)).save(tmp_path / name)
    for name, text in files.items():
        (tmp_path / name.replace("__", ".")).write_text(text)
    return tmp_path


def read(place: Path, **settings: Any) -> ImageSet:
    return read_set(DataConfig(path=str(place), **settings))


def captions(place: Path, **settings: Any) -> dict[str, tuple[str, ...]]:
    return {sample.name: sample.captions for sample in read(place, **settings).samples}


def faults(place: Path, **settings: Any) -> str:
    with pytest.raises(Faults) as caught:
        read(place, **settings)
    return str(caught.value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"caption": "a cat"}, ("a cat",)),
        ({"text": "a cat", "seed": 5}, ("a cat",)),
        ({"prompt": ["a cat", "a tabby"]}, ("a cat", "a tabby")),
        ({"caption": "a cat", "tags": "tabby, mat"}, ("a cat, tabby, mat",)),
        ({"caption": "", "tags": ["tabby", "mat"]}, ("tabby, mat",)),
        ({"caption": ["one", "two"], "tags": "mat"}, ("one, mat", "two, mat")),
    ],
)
def test_a_json_file_beside_an_image_has_its_captions(tmp_path: Path, value: Any, expected: tuple[str, ...]) -> None:
    assert captions(folder(tmp_path, "cat.png", cat__json=json.dumps(value))) == {"cat.png": expected}


def test_a_json_file_is_read_where_there_is_no_text_file(tmp_path: Path) -> None:
    place = folder(tmp_path, "a.png", "b.png", a__txt="a text", a__json='{"caption": "other"}', b__png__json='{"caption": "b"}')
    found = read(place)
    assert [sample.caption for sample in found.samples] == ["a text", "b"]
    assert "neither images nor captions, ignored: a.json" in found.notes


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{'caption': 1}", "cat.json: is not JSON"),
        ('{"caption": 5}', "cat.json: 'caption' is 5, expected text or a list of texts"),
        ('{"text": "a", "prompt": "b"}', "cat.json: has the columns text and prompt; choose one with data.caption_column"),
        ('{"description": "a cat"}', "cat.json: has no column text, caption or prompt, but description, which may hold captions"),
        ('{"caption": [""]}', "cat.png: its caption is empty"),
        ('{"caption": ["a", " "]}', "cat.png: its caption is empty"),
    ],
)
def test_json_that_gives_no_caption_is_a_fault_with_its_name(tmp_path: Path, text: str, words: str) -> None:
    assert words in faults(folder(tmp_path, "cat.png", cat__json=text))


def test_the_field_is_chosen_by_name(tmp_path: Path) -> None:
    place = folder(tmp_path, "cat.png", cat__json='{"description": "a cat", "text": "other"}')
    assert captions(place, caption_column="description") == {"cat.png": ("a cat",)}


def test_one_json_file_of_two_images_is_a_fault(tmp_path: Path) -> None:
    assert "cat: several images share the caption file cat.json" in faults(
        folder(tmp_path, "cat.png", "cat.jpg", cat__json='{"text": "a"}')
    )


def test_kohyas_meta_file_gives_captions_by_name(tmp_path: Path) -> None:
    meta = {"/old/place/a": {"caption": "a cat", "tags": "tabby"}, "C:\\sets\\b.png": {"tags": "1girl, hat"}}
    found = read(folder(tmp_path, "a.png", "b.png", meta_cap__json=json.dumps(meta)))
    assert [sample.caption for sample in found.samples] == ["a cat, tabby", "1girl, hat"]
    assert "captions are read from meta_cap.json, by the images' names" in found.notes


@pytest.mark.parametrize(
    ("meta", "words"),
    [
        ({"a": {"caption": "x"}}, "b.png: has no caption in meta.json"),
        ({"a": {"caption": "x"}, "b": {"caption": "x"}, "c": {"caption": "x"}}, "meta.json: names c, which does not exist"),
        ({"a": {"caption": "x"}, "a.png": {"caption": "x"}, "b": {"tags": "x"}}, "meta.json: names a.png a second time"),
        ({"a": {"caption": 5}, "b": {"tags": "x"}}, "meta.json, a: 'caption' is 5"),
    ],
)
def test_a_meta_file_names_every_image_once(tmp_path: Path, meta: Any, words: str) -> None:
    assert words in faults(folder(tmp_path, "a.png", "b.png", meta__json=json.dumps(meta)))


def test_one_meta_file_is_kept(tmp_path: Path) -> None:
    meta = json.dumps({"a": {"caption": "x"}})
    assert "meta_a.json, meta_b.json: each has captions of the images; keep one" in faults(
        folder(tmp_path, "a.png", meta_a__json=meta, meta_b__json=meta)
    )


def test_a_caption_a_line_where_it_is_set(tmp_path: Path) -> None:
    place = folder(tmp_path, "cat.png", cat__txt="a cat\n\n  a tabby \n")
    assert captions(place, captions="lines") == {"cat.png": ("a cat", "a tabby")}
    assert captions(place) == {"cat.png": ("a cat\n\n  a tabby \n",)}
    (place / "cat.txt").write_text("\n")
    assert "cat.png: its caption is empty" in faults(place, captions="lines")


def test_tables_have_lists_of_captions(tmp_path: Path) -> None:
    place = folder(
        tmp_path, "a.png", "b.png", metadata__jsonl='{"file_name": "a.png", "text": ["x", "y"]}\n{"file_name": "b.png", "text": "z"}'
    )
    assert captions(place) == {"a.png": ("x", "y"), "b.png": ("z",)}
    (place / "metadata.jsonl").write_text('{"file_name": "a.png", "text": ["x", 5]}\n{"file_name": "b.png", "text": []}')
    text = faults(place)
    assert "row 1: 'text' is ['x', 5], expected text or a list of texts" in text and "row 2: 'text' is []" in text
    (place / "metadata.jsonl").unlink()
    table = pyarrow.table({"file_name": ["a.png", "b.png"], "caption": [["x"], ["y", "z"]]})
    pyarrow.parquet.write_table(table, place / "metadata.parquet")
    assert captions(place) == {"a.png": ("x",), "b.png": ("y", "z")}


def test_a_table_of_images_has_lists_of_captions(tmp_path: Path) -> None:
    file = tmp_path / "x.png"
    Image.new("RGB", (8, 8)).save(file)
    rows = pyarrow.table({"image": [{"bytes": file.read_bytes(), "path": None}], "text": [["a", "b"]]})
    pyarrow.parquet.write_table(rows, tmp_path / "set.parquet")
    (sample,) = read_set(DataConfig(path=str(tmp_path / "set.parquet"), image_column="image")).samples
    assert sample.captions == ("a", "b")


def test_alternatives_are_checked_where_they_are_read(tmp_path: Path) -> None:
    place = folder(tmp_path, "cat.png", cat__txt="a {red|blue hat")
    assert captions(place) == {"cat.png": ("a {red|blue hat",)}
    assert "cat.png: its caption has a { or } without its partner" in faults(place, wildcards=True)
