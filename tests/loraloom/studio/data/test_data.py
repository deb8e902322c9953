"""The section Data: what it shows of a set, and that its actions do what their commands do."""

import io
import os
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import numpy
import pytest
from PIL import Image

from loraloom.cli import main
from loraloom.queue.queue import Queue
from loraloom.studio.data import pages
from loraloom.studio.data.requests import check_time
from registry.errors import Refused
from registry.formats.image_file import Size
from tests.infer.output.opened import NASTY
from tests.loraloom.studio.data.conftest import png
from tests.loraloom.studio.opened import Served, serving
from tests.patience import until
from tests.train.data.editing.conftest import files_of, image
from train.config import DataConfig
from train.data.buckets import buckets_of, nearest
from train.data.dataset import inspect_set
from train.data.editing import journal
from train.data.editing.operations import Replace
from train.data.editing.request import EditRequest


def test_sets_are_listed_with_counts(served: Served, photos: Path) -> None:
    (served.studio.folder / "grids/one").mkdir(parents=True)
    image(served.studio.folder / "grids/one/x.png")
    (served.studio.folder / "grids/one/cells.jsonl").write_text("")
    (photos / "a-masklabel.png").write_bytes(png((96, 64), 9))
    status, found = served.get("data/sets")
    (card,) = found["sets"]
    assert status == 200 and card["name"] == "photos" and (card["images"], card["captions"], card["heldout"], card["masks"]) == (4, 3, 1, 1)


def test_registered_sets_are_listed_wherever_they_lie(served: Served, tmp_path: Path) -> None:
    image(tmp_path / "elsewhere" / "a.png")
    served.studio.store.add_dataset(tmp_path / "elsewhere", name="faces", sha256="0" * 64)
    (card,) = served.get("data/sets")[1]["sets"]
    assert card["registered"] == "faces"
    status, page = served.get("data/set", set=card["path"])
    assert status == 200 and page["writable"] is False
    assert served.post("data/edit", set=card["path"], kind="caption", image="a.png", text="x")[0] == 400


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ({}, ["-c.png", "a.png", "b.png", "heldout/d.png"]),
        ({"only": "A, H"}, ["a.png"]),
        ({"tagged": "HAT"}, ["-c.png", "a.png", "heldout/d.png"]),
        ({"tagged": "hat,a"}, ["a.png"]),
        ({"state": "heldout"}, ["heldout/d.png"]),
        ({"state": "uncaptioned"}, ["b.png"]),
        ({"resolution": "64", "bucket": "64x64"}, []),
    ],
    ids=str,
)
def test_images_are_filtered(served: Served, photos: Path, wanted: dict[str, str], names: list[str]) -> None:
    status, page = served.get("data/set", set=photos, **wanted)
    assert status == 200 and [item["name"] for item in page["items"]] == names and page["shown"] == len(names) and page["total"] == 4


def test_pages_and_tags(served: Served, photos: Path) -> None:
    page = served.get("data/set", set=photos, offset=1, limit=2)[1]
    assert [item["name"] for item in page["items"]] == ["a.png", "b.png"] and page["shown"] == 4
    assert page["tags"]["most"][:2] == [{"tag": "hat", "images": 3}, {"tag": "red", "images": 3}]
    assert page["counts"]["captioned"] == 3 and page["items"][1]["file"] == "b.txt" and page["items"][1]["captions"] == []


def test_crops_are_those_of_training(served: Served, photos: Path) -> None:
    item = served.get("data/image", set=photos, image="a.png", resolution="64", crops="4")[1]
    (crop,) = item["crops"]
    bucket = nearest(Size(96, 64), buckets_of(64, step=8))
    assert crop["bucket"] == f"{bucket.width}x{bucket.height}" and all(0 <= part <= 1 for box in crop["boxes"] for part in box)
    assert served.get("data/buckets", set=photos, resolution="64")[1]["buckets"] == [{"bucket": crop["bucket"], "images": 4}]
    for wrong in ("x", "0", "100000", "63"):
        assert served.get("data/set", set=photos, resolution=wrong)[0] == 400


def test_findings_are_those_of_lint(served: Served, photos: Path) -> None:
    shutil.copy(photos / "a.png", photos / "twin.png")
    words = served.post("data/lint", set=str(photos), trigger="-sks", resolution="64")[1]["words"]
    assert words == ["data", "lint", str(photos), "--trigger=-sks", "--resolution", "64"] and main(words) in (0, 2)
    ask = partial(served.post, "data/lint", set=str(photos), trigger="-sks", resolution="64")
    looked = until(lambda: found if not (found := ask()[1])["running"] else None)
    (found,) = [one for one in looked["findings"] if one["check"] == "same-image"]
    assert found["images"] == ["a.png", "twin.png"]
    shown = served.get("data/set", set=photos, finding="same-image")[1]["items"]
    assert [(item["name"], item["findings"]) for item in shown] == [("a.png", ["same-image"]), ("twin.png", ["same-image"])]


# --- every action and its command

ACTIONS: Mapping[str, Mapping[str, Any]] = {
    "caption": {"kind": "caption", "image": "-c.png", "text": "-new, $HOME 'x'"},
    "new caption": {"kind": "caption", "image": "b.png", "text": NASTY},
    "replace": {"kind": "operation", "operation": "replace", "old": "hat", "new": "-cap"},
    "regex": {"kind": "operation", "operation": "replace", "old": r"(\w+), hat", "new": r"hat, \1", "regex": True},
    "add": {"kind": "operation", "operation": "add", "tag": "-sks", "end": True, "scope": "selected", "images": ["a.png", "-c.png"]},
    "remove": {"kind": "operation", "operation": "remove", "tag": "hat", "scope": "filtered", "tagged": "a,hat"},
    "rename": {"kind": "operation", "operation": "rename", "old": "hat", "new": "cap", "scope": "filtered", "state": "heldout"},
    "sort": {"kind": "operation", "operation": "sort", "scope": "filtered", "only": "C"},
    "lines": {"kind": "operation", "operation": "add", "tag": "x", "lines": True},
    "dedupe": {"kind": "operation", "operation": "dedupe"},
    "hold out": {"kind": "hold_out", "images": ["a.png", "-c.png"]},
    "train": {"kind": "train", "images": ["heldout/d.png"]},
    "remove mask": {"kind": "unmask", "images": ["a.png"]},
}


def said(words: Sequence[str], folder: Path, copy: Path) -> list[str]:
    """The words for a copy of the set."""
    return [word.replace(str(folder), str(copy)) for word in words]


@pytest.mark.parametrize("name", ACTIONS)
def test_an_action_does_what_its_command_does(served: Served, photos: Path, tmp_path: Path, name: str) -> None:
    (photos / "a-masklabel.png").write_bytes(png((96, 64), 9))
    copy = tmp_path / "copy"
    shutil.copytree(photos, copy)
    before = files_of(photos)
    status, made = served.post("data/edit", set=str(photos), **ACTIONS[name])
    assert status == 200, made
    assert main(said(made["words"], photos, copy)) == 0
    assert files_of(copy) == files_of(photos) and files_of(photos) != before
    assert served.post("data/undo", set=str(photos))[0] == 200 and main(["data", "edit", str(copy), "--undo"]) == 0
    assert files_of(photos) == before == files_of(copy)


def test_a_painted_mask_is_what_its_command_writes(served: Served, photos: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(photos, copy)
    file = served.upload("data/upload", png((96, 64), 48), name="mask.png")[1]["file"]
    status, made = served.post("data/edit", set=str(photos), kind="mask", image="a.png", file=file)
    assert status == 200 and not Path(file).exists() and Path(made["words"][-1]).is_file()
    assert main([*made["words"][:2], str(copy), *made["words"][3:]]) == 0 and files_of(copy) == files_of(photos)
    masks = [sample.mask for sample in inspect_set(DataConfig(path=str(photos), masks="files"), path=str(photos)).samples]
    assert [mask.share for mask in masks if mask] == [0.5]
    assert served.get("data/image", set=photos, image="a.png")[1]["mask"] == "a-masklabel.png"


def test_dropped_files_are_added(served: Served, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(photos, copy)
    new = image(tmp_path / "e.png", 8)
    file = served.upload("data/upload", new.read_bytes(), name="e.png")[1]["file"]
    status, made = served.post("data/edit", set=str(photos), kind="add", files=[file])
    monkeypatch.chdir(tmp_path)
    assert status == 200 and main([*made["words"][:2], str(copy), *made["words"][3:]]) == 0
    assert files_of(copy) == files_of(photos) and (photos / "e.png").read_bytes() == new.read_bytes()
    again = served.upload("data/upload", new.read_bytes(), name="e.png")[1]["file"]
    assert "is not written over" in served.post("data/edit", set=str(photos), kind="add", files=[again])[1]["error"]


@pytest.mark.parametrize("name", ["x\n<script>'\".png", "--undo.png", " .png", "猫 \u2028.png", "%2e%2e.png"], ids=repr)
def test_hostile_names_are_names_like_others(served: Served, photos: Path, tmp_path: Path, name: str) -> None:
    image(photos / name, 5)
    copy = tmp_path / "copy"
    shutil.copytree(photos, copy)
    for values in ({"kind": "caption", "image": name, "text": "new"}, {"kind": "hold_out", "images": [name]}):
        status, made = served.post("data/edit", set=str(photos), **values)
        assert status == 200 and main(said(made["words"], photos, copy)) == 0
    assert files_of(copy) == files_of(photos) and (photos / "heldout" / name).is_file()
    assert served.get("data/image", set=photos, image=f"heldout/{name}")[1]["captions"] == ["new"]


def test_a_name_that_is_no_utf8_is_shown_and_refused(served: Served, photos: Path) -> None:
    image(photos / os.fsdecode(b"\xff.png"), 5)
    status, page = served.get("data/set", set=photos)
    assert status == 200 and page["total"] == 5
    assert served.post("data/edit", set=str(photos), kind="caption", image="\ufffd.png", text="x")[0] == 400


@pytest.mark.parametrize("name", ["../a.png", "a/b.png", ".h.png", "", "..", "a\\b.png"])
def test_an_upload_has_a_plain_name(served: Served, name: str) -> None:
    assert served.upload("data/upload", b"x", name=name)[0] == 400


def test_files_that_were_not_uploaded_are_not_added(served: Served, photos: Path, tmp_path: Path) -> None:
    secret = image(tmp_path / "secret.png")
    for given in (str(secret), str(photos / "a.png"), "../x.png"):
        assert served.post("data/edit", set=str(photos), kind="add", files=[given])[0] == 400
        assert served.post("data/edit", set=str(photos), kind="mask", image="a.png", file=given)[0] == 400


def test_a_plan_shows_what_would_change_and_changes_nothing(served: Served, photos: Path) -> None:
    before = files_of(photos)
    status, plan = served.post("data/plan", set=str(photos), kind="operation", operation="rename", old="hat", new="cap")
    assert status == 200 and plan["changed"] == 3 and plan["changes"][1]["after"] == "a, cap, red" and files_of(photos) == before
    status, refused = served.post("data/plan", set=str(photos), kind="operation", operation="replace", old="(", new="", regex=True)
    assert status == 400 and "regular expression" in refused["error"]
    assert served.post("data/plan", set=str(photos), kind="operation", operation="sort", scope="selected", images=[])[0] == 400


@pytest.mark.slow
def test_a_regular_expression_that_takes_too_long_is_refused(photos: Path) -> None:
    (photos / "a.txt").write_text("a" * 60)
    request = EditRequest(path=str(photos), operations=[Replace("(a|a)*b", "", regex=True)])
    with pytest.raises(Refused, match=r"takes more than 1\.5 s"):
        check_time(request, seconds=1.5)


def test_edits_at_the_same_time_come_one_after_the_other(served: Served, photos: Path) -> None:
    def add(tag: str) -> int:
        return served.post("data/edit", set=str(photos), kind="operation", operation="add", tag=tag, end=True)[0]

    with ThreadPoolExecutor(6) as threads:
        assert list(threads.map(add, "uvwxyz")) == [200] * 6
    assert [edit.stage for edit in journal.history(photos)] == ["done"] * 6
    assert sorted((photos / "a.txt").read_text().strip().split(", ")) == sorted(["a", "hat", "red", *"uvwxyz"])


def test_an_interrupted_edit_is_shown_and_finished(served: Served, photos: Path) -> None:
    assert served.post("data/edit", set=str(photos), **ACTIONS["replace"])[0] == 200
    edit = journal.history(photos)[0]
    edit.file.rename(edit.file.with_name("000001.begun.jsonl"))
    (photos / "a.txt").write_text("a, hat, red\n")  # as if the process had been killed before it
    assert served.get("data/set", set=photos)[1]["interrupted"]["state"] == "begun"
    assert served.post("data/edit", set=str(photos), **ACTIONS["caption"])[0] == 400
    assert served.post("data/undo", set=str(photos), finish=True)[1]["changed"] == ["a.txt"]
    assert (photos / "a.txt").read_text() == "a, -cap, red\n" and served.get("data/set", set=photos)[1]["interrupted"] is None


def test_an_undo_names_what_was_changed_since(served: Served, photos: Path) -> None:
    served.post("data/edit", set=str(photos), **ACTIONS["replace"])
    (photos / "a.txt").write_text("by hand")
    status, refused = served.post("data/undo", set=str(photos))
    assert status == 400 and refused["faults"] == ["a.txt"]
    assert served.post("data/undo", set=str(photos), keep_changed=True)[1]["left"] == ["a.txt"]


def test_nothing_is_written_outside_the_roots(served: Served, photos: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    shutil.copytree(photos, outside)
    before = files_of(outside)
    shutil.rmtree(photos / "heldout")
    (photos / "heldout").symlink_to(outside)
    for folder in (outside, photos):
        status, refused = served.post("data/edit", set=str(folder), kind="operation", operation="add", tag="x")
        assert status == 400 and "--root" in refused["error"]
    assert files_of(outside) == before


def test_a_read_only_studio_changes_nothing(photos: Path, served: Served) -> None:
    before = files_of(photos)
    with serving(served.studio.folder, home=served.studio.home, read_only=True) as sealed:
        assert sealed.post("data/edit", set=str(photos), **ACTIONS["caption"])[0] == 403
        assert sealed.post("data/undo", set=str(photos))[0] == 403
        assert sealed.upload("data/upload", b"x", name="a.png")[0] == 400
        assert sealed.get("data/set", set=photos)[1]["writable"] is False
    assert files_of(photos) == before


def test_jobs_are_command_lines_of_the_queue(served: Served, photos: Path) -> None:
    Queue(served.studio.home).pause()
    status, made = served.post("data/job", set=str(photos), kind="caption", model="-m", trigger="sks")
    assert status == 200 and made["words"] == ["data", "caption", str(photos), "--model=-m", "--trigger=sks"]
    status, made = served.post("data/job", set=str(photos), kind="mask", model="/m", labels="hair, 3", threshold="0.5")
    assert made["words"] == ["data", "mask", str(photos), "--model=/m", "--threshold=0.5", "--label=hair", "--label=3"]
    assert [list(job.words) for job in Queue(served.studio.home).jobs()][1] == made["words"]
    assert served.post("data/job", set=str(photos), kind="mask", model="/m", threshold="high")[0] == 400
    assert served.post("data/job", set=str(photos), kind="caption", model=" ")[0] == 400


@pytest.mark.parametrize(("later", "is_old"), [(19.9, True), (20.1, False)])
def test_a_large_set_is_looked_at_less_often(photos: Path, monkeypatch: pytest.MonkeyPatch, later: float, is_old: bool) -> None:
    clock = iter([0.0, 1.0, later, later + 1])  # the first look takes a second
    monkeypatch.setattr(pages, "_SEEN", {})
    monkeypatch.setattr(pages, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    first = pages.state_seldom(photos)
    (photos / "a.txt").write_text("changed")
    assert (pages.state_seldom(photos) == first) is is_old and pages.state_of(photos) != first


def test_a_mask_is_shown_as_training_reads_it(served: Served, photos: Path) -> None:
    """Also where no browser shows such a file, or shows another picture: a transparent part is black, 16 bits are shares of 65,535."""
    (photos / "masks").mkdir()
    deep = Image.fromarray(numpy.full((64, 96), 32896, dtype=numpy.uint16))
    deep.save(photos / "masks" / "a.tif")
    status, headers, body = served.raw("GET", f"/{served.token}/api/data/mask?set={quote(str(photos))}&image=a.png")
    shown = Image.open(io.BytesIO(body))
    assert (status, headers["Content-Type"], shown.mode, shown.getextrema()) == (200, "image/png", "L", (128, 128))
    assert served.get("data/mask", set=photos, image="b.png")[0] == 404


def test_a_mask_that_cannot_be_read_is_named_with_its_image_and_replaced(served: Served, photos: Path) -> None:
    (photos / "a-masklabel.png").write_bytes(png((96, 64), 9)[:40])
    status, answer = served.get("data/mask", set=photos, image="a.png")
    assert status == 400 and answer["error"].startswith("a-masklabel.png, the mask of a.png, cannot be read: it cannot be decoded (")
    was = served.get("data/image", set=photos, image="a.png")[1]["mask_v"]
    file = served.upload("data/upload", png((96, 64), 48), name="mask.png")[1]["file"]
    assert served.post("data/edit", set=str(photos), kind="mask", image="a.png", file=file, was=was)[0] == 200
    (mask,) = [sample.mask for sample in inspect_set(DataConfig(path=str(photos), masks="files"), path=str(photos)).samples if sample.mask]
    assert mask.share == 0.5


def test_of_several_masks_it_is_said_that_one_must_be_kept(served: Served, photos: Path) -> None:
    """Not that the mask was changed meanwhile, which no second try would get past."""
    (photos / "masks").mkdir(exist_ok=True)
    for ending in ("png", "webp"):
        (photos / "masks" / f"b.{ending}").write_bytes(png((96, 64), 200))
    file = served.upload("data/upload", png((96, 64), 48), name="mask.png")[1]["file"]
    status, answer = served.post("data/edit", set=str(photos), kind="mask", image="b.png", file=file, was="")
    assert status == 400 and "there are several (b.png, b.webp); keep one" in answer["error"]


def test_a_caption_that_was_changed_meanwhile_is_not_written_over_unseen(served: Served, photos: Path) -> None:
    shown = served.get("data/image", set=photos, image="a.png")[1]["captions"][0]
    (photos / "a.txt").write_text("of another page\n")
    status, answer = served.post("data/edit", set=str(photos), kind="caption", image="a.png", text="mine", was=shown)
    assert status == 400 and "is now 'of another page'" in answer["error"] and (photos / "a.txt").read_text() == "of another page\n"
    assert served.post("data/edit", set=str(photos), kind="caption", image="a.png", text="mine", was="of another page")[0] == 200
    assert served.post("data/edit", set=str(photos), kind="caption", image="b.png", text="new", was="")[0] == 200
    assert (photos / "a.txt").read_text() == "mine\n" and (photos / "b.txt").read_text() == "new\n"
