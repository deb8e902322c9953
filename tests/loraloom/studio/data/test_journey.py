"""A set edited in a real browser; what lies on the disk afterwards is read as training reads it."""

import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from tests.infer.output.opened import DESK, NASTY, PHONE, faint_texts
from tests.loraloom.studio.held import Held
from tests.loraloom.studio.opened import Served
from tests.patience import until
from tests.train.data.editing.conftest import image
from train.config import DataConfig, TrainConfig
from train.data.dataset import inspect_set, read_set
from train.data.editing import journal
from train.data.editing.request import EditRequest
from train.data.split import choose_split

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser
INK = Path(__file__).resolve().parents[4] / "datasets" / "ink"


def opened(browser: "Browser", served: Served, folder: Path, size: dict[str, int] = DESK, scheme: str = "light") -> "Page":
    page = browser.new_page(viewport=size, color_scheme=scheme)  # type: ignore[arg-type]
    page.goto(f"{served.address}#/data/{quote(str(folder), safe='')}")
    page.wait_for_selector(".row")
    return page


def some_of_ink(served: Served, *names: str) -> Path:
    """A set of these files of datasets/ink in the Studio's folder."""
    folder = served.studio.folder / "ink"
    folder.mkdir()
    for name in names:
        shutil.copy(INK / name, folder / name)
    return folder


def captions(folder: Path) -> dict[str, str]:
    return {sample.name: (sample.caption or "").strip() for sample in read_set(DataConfig(path=str(folder))).samples}


def test_a_set_is_edited(browser: "Browser", served: Served) -> None:
    from playwright.sync_api import expect

    ink = served.studio.folder / "ink"
    shutil.copytree(INK, ink)
    shutil.copy(ink / "fox.png", ink / "fox-again.png")
    (ink / "fox-again.txt").write_text("a fox again\n")
    before = captions(ink)
    page = opened(browser, served, ink)
    page.get_by_label("Caption of fox.png", exact=True).fill(NASTY)
    page.get_by_label("Caption of fox.png", exact=True).press("Control+Enter")
    page.locator("#command-kind", has_text="Done").wait_for()
    assert captions(ink)["fox.png"] == NASTY and page.title().startswith("Data")

    page.get_by_role("button", name="Edit captions").click()
    page.get_by_label("Find", exact=True).fill("a clock")
    page.get_by_label("Replace with").fill("one clock")
    page.get_by_text("1 of 57 images change.").wait_for()
    assert captions(ink)["alarm-clock.png"] == "a clock"
    page.get_by_role("button", name="Change 1 caption").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.get_by_label("Caption of alarm-clock.png")).to_have_value("one clock")
    assert captions(ink)["alarm-clock.png"] == "one clock"
    page.get_by_role("button", name="Undo", exact=True).click()
    page.get_by_text("is undone").wait_for()
    page.get_by_role("button", name="Undo", exact=True).click()
    expect(page.get_by_role("button", name="Undo", exact=True)).to_have_count(0)
    assert captions(ink) == before

    new = image(served.studio.folder / "new" / "new.png", 3)
    page.locator("input[type=file]").set_input_files([new])
    page.get_by_label("Caption of new.png").fill("a new one")
    page.locator(".row", has_text="new.png").get_by_role("button", name="Save").click()
    expect(page.locator("#command-kind")).to_have_text("Done")
    expect(page.locator("#command")).to_contain_text("--set-caption new.png 'a new one'")
    assert captions(ink) == {**before, "new.png": "a new one"}

    page.get_by_role("button", name="same-image").click()
    expect(page.locator(".row")).to_have_count(2)
    page.locator(".row", has_text="fox-again.png").get_by_role("button", name="Hold out").click()
    expect(page.locator(".row")).to_have_count(1)
    config = TrainConfig(data=DataConfig(path=str(ink)))
    split = choose_split(config, read_set(config.data), lambda tick: None)
    assert "fox-again.png" in {sample.name for sample in split.heldout} and "fox-again.png" not in {sample.name for sample in split.train}
    page.close()


def test_a_mask_is_painted(browser: "Browser", served: Served) -> None:
    from playwright.sync_api import expect

    ink = some_of_ink(served, "fox.png", "fox.txt")
    page = opened(browser, served, ink)
    page.get_by_role("button", name="Open fox.png").click()
    canvas = page.locator(".viewer canvas")
    box = canvas.bounding_box()
    assert box
    page.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + box["height"] * 0.5)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.75, box["y"] + box["height"] * 0.5, steps=4)
    page.mouse.up()
    page.get_by_role("button", name="Save the mask").click()
    page.locator("#command-kind", has_text="Done").wait_for()
    first = page.locator("#command").text_content() or ""
    done = shlex.split(first)
    assert done[:5] == ["loraloom", "data", "edit", str(ink), "--set-mask"] and Path(done[-1]).is_file()
    (mask,) = [sample.mask for sample in inspect_set(DataConfig(path=str(ink), masks="files"), path=str(ink)).samples]
    assert mask is not None and mask.box[0] < 36 and mask.box[2] > 92 and 0.02 < mask.share < 0.2
    canvas.focus()
    page.get_by_role("button", name="Invert").click()
    page.keyboard.press("Control+z")
    page.get_by_role("button", name="Eraser").click()
    for key in ("ArrowDown", "Space", "x", "Shift+ArrowUp"):
        page.keyboard.press(key)
    page.get_by_role("button", name="Save the mask").click()
    expect(page.locator("#command")).to_contain_text("--set-mask")
    until(lambda: len(journal.history(ink)) == 2)
    expect(page.locator("#command")).not_to_have_text(first)
    new = image(ink.with_name("other.png"), 3, (128, 128))
    EditRequest(path=str(ink), masks={"fox.png": str(new)}).make()
    canvas.focus()
    page.keyboard.press("Space")
    page.get_by_role("button", name="Save the mask").click()
    expect(page.get_by_text("its mask was changed meanwhile")).to_be_visible()
    assert len(journal.history(ink)) == 3
    page.locator(".message").get_by_role("button", name="Close").click()  # it lies in the dialog, which the other one closes
    page.get_by_role("button", name="Close", exact=True).last.click()
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Save the mask").click()
    until(lambda: len(journal.history(ink)) == 4)
    page.get_by_role("button", name="Remove the mask").click()
    expect(page.locator("#command")).to_contain_text("--remove-mask")
    page.close()


def test_an_image_is_painted_on_once_it_takes_strokes(browser: "Browser", served: Served) -> None:
    """The canvas comes when the image and its mask are read and all is at its place: what is painted is not drawn over, nor lost."""
    from playwright.sync_api import expect

    ink = some_of_ink(served, "fox.png", "fox.txt")
    new = image(served.studio.folder / "mask.png", 3, (128, 128))
    EditRequest(path=str(ink), masks={"fox.png": str(new)}).make()
    page = opened(browser, served, ink)
    image_held, mask_held = Held(page, "/api/image?", without="side="), Held(page, "/api/data/mask?")
    page.get_by_role("button", name="Open fox.png").click()
    stage, canvas = page.locator(".paint-stage"), page.locator(".viewer canvas")
    for held in (image_held, mask_held):
        expect(stage).to_have_attribute("aria-busy", "true")
        request = held.next()
        expect(canvas).to_have_count(0)
        request.continue_()
    canvas.click()
    expect(stage).not_to_have_attribute("aria-busy", "true")
    page.get_by_role("button", name="Save the mask").click()
    page.locator("#command-kind", has_text="Done").wait_for()
    assert len(journal.history(ink)) == 2
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_read_on_a_telephone(browser: "Browser", served: Served, scheme: str) -> None:
    ink = some_of_ink(served, "fox.png", "owl.png")
    (ink / "fox.txt").write_text(NASTY)
    page = opened(browser, served, ink, PHONE, scheme)
    page.get_by_text("Findings, tags, sizes").click()
    page.get_by_role("button", name="Look again").wait_for()
    count, faint = faint_texts(page)
    assert count > 15 and faint == {}
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth") and page.title().startswith("Data")
    page.close()


def test_two_pages_of_a_caption(browser: "Browser", served: Served) -> None:
    """What is typed here and changed there is shown as such, and written over only by a button that says it; a set that is gone says so."""
    from playwright.sync_api import expect

    ink = some_of_ink(served, "fox.png", "fox.txt", "bone.png", "bone.txt")
    page = opened(browser, served, ink, PHONE)
    text = page.get_by_label("Caption of fox.png")
    text.fill("mine")
    (ink / "fox.txt").write_text(f"{NASTY}\n")
    expect(page.get_by_text("Changed meanwhile; it is now:")).to_be_visible()
    expect(text).to_have_value("mine")
    expect(text).to_be_focused()
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    page.get_by_role("button", name="Save over it").click()
    page.locator("#command-kind", has_text="Done").wait_for()
    assert captions(ink)["fox.png"] == "mine"
    expect(page.get_by_text("Changed meanwhile")).to_have_count(0)
    text.fill("not saved yet")
    page.locator(".row", has_text="fox.png").get_by_role("button", name="Hold out").click()
    expect(page.get_by_label("Caption of heldout/fox.png")).to_have_value("not saved yet")
    page.locator(".row", has_text="fox.png").get_by_role("button", name="Discard").click()
    ink.rename(ink.with_name("away"))
    expect(page.get_by_role("alert")).to_contain_text("there is no such file")
    ink.with_name("away").rename(ink)
    expect(page.get_by_role("alert")).to_have_count(0)
    page.close()


def test_an_edit_ends_where_the_set_is_read_again_meanwhile(browser: "Browser", served: Served) -> None:
    """The page follows the folder, too: that read takes the place of the edit's own."""
    from playwright.sync_api import expect

    ink = some_of_ink(served, "fox.png", "fox.txt")
    page = opened(browser, served, ink)
    page.evaluate(
        """() => { const fetched = fetch; window.fetch = async (address, more) => {
        if (String(address).includes("data/set?")) await new Promise((done) => setTimeout(done, 1500));
        return fetched(address, more); }; }"""
    )
    page.get_by_role("button", name="Edit captions").click()
    page.get_by_label("Find", exact=True).fill("fox")
    page.get_by_label("Replace with").fill("wolf")
    page.get_by_role("button", name="Change 1 caption").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.get_by_label("Caption of fox.png")).to_have_value("a wolf")
    page.get_by_label("Caption of fox.png").fill("a dog")
    page.get_by_label("Caption of fox.png").press("Control+Enter")
    expect(page.get_by_role("button", name="Save")).to_have_count(0)
    assert captions(ink) == {"fox.png": "a dog"} and len(journal.history(ink)) == 2
    page.close()


def test_what_is_refused_leaves_the_page_as_it_was(browser: "Browser", served: Served, tmp_path: Path) -> None:
    """A refused resolution does not spoil the next edit, a file that is no image leaves no count; focus comes back from a dialog."""
    from playwright.sync_api import expect

    ink = some_of_ink(served, "fox.png", "fox.txt")
    page = opened(browser, served, ink)
    page.get_by_role("button", name="History").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_contain_text("None was made yet")
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="History")).to_be_focused()
    page.get_by_label("Resolution").fill("abc")
    page.get_by_label("Resolution").press("Enter")
    expect(page.get_by_text("expected pixels such as 1024")).to_have_count(1)
    page.get_by_label("Caption of fox.png").fill("a dog")
    page.get_by_label("Caption of fox.png").press("Control+Enter")
    page.locator("#command-kind", has_text="Done").wait_for()
    expect(page.get_by_role("button", name="Undo", exact=True)).to_be_visible()
    (tmp_path / "bad.png").write_bytes(b"x")
    page.locator("input[type=file]").set_input_files([tmp_path / "bad.png"])
    expect(page.get_by_text("cannot be decoded")).to_be_visible()
    expect(page.get_by_text("1 of 1: bad.png")).to_have_count(0)
    page.close()


def test_a_set_that_is_not_there_has_no_toolbar(browser: "Browser", served: Served) -> None:
    from playwright.sync_api import expect

    page = browser.new_page(viewport=DESK)  # type: ignore[arg-type]
    page.goto(f"{served.address}#/data/{quote(str(served.studio.folder / 'gone'), safe='')}")
    expect(page.get_by_role("alert").get_by_text("there is no such file")).to_be_visible()
    expect(page.locator("main input, main select, main button")).to_have_count(0)
    page.get_by_role("link", name="All sets").click()
    expect(page.get_by_text("There is no folder with images")).to_be_visible()
    page.close()


def test_a_mask_that_cannot_be_read_is_named_where_it_is_painted(browser: "Browser", served: Served) -> None:
    ink = some_of_ink(served, "fox.png", "fox.txt")
    (ink / "fox-masklabel.png").write_bytes(b"no image")
    page = opened(browser, served, ink)
    page.get_by_role("button", name="Open fox.png").click()
    page.get_by_role("alert").get_by_text("fox-masklabel.png, the mask of fox.png, cannot be read: it cannot be decoded").wait_for()
    page.locator(".viewer canvas").click()
    page.get_by_role("button", name="Save the mask").click()
    page.locator("#command-kind", has_text="Done").wait_for()
    (mask,) = [sample.mask for sample in inspect_set(DataConfig(path=str(ink), masks="files"), path=str(ink)).samples]
    assert mask is not None and 0 < mask.share < 0.1  # the first stroke leaves out all else
    page.close()
