import hashlib
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import pytest
from PIL import Image

from registry.errors import Faults
from tests import tiny
from tests.colour_profiles import adobe_rgb
from train.config import DataConfig
from train.data.dataset import inspect_set, read_set
from train.data.hub import read_hub
from train.settings.sets import Subset


def draw(path: Path, size: tuple[int, int] = (8, 8), colour: str = "red") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def reported(folder: Path, **settings: Any) -> str:
    with pytest.raises(Faults) as caught:
        read_set(DataConfig(path=str(folder), **settings))
    return str(caught.value)


def test_a_sound_folder_is_read_whole(tmp_path: Path) -> None:
    found = read_set(DataConfig(path=str(tiny.tiny_dataset(tmp_path / "set"))))
    assert [sample.name for sample in found.samples] == [f"{i:03d}.png" for i in range(6)]
    assert found.samples[0].caption == "a red disc\n" and not found.notes


def test_an_empty_folder_says_what_was_expected(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    assert "there are no images in it. Expected a folder of images" in reported(tmp_path / "set")


def test_a_missing_folder_is_named_with_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    assert "no such folder or file. Did you mean" in reported(tmp_path / "photo") and str(tmp_path / "photos") in reported(
        tmp_path / "photo"
    )


def test_a_bare_word_asks_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("train.data.hub._open", lambda *_: pytest.fail("the network was asked"))
    assert "A set on the hub is OWNER/NAME." in reported(Path("nowhere"))


@pytest.mark.slow
def test_no_network_is_reported_in_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    from datasets import config

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(config, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    began = time.monotonic()
    entries, faults = read_hub("owner/name", DataConfig())
    assert entries == [] and "http://127.0.0.1:9 cannot be reached" in faults[0]
    assert time.monotonic() - began < 60 and not constants.HF_HUB_OFFLINE


def test_images_only_in_subfolders_are_pointed_at(tmp_path: Path) -> None:
    draw(tmp_path / "set" / "inner" / "a.png")
    assert "only in its subfolders: inner/ (1 image)" in reported(tmp_path / "set")


def test_subfolders_with_images_are_reported(tmp_path: Path) -> None:
    folder = tiny.tiny_dataset(tmp_path / "set")
    draw(folder / "more" / "a.png")
    assert "subfolders are not read: more/ (1 image)" in read_set(DataConfig(path=str(folder))).notes


def test_all_faults_are_reported_together_with_names(tmp_path: Path) -> None:
    folder = tiny.tiny_dataset(tmp_path / "set")
    (folder / "000.png").write_bytes(b"broken")
    (folder / "001.txt").unlink()
    (folder / "002.txt").write_text(" \n", encoding="utf-8")
    (folder / "003.txt").write_bytes(b"caf\xe9")
    draw(folder / "004.jpg")
    text = reported(folder)
    assert "000.png: it cannot be decoded" in text
    assert "001.png: has no caption, the others have" in text
    assert "002.png: its caption is empty" in text
    assert "003.txt: is not UTF-8" in text
    assert "004: several images share the caption file 004.txt" in text


def test_no_captions_need_a_trigger(tmp_path: Path) -> None:
    draw(tmp_path / "set" / "a.png")
    assert "data.trigger is not set" in (plain := reported(tmp_path / "set")) and "sd-scripts" not in plain
    draw(tmp_path / "10_sks dog" / "a.png")
    assert f"give the folder that it lies in, {tmp_path}" in reported(tmp_path / "10_sks dog")
    assert read_set(DataConfig(path=str(tmp_path / "set"), trigger="ohwx")).samples[0].caption is None


def test_a_column_that_acts_on_nothing_is_noted(tmp_path: Path) -> None:
    folder = str(tiny.tiny_dataset(tmp_path / "set"))
    notes = read_set(DataConfig(path=folder, caption_column="zz")).notes
    assert "data.caption_column=zz acts on tables and JSON files; the captions of 6 images are text files, and are read" in notes
    assert not any("caption_column" in note for note in read_set(DataConfig(path=folder)).notes)


def test_other_files_are_reported_not_passed_over(tmp_path: Path) -> None:
    folder = tiny.tiny_dataset(tmp_path / "set")
    (folder / "LICENSE").write_text("MIT")
    (folder / "lost.txt").write_text("a caption of nothing")
    (folder / "._000.png").write_bytes(b"a Finder's shadow")
    notes = " ".join(read_set(DataConfig(path=str(folder))).notes)
    assert "ignored: LICENSE" in notes and "no image of their name: lost.txt" in notes and "not read: ._000.png" in notes


def test_the_same_image_twice_is_reported(tmp_path: Path) -> None:
    folder = tiny.tiny_dataset(tmp_path / "set")
    (folder / "copy.png").write_bytes((folder / "000.png").read_bytes())
    (folder / "copy.txt").write_text("a red disc again")
    assert "the same image several times: 000.png = copy.png" in read_set(DataConfig(path=str(folder))).notes


def metadata(folder: Path, rows: list[dict[str, str]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def test_metadata_lines_are_captions(tmp_path: Path) -> None:
    for name, colour in (("a.png", "red"), ("b.png", "blue")):
        draw(tmp_path / name, colour=colour)
    metadata(tmp_path, [{"file_name": "b.png", "text": "blue"}, {"file_name": "a.png", "text": "red"}])
    found = read_set(DataConfig(path=str(tmp_path)))
    assert [(sample.name, sample.caption) for sample in found.samples] == [("b.png", "blue"), ("a.png", "red")]


def test_metadata_and_folder_must_tell_the_same(tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    draw(tmp_path / "b.png")
    metadata(
        tmp_path, [{"file_name": "a.png", "text": "a"}, {"file_name": "gone.png", "text": "g"}, {"file_name": "a.png", "text": "again"}]
    )
    text = reported(tmp_path)
    assert "metadata.jsonl, row 2: names gone.png, which does not exist" in text
    assert "metadata.jsonl, row 3: names a.png a second time" in text
    assert "b.png: is not listed in metadata.jsonl" in text


def test_metadata_outside_the_folder_is_refused(tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    draw(tmp_path / "set" / "b.png")
    metadata(tmp_path / "set", [{"file_name": "../a.png", "text": "a"}, {"file_name": "b.png", "text": "b"}])
    assert "lies outside the folder" in reported(tmp_path / "set")


def test_metadata_and_text_files_together_are_refused(tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("one")
    metadata(tmp_path, [{"file_name": "a.png", "text": "other"}])
    assert "captions come from both metadata.jsonl and a.txt" in reported(tmp_path)


def test_a_mistyped_column_offers_the_nearest(tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    metadata(tmp_path, [{"file_name": "a.png", "text": "a"}])
    assert "Did you mean 'text'" in reported(tmp_path, caption_column="texts")


def test_two_caption_columns_must_be_reported_apart(tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    metadata(tmp_path, [{"file_name": "a.png", "text": "a", "caption": "b"}])
    assert "text and caption; choose one" in reported(tmp_path)
    assert read_set(DataConfig(path=str(tmp_path), caption_column="caption")).samples[0].caption == "b"


def test_csv_and_parquet_are_read_as_well(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    draw(tmp_path / "csv" / "a.png")
    (tmp_path / "csv" / "metadata.csv").write_text('file_name,text\na.png,"a cat, sitting"\n', encoding="utf-8")
    draw(tmp_path / "parquet" / "a.png")
    rows = pyarrow.table({"file_name": ["a.png"], "text": ["a cat, sitting"]})
    pyarrow.parquet.write_table(rows, tmp_path / "parquet" / "metadata.parquet")
    for kind in ("csv", "parquet"):
        assert read_set(DataConfig(path=str(tmp_path / kind))).samples[0].caption == "a cat, sitting"


def test_a_comma_without_quotes_in_csv_is_no_caption(tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    (tmp_path / "metadata.csv").write_text("file_name,text\na.png,a cat, sitting\n", encoding="utf-8")
    assert "quote captions that hold commas" in reported(tmp_path)


def test_a_dataset_file_is_opened_by_load_dataset(tmp_path: Path) -> None:
    from datasets import Dataset, Features, Image, Value

    draw(tmp_path / "a.png", colour="blue")
    features = Features({"image": Image(), "caption": Value("string")})
    rows = Dataset.from_dict(
        {"image": [{"bytes": (tmp_path / "a.png").read_bytes(), "path": None}], "caption": ["a blue square"]}, features=features
    )
    rows.to_parquet(tmp_path / "set.parquet")
    (tmp_path / "a.png").unlink()
    (sample,) = read_set(DataConfig(path=str(tmp_path / "set.parquet"))).samples
    assert sample.caption == "a blue square" and (sample.size.width, sample.size.height) == (8, 8)


def test_the_identity_of_a_set_follows_images_and_captions(tmp_path: Path) -> None:
    one, two = (tiny.tiny_dataset(tmp_path / name) for name in ("one", "two"))
    (two / "000.png").rename(two / "zzz.png")
    (two / "000.txt").rename(two / "zzz.txt")
    before = read_set(DataConfig(path=str(one))).sha256
    assert read_set(DataConfig(path=str(two))).sha256 == before
    (one / "000.txt").write_text("something else")
    assert read_set(DataConfig(path=str(one))).sha256 != before


def test_what_a_subset_sets_is_a_part_of_the_identity(tmp_path: Path) -> None:
    found = read_set(DataConfig(path=str(tiny.tiny_dataset(tmp_path / "set", count=1))))
    (sample,) = found.samples
    assert found.sha256 == hashlib.sha256(f"{sample.sha256}, {sample.caption}\n".encode()).hexdigest()
    changes = ({"repeats": 2}, {"weight": 0.5}, {"trigger": "sks"}, {"prior": True}, {"others": ("a dot",)})
    assert len({replace(found, samples=(replace(sample, **change),)).sha256 for change in ({}, *changes)}) == 6
    assert replace(sample, others=("a dot",)).captions == (sample.caption, "a dot")


def captioned(folder: Path, *names: str) -> Path:
    """Images of these names, each another colour, without captions."""
    for number, name in enumerate(names):
        draw(folder / name, colour=["red", "blue", "green", "yellow"][number % 4])
    return folder


def test_captions_may_be_named_after_the_whole_file(tmp_path: Path) -> None:
    folder = captioned(tmp_path / "set", "cat.png", "cat.jpg", "dog.png")
    for name, text in (("cat.png.txt", "a red cat"), ("cat.jpg.caption", "a blue cat"), ("dog.txt", "a dog")):
        (folder / name).write_text(text)
    found = read_set(DataConfig(path=str(folder), trigger="sks"))
    assert {sample.name: sample.caption for sample in found.samples} == {
        "cat.png": "a red cat",
        "cat.jpg": "a blue cat",
        "dog.png": "a dog",
    }
    (folder / "cat.txt").write_text("another")
    assert "cat.png: has several caption files (cat.png.txt, cat.txt)" in reported(folder)


@pytest.mark.parametrize("name", ["cat.json", "cat.png.json", "cat_caption.txt", "Cat.txt", "cat.tags", "cat.caption.txt"])
def test_what_looks_like_a_caption_is_not_left_out_unseen(tmp_path: Path, name: str) -> None:
    folder = captioned(tmp_path / "set", "cat.png")
    (folder / name).write_text('{"author": "me"}')
    text = reported(folder, trigger="sks")
    assert f"{name}: named like images without a caption, and not read" in text
    assert "NAME.txt or NAME.EXT.txt" in text and "'sks'" in text
    assert inspect_set(DataConfig(path=str(folder), trigger="sks"), path=str(folder)).notes == []  # the fault names it
    (folder / "cat.txt").write_text("a cat")  # with a caption of its own the other file is only noted
    assert name in " ".join(read_set(DataConfig(path=str(folder))).notes)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("captions.csv", "file,text\ncat.png,a cat\n"),
        ("names.json", '{"/data/cat": "a cat"}'),
        ("train.jsonl", '{"image": "cat.png"}\n'),
    ],
)
def test_a_table_of_another_name_is_not_left_out_unseen(tmp_path: Path, name: str, text: str) -> None:
    folder = captioned(tmp_path / "set", "cat.png")
    (folder / name).write_text(text)
    assert f"{name}: names images without a caption, and is not read" in reported(folder, trigger="sks")


def test_captions_in_a_folder_of_their_own_are_not_left_out_unseen(tmp_path: Path) -> None:
    folder = captioned(tmp_path / "set", "cat.png", "dog.png")
    (folder / "captions").mkdir()
    (folder / "captions" / "cat.txt").write_text("a cat")
    assert "captions/ has 1 file named like images without a caption (cat.txt)" in reported(folder, trigger="sks")


def test_a_set_without_captions_may_hold_other_texts(tmp_path: Path) -> None:
    folder = captioned(tmp_path / "set", "cat.png")
    captioned(folder / "heldout", "cat.png")
    for name in ("README.md", "catalogue.txt", "LICENSE"):
        (folder / name).write_text("by me")
    (folder / "heldout" / "cat.txt").write_text("a held-out cat")
    assert read_set(DataConfig(path=str(folder), trigger="sks")).samples[0].caption is None


def test_a_column_that_may_hold_captions_is_chosen_and_never_dropped(tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    metadata(tmp_path, [{"file_name": "a.png", "description": "a cat", "licence": "CC0"}])
    assert "no column text, caption or prompt, but description, which may hold captions" in reported(tmp_path, trigger="sks")
    assert read_set(DataConfig(path=str(tmp_path), caption_column="description")).samples[0].caption == "a cat"
    assert read_set(DataConfig(path=str(tmp_path), trigger="sks", caption_column="none")).samples[0].caption is None


def test_images_in_a_format_that_is_not_read_are_a_fault(tmp_path: Path) -> None:
    folder = tiny.tiny_dataset(tmp_path / "set", 2)
    for name in ("a.heic", "b.HEIC", "c.jxl", "d.psd", "001.cr2"):
        (folder / name).write_bytes(b"an image of another format")
    text = reported(folder)
    assert "a.heic, b.HEIC: a HEIC image is read with pillow-heif: pip install pillow-heif" in text
    assert "c.jxl: a JPEG XL image is read with pillow-jxl-plugin: pip install pillow-jxl-plugin" in text
    assert "d.psd: .psd is not read: save it as PNG or JPEG" in text
    assert "001.cr2" not in text  # a camera's raw file beside 001.png


def test_masks_are_named_as_masks(tmp_path: Path) -> None:
    folder = tiny.tiny_dataset(tmp_path / "set", 2)
    captioned(folder, "000-masklabel.png", "001_mask.png")
    text = reported(folder)
    assert "000-masklabel.png, 001_mask.png: named as the mask of another image" in text and "has no caption" not in text
    captioned(tmp_path / "bare", "a.png", "a-masklabel.png")
    assert "data.masks=files reads them as masks" in reported(tmp_path / "bare", trigger="sks")
    captioned(tmp_path / "worn", "a.png", "a_mask.png")
    for name in ("a", "a_mask"):
        (tmp_path / "worn" / f"{name}.txt").write_text(name)
    assert len(read_set(DataConfig(path=str(tmp_path / "worn"))).samples) == 2


def test_how_images_were_read_is_noted(tmp_path: Path) -> None:
    folder = tiny.tiny_dataset(tmp_path / "set", 3)
    for number in (0, 2):
        Image.open(folder / f"{number:03d}.png").save(folder / f"{number:03d}.png", icc_profile=adobe_rgb())
    Image.fromarray(numpy.full((8, 8), 4000, dtype=numpy.uint16)).save(folder / "deep.tif")
    (folder / "deep.txt").write_text("a dark square")
    notes = read_set(DataConfig(path=str(folder))).notes
    assert "2 converted to sRGB from the colour profile Adobe RGB (1998): 000.png, 002.png" in notes
    assert any(note.startswith("deep.tif: its largest value is 4000 of 65535") for note in notes)


def test_names_that_no_file_can_have_are_faults_of_their_rows(tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    metadata(tmp_path, [{"file_name": "n" * 300, "text": "a"}, {"file_name": "a\0.png", "text": "b"}, {"file_name": "a.png", "text": "c"}])
    text = reported(tmp_path)
    assert "row 1: names nnn" in text and "row 2: names a" in text and text.count("which does not exist") == 2
    assert "there is no such folder or file" in reported(Path("n" * 300)) and "no such folder" in reported(Path("~nobody-of-this-name/x"))


def test_a_folder_that_cannot_be_listed_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_folder: Path, _config: DataConfig, _subset: Subset) -> None:
        raise PermissionError(13, "Permission denied", str(tmp_path / "set"))

    monkeypatch.setattr("train.data.dataset.read_folder", refuse)
    (tmp_path / "set").mkdir()
    assert f"{tmp_path / 'set'} cannot be read (Permission denied)" in reported(tmp_path / "set")


def test_images_in_base64_are_read_from_a_table(tmp_path: Path) -> None:
    import base64

    import pyarrow
    import pyarrow.parquet

    Image.effect_noise((32, 32), 60).convert("RGB").save(tmp_path / "a.png")  # longer than a file's name can be
    rows = {"image": [base64.b64encode((tmp_path / "a.png").read_bytes()).decode()], "text": ["noise"]}
    pyarrow.parquet.write_table(pyarrow.table(rows), tmp_path / "set.parquet")
    (sample,) = read_set(DataConfig(path=str(tmp_path / "set.parquet"), image_column="image")).samples
    assert sample.caption == "noise" and (sample.size.width, sample.size.height) == (32, 32)
