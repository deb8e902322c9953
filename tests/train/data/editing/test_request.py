"""Edits of sets, as the trainer's own reader sees them afterwards."""

import json
from pathlib import Path

import pytest
from PIL import Image

from registry.errors import Refused
from tests.train.data.editing.conftest import files_of, image
from train.config import DataConfig
from train.data.dataset import inspect_set, read_set
from train.data.editing import journal
from train.data.editing.edit_plan import Choice
from train.data.editing.operations import Add, Remove, Rename, Replace
from train.data.editing.request import EditRequest


def captions(folder: Path, **given: str) -> dict[str, tuple[str, ...]]:
    """The captions that training reads."""
    return {sample.name: sample.captions for sample in read_set(DataConfig(path=str(folder), **given)).samples}  # type: ignore[arg-type]


def undone(folder: Path) -> None:
    with journal.editing(folder):
        journal.undo(folder)


def test_operations_change_captions_and_nothing_else(photos: Path) -> None:
    before = files_of(photos)
    plan, made = EditRequest(path=str(photos), operations=[Rename("hat", "cap"), Add("sks")], choice=Choice(only="B, ")).make()
    assert made and plan.images == 1 and captions(photos)["b.png"] == ("sks, b, cap, red\n",)
    after = files_of(photos)
    assert {name for name in after if after[name] != before.get(name)} == {"b.txt"}
    undone(photos)
    assert files_of(photos) == before


def test_held_out_captions_are_a_part_of_the_set(photos: Path) -> None:
    plan, _ = EditRequest(path=str(photos), operations=[Remove("red")]).make()
    assert plan.images == 4 and (photos / "heldout/d.txt").read_text() == "d, hat\n"


def test_chosen_images(photos: Path) -> None:
    (photos / "c.txt").write_text("c, scarf")
    edit = EditRequest(path=str(photos), operations=[Add("x")], choice=Choice(files=("./a.png", "c.png", "heldout/d.png"), tagged=("Hat",)))
    assert [shown.image for shown in edit.plan().shown] == ["a.png", "heldout/d.png"]
    with pytest.raises(Refused, match=r"b\.pngg: the set has no image of this name. Did you mean 'b\.png'"):
        EditRequest(path=str(photos), operations=[Add("x")], choice=Choice(files=("b.pngg",))).plan()


def test_a_plan_changes_nothing(photos: Path) -> None:
    before = files_of(photos)
    plan = EditRequest(path=str(photos), operations=[Replace("hat", "cap")]).plan()
    assert plan.images == 4 and files_of(photos) == before and not (photos / ".loraloom-edits").exists()


def test_a_caption_that_would_be_none_is_refused_for_all(photos: Path) -> None:
    before = files_of(photos)
    (photos / "b.txt").write_text("hat, scarf")
    with pytest.raises(Refused, match=r"(?s)a\.png: its caption would be empty.*heldout/d\.png") as caught:
        EditRequest(path=str(photos), operations=[Remove("a, c, d, hat, red")]).make()
    assert "b.png" not in str(caught.value) and files_of(photos) == {**before, "b.txt": b"hat, scarf"}


def test_a_whole_caption_is_set_where_there_was_none(photos: Path) -> None:
    image(photos / "e.png", 9)
    _, made = EditRequest(path=str(photos), captions={"e.png": " e \n", "a.png": "new"}).make()
    assert made and captions(photos) == {"a.png": ("new\n",), "b.png": ("b, hat, red\n",), "c.png": ("c, hat, red\n",), "e.png": ("e\n",)}
    undone(photos)
    assert not (photos / "e.txt").exists()


def test_byte_order_mark_and_line_ends_stay(photos: Path) -> None:
    (photos / "a.txt").write_bytes(b"\xef\xbb\xbf a, hat\r\n")
    EditRequest(path=str(photos), operations=[Rename("hat", "cap")]).make()
    assert (photos / "a.txt").read_bytes() == b"\xef\xbb\xbf a, cap\r\n"


def test_permissions_stay(photos: Path) -> None:
    (photos / "a.txt").chmod(0o640)
    EditRequest(path=str(photos), operations=[Add("x")]).make()
    assert (photos / "a.txt").stat().st_mode & 0o777 == 0o640
    undone(photos)
    assert (photos / "a.txt").stat().st_mode & 0o777 == 0o640


def test_text_that_is_no_utf8_is_refused(photos: Path) -> None:
    (photos / "a.txt").write_bytes(b"\xff\xfea\0")
    with pytest.raises(Refused, match=r"a\.txt: is not UTF-8"):
        EditRequest(path=str(photos), operations=[Add("x")]).make()


def test_links_are_refused(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere.txt").write_text("a")
    (photos / "a.txt").unlink()
    (photos / "a.txt").symlink_to(tmp_path / "elsewhere.txt")
    with pytest.raises(Refused, match=r"a\.txt: a link"):
        EditRequest(path=str(photos), captions={"a.png": "b"}).make()


# --- metadata.jsonl


@pytest.fixture
def table(tmp_path: Path) -> Path:
    folder = tmp_path / "table"
    for number, name in enumerate(["a", "b", "c"]):
        image(folder / f"{name}.png", number)
    rows = [
        '{"file_name": "a.png",  "text": "a, hat", "n": 1.50}',
        '{"file_name":"b.png","text":["b","hat"]}',
        r'{"file_name":"c.png","text":"\u00e9"}',
    ]
    (folder / "metadata.jsonl").write_bytes("\r\n".join(rows).encode())
    return folder


def test_rows_are_changed_one_line_each(table: Path) -> None:
    before = files_of(table)
    EditRequest(path=str(table), operations=[Rename("hat", "猫\u2028帽")]).make()
    lines = (table / "metadata.jsonl").read_bytes().split(b"\r\n")
    assert json.loads(lines[0]) == {"file_name": "a.png", "text": "a, 猫 帽", "n": 1.5} and json.loads(lines[1])["text"] == ["b", "猫 帽"]
    assert lines[2].rstrip() == rb'{"file_name":"c.png","text":"\u00e9"}'
    assert captions(table)["b.png"] == ("b", "猫 帽")
    undone(table)
    assert files_of(table)["metadata.jsonl"].rstrip() == before["metadata.jsonl"]


def test_rows_move_with_their_images(table: Path) -> None:
    before = captions(table)
    EditRequest(path=str(table), hold_out=["b.png", "a.png"]).make()
    assert captions(table) == {"c.png": ("é",)} and captions(table / "heldout") == {name: before[name] for name in ("a.png", "b.png")}
    EditRequest(path=str(table), train=["heldout/b.png"]).make()
    assert captions(table).keys() == {"b.png", "c.png"}
    undone(table)
    undone(table)
    assert captions(table) == before and not (table / "heldout").exists()
    assert [json.loads(line)["file_name"] for line in (table / "metadata.jsonl").read_text().splitlines()] == ["a.png", "b.png", "c.png"]


def test_images_of_subfolders_have_their_captions_edited_and_nothing_else(table: Path, tmp_path: Path) -> None:
    image(table / "more" / "d.png", 4)
    with (table / "metadata.jsonl").open("a") as file:
        file.write('\n{"file_name": "more/d.png", "text": "d"}\n')
    EditRequest(path=str(table), captions={"more/d.png": "new"}).make()
    assert captions(table)["more/d.png"] == ("new",)
    Image.new("L", (24, 16), 255).save(tmp_path / "mask.png")
    for request in (
        EditRequest(path=str(table), hold_out=["more/d.png"]),
        EditRequest(path=str(table), masks={"more/d.png": str(tmp_path / "mask.png")}),
    ):
        with pytest.raises(Refused, match=r"more/d\.png: .*subfolder"):
            request.make()


@pytest.mark.parametrize(("name", "text"), [("metadata.csv", "file_name,text\na.png,a\nb.png,b\n"), ("a.json", '{"caption": "a"}')])
def test_other_formats_are_refused_by_name(tmp_path: Path, name: str, text: str) -> None:
    image(tmp_path / "a.png", 1)
    image(tmp_path / "b.png", 2)
    (tmp_path / name).write_text(text)
    with pytest.raises(Refused, match=rf"a\.png: its caption is in {name}, which is not edited here; (save|write)"):
        EditRequest(path=str(tmp_path), operations=[Add("x")]).make()


def test_a_folder_of_sets_is_refused(photos: Path, tmp_path: Path) -> None:
    photos.rename(tmp_path / "10_sks")
    with pytest.raises(Refused, match=r"a folder of sets \(10_sks/\)"):
        EditRequest(path=str(tmp_path), operations=[Add("x")]).plan()


# --- held-out images


def test_an_image_is_held_out_with_all_that_is_its_own(photos: Path) -> None:
    Image.new("L", (24, 16), 255).save(photos / "a-masklabel.png")
    before = files_of(photos)
    EditRequest(path=str(photos), hold_out=["a.png"]).make()
    assert captions(photos).keys() == {"b.png", "c.png"}
    assert {"heldout/a.png", "heldout/a.txt", "heldout/a-masklabel.png"} <= files_of(photos).keys()
    with pytest.raises(Refused, match="held out already"):
        EditRequest(path=str(photos), hold_out=["heldout/a.png"]).plan()
    undone(photos)
    assert files_of(photos) == before


def test_nothing_is_moved_over_a_file(photos: Path) -> None:
    (photos / "heldout/a.txt").write_text("another")
    with pytest.raises(Refused, match=r"a\.txt: heldout/a\.txt is there already"):
        EditRequest(path=str(photos), hold_out=["a.png"]).make()
    with pytest.raises(Refused, match="no image would be left"):
        EditRequest(path=str(photos), hold_out=["a.png", "b.png", "c.png"]).make()


# --- masks and new images


def test_a_mask_is_what_training_reads(photos: Path, tmp_path: Path) -> None:
    mask = Image.new("RGBA", (24, 16), (0, 0, 0, 255))
    mask.paste((255, 255, 255, 255), (0, 0, 12, 16))
    mask.save(tmp_path / "mask.webp", lossless=True)
    before = files_of(photos)
    EditRequest(path=str(photos), masks={"a.png": str(tmp_path / "mask.webp")}).make()
    found = inspect_set(DataConfig(path=str(photos), masks="files"), path=str(photos))
    (own,) = [sample.mask for sample in found.samples if sample.mask]
    assert own.name == "a-masklabel.png" and own.share == 0.5 and own.box == (0, 0, 12, 16)
    EditRequest(path=str(photos), unmask=["a.png"]).make()
    assert files_of(photos) == before
    undone(photos)
    undone(photos)
    assert files_of(photos) == before


@pytest.mark.parametrize(("size", "grey", "why"), [((16, 24), 255, "the other way round"), ((24, 16), 0, "black everywhere")])
def test_what_is_no_mask_is_refused(photos: Path, tmp_path: Path, size: tuple[int, int], grey: int, why: str) -> None:
    Image.new("L", size, grey).save(tmp_path / "mask.png")
    with pytest.raises(Refused, match=why):
        EditRequest(path=str(photos), masks={"a.png": str(tmp_path / "mask.png")}).make()
    assert not (photos / ".loraloom-edits").exists()


def test_images_are_added_never_over_a_file(photos: Path, tmp_path: Path) -> None:
    new = image(tmp_path / "new" / "e.png", 7)
    (tmp_path / "new" / "e.txt").write_text("e")
    before = files_of(photos)
    EditRequest(path=str(photos), add=[str(new), str(tmp_path / "new" / "e.txt")]).make()
    assert captions(photos)["e.png"] == ("e",)
    undone(photos)
    assert files_of(photos) == before
    for name, why in (
        ("A.png", "the set has a.png already"),
        ("b.jpg", "b.png has this name"),
        ("x.psd", "not read"),
        (".h.png", "hidden"),
    ):
        (tmp_path / "new" / name).write_bytes(new.read_bytes())
        with pytest.raises(Refused, match=why):
            EditRequest(path=str(photos), add=[str(tmp_path / "new" / name)]).make()


def test_one_kind_of_edit_at_a_time(photos: Path) -> None:
    with pytest.raises(Refused, match="several kinds at once"):
        EditRequest(path=str(photos), operations=[Add("x")], hold_out=["a.png"]).plan()
    with pytest.raises(Refused, match="This would edit nothing"):
        EditRequest(path=str(photos)).plan()


def test_a_table_keeps_byte_order_mark_and_line_ends_when_rows_move(table: Path) -> None:
    rows = [json.dumps({"file_name": f"{name}.png", "text": name}) for name in "abc"]
    (table / "metadata.jsonl").write_bytes(b"\xef\xbb\xbf" + "".join(f"{row}\r\n" for row in rows).encode())
    before = files_of(table)
    EditRequest(path=str(table), hold_out=["a.png"]).make()
    assert (table / "metadata.jsonl").read_bytes() == b"\xef\xbb\xbf" + f"{rows[1]}\r\n{rows[2]}\r\n".encode()
    undone(table)
    assert files_of(table) == before


def test_rows_end_with_a_line_feed_alone(table: Path) -> None:
    """U+2028 and U+0085 may stand in a text of JSON as they are."""
    rows = [{"file_name": f"{name}.png", "text": f"{name}\u2028\u0085x"} for name in "abc"]
    (table / "metadata.jsonl").write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    plan, _ = EditRequest(path=str(table), operations=[Replace("x", "y")]).make()
    assert plan.images == 3 and captions(table)["b.png"] == ("b\u2028\u0085y",)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"file_name":"a.png","text":null}', "'text' is None"),
        ('{"file_name":"a.png","text":"a"', "cannot be read"),
        ('{"file_name":"a.png","prompts":"a"}', "has no column text"),
        ("", "has no rows"),
    ],
)
@pytest.mark.parametrize("choice", [Choice(), Choice(only="hat"), Choice(tagged=("a",))])
def test_captions_that_cannot_be_read_are_no_captions_without_a_change(table: Path, text: str, why: str, choice: Choice) -> None:
    (table / "metadata.jsonl").write_text(text)
    with pytest.raises(Refused, match=why):
        EditRequest(path=str(table), operations=[Add("sks")], choice=choice).make()


def test_an_unreadable_caption_is_not_left_out_by_what_captions_contain(photos: Path) -> None:
    (photos / "b.txt").write_bytes(b"caf\xe9, hat")
    with pytest.raises(Refused, match=r"b\.txt: is not UTF-8"):
        EditRequest(path=str(photos), operations=[Add("sks")], choice=Choice(only="hat")).make()
    plan, _ = EditRequest(path=str(photos), operations=[Add("sks")], choice=Choice(files=("a.png",))).make()
    assert plan.images == 1


def test_images_without_a_caption_are_counted(photos: Path) -> None:
    (photos / "b.txt").unlink()
    plan, _ = EditRequest(path=str(photos), operations=[Add("sks")]).make()
    assert (plan.images, plan.looked_at, plan.without_caption) == (3, 4, 1) and plan.to_json()["without_caption"] == 1


def test_an_image_with_several_rows_is_refused_in_the_plan(table: Path) -> None:
    with (table / "metadata.jsonl").open("a") as file:
        file.write('\n{"file_name":"./a.png","text":"again"}\n')
    with pytest.raises(Refused, match=r"a\.png: has several rows in metadata\.jsonl; keep one"):
        EditRequest(path=str(table), operations=[Add("sks")]).plan()


def test_a_set_has_a_name(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty variable of a shell is not this folder."""
    monkeypatch.chdir(photos)
    before = files_of(photos)
    for act in (EditRequest.plan, EditRequest.make):
        with pytest.raises(Refused, match="an empty text"):
            act(EditRequest(path="", operations=[Add("sks")]))
    assert files_of(photos) == before
