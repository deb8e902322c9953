"""What a person does while an answer is under way is neither lost nor done twice, in Chromium: the answers wait until it was done."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from infer.output.page.mended import being_drawn
from loraloom.queue import folder as files
from loraloom.queue.queue import Queue
from registry.files.progress_file import ProgressFile
from registry.progress import Tick
from registry.store import Store
from tests.loraloom.studio.grids.made import drawn
from tests.loraloom.studio.held import Held
from tests.loraloom.studio.models.conftest import MODULES
from tests.loraloom.studio.opened import Served
from tests.loraloom.studio.runs.made import make_run
from tests.registry.made import lora
from tests.train.data.editing.conftest import image
from train.data.editing.request import EditRequest
from train.output.folder import held as locked

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser


def photos(served: Served) -> Path:
    """A set of two images with captions."""
    folder = served.studio.folder / "photos"
    for seed, name in enumerate(("fox", "owl")):
        image(folder / f"{name}.png", seed)
        (folder / f"{name}.txt").write_text(f"a {name}\n")
    return folder


@pytest.fixture
def page(browser: "Browser") -> "Page":
    return browser.new_page(viewport={"width": 1400, "height": 900})


def address(served: Served, folder: Path) -> str:
    return f"{served.address}#/data/{quote(str(folder), safe='')}"


def test_what_is_typed_stays_where_the_set_is_read_again(page: "Page", served: Served) -> None:
    from playwright.sync_api import expect

    folder = photos(served)
    page.goto(address(served, folder))
    page.get_by_label("Resolution").press_sequentially("9")
    (folder / "owl.txt").write_text("another owl\n")
    expect(page.get_by_label("Caption of owl.png")).to_have_value("another owl")
    page.keyboard.type("6")
    page.keyboard.press("Enter")
    page.wait_for_url("**resolution=96**")
    page.close()


def test_a_caption_that_is_typed_on_while_it_is_saved(page: "Page", served: Served) -> None:
    """What is saved is the page's own: it is no change by somebody else."""
    from playwright.sync_api import expect

    folder = photos(served)
    page.goto(address(served, folder))
    held = Held(page, "api/data/edit")
    text = page.get_by_label("Caption of fox.png")
    text.fill("a red fox")
    text.press("Control+Enter")
    saving = held.next()
    text.focus()
    page.keyboard.press("End")
    page.keyboard.type(", asleep")
    saving.continue_()
    expect(page.locator("#command-kind")).to_have_text("Done")
    expect(text).to_have_value("a red fox, asleep")
    expect(page.get_by_text("Changed meanwhile")).to_have_count(0)
    expect(page.get_by_role("button", name="Save", exact=True)).to_be_visible()
    assert (folder / "fox.txt").read_text().strip() == "a red fox"
    page.close()


def test_an_edit_is_undone_once(page: "Page", served: Served) -> None:
    """The button is drawn anew while the first click is under way; the second one does not take back the edit before."""
    from playwright.sync_api import expect

    folder = photos(served)
    page.goto(address(served, folder))
    for name in ("fox", "owl"):
        page.get_by_label(f"Caption of {name}.png").fill(f"one {name}")
        page.get_by_label(f"Caption of {name}.png").press("Control+Enter")
        page.locator(".row", has_text=name).get_by_role("button", name="Save").wait_for(state="hidden")
    held = Held(page, "api/data/undo")
    page.get_by_role("button", name="Undo", exact=True).click()
    first = held.next()
    image(folder / "new.png", 3)
    page.locator(".row", has_text="new.png").wait_for()
    page.get_by_role("button", name="Undo", exact=True).click()
    second = held.next()
    first.continue_()
    page.get_by_text("is undone").wait_for()
    second.continue_()
    expect(page.get_by_text("is not the newest one any more")).to_be_visible()
    assert (folder / "fox.txt").read_text() == "one fox\n" and (folder / "owl.txt").read_text() == "a owl\n"
    page.close()


def test_a_mask_is_undone_after_it_was_saved(page: "Page", served: Served) -> None:
    """What is seen then is not what was saved, and can be saved; what was just saved cannot be saved again."""
    from playwright.sync_api import expect

    page.goto(address(served, photos(served)))
    page.get_by_role("button", name="Open fox.png").click()
    canvas, save = page.locator(".viewer canvas"), page.get_by_role("button", name="Save the mask")
    canvas.click()
    held = Held(page, "api/data/upload")
    save.click()
    saving = held.next()
    canvas.click(position={"x": 20, "y": 20})
    expect(save).to_be_disabled()  # until the first is saved: then the stroke that came meanwhile can be
    saving.continue_()
    page.locator("#command-kind", has_text="Done").wait_for()
    expect(save).to_be_enabled()
    save.click()
    held.next().continue_()
    expect(canvas).to_be_focused()  # nothing is left to be saved
    expect(save).to_be_disabled()
    page.keyboard.press("Control+z")
    expect(save).to_be_enabled()
    held = Held(page, "api/data/edit")
    page.get_by_role("button", name="Remove the mask").click()
    removing = held.next()
    canvas.click(position={"x": 40, "y": 40})
    removing.continue_()
    expect(page.get_by_role("button", name="Remove the mask")).to_be_disabled()
    expect(page.get_by_role("button", name="Undo stroke")).to_be_enabled()  # what was painted meanwhile is there
    expect(save).to_be_enabled()
    page.close()


def test_a_mask_is_undone_while_it_is_saved(page: "Page", served: Served) -> None:
    """What is seen then is not what was saved: it can be saved, and what was saved can be removed."""
    from playwright.sync_api import expect

    page.goto(address(served, photos(served)))
    page.get_by_role("button", name="Open fox.png").click()
    save, drop = page.get_by_role("button", name="Save the mask"), page.get_by_role("button", name="Remove the mask")
    page.locator(".viewer canvas").click()
    held = Held(page, "api/data/upload")
    save.click()
    saving = held.next()
    page.get_by_role("button", name="Undo stroke").click()
    saving.continue_()
    expect(save).to_be_enabled()
    expect(drop).to_be_enabled()
    page.close()


def test_a_mask_of_somebody_else_is_not_taken_for_the_one_that_was_saved(page: "Page", served: Served) -> None:
    from playwright.sync_api import expect

    folder = photos(served)
    page.goto(address(served, folder))
    page.get_by_role("button", name="Open fox.png").click()
    canvas, save = page.locator(".viewer canvas"), page.get_by_role("button", name="Save the mask")
    canvas.click()
    held = Held(page, "api/data/image?")
    save.click()
    reading = held.next()
    EditRequest(path=str(folder), masks={"fox.png": str(image(served.studio.folder / "other.png", 3))}).make()
    reading.continue_()
    expect(canvas).to_be_focused()  # it is saved
    canvas.click(position={"x": 20, "y": 20})
    save.click()
    held.next().continue_()
    expect(page.get_by_text("its mask was changed meanwhile")).to_be_visible()
    page.close()


def test_an_answer_leads_nowhere_when_somebody_went_elsewhere(page: "Page", served: Served) -> None:
    held = Held(page, "api/data/set?")
    page.goto(address(served, photos(served)))
    reading = held.next()
    page.get_by_role("link", name="Models", exact=True).click()
    page.get_by_role("heading", name="Models").wait_for()
    with page.expect_response(lambda answer: "api/data/set?" in answer.url):
        reading.continue_()
    page.evaluate("async () => { await (await fetch('api/studio')).json(); }")  # by then it is dealt with
    assert re.search(r"#/models$", page.url)
    page.evaluate(
        """async () => {
        const { button } = await import("./app/parts.js");
        const act = async (lead) => { await new Promise((go) => { window.go = go; }); lead("#/runs"); };
        by("main").firstElementChild.append(button("Make it", { act }));
        }"""
    )
    page.get_by_role("button", name="Make it").click()
    page.get_by_role("link", name="Grids", exact=True).click()
    page.get_by_role("heading", name="Grids").wait_for()
    page.evaluate("async () => { go(); await new Promise((done) => setTimeout(done)); }")
    assert re.search(r"#/grids$", page.url)
    held = Held(page, "api/new_run/settings")
    page.get_by_role("link", name="New run", exact=True).click()
    reading = held.next()
    page.get_by_role("link", name="Data", exact=True).click()
    page.get_by_role("heading", name="Data").wait_for()
    before = page.locator("#command").text_content()
    with page.expect_response(lambda answer: "api/new_run/settings" in answer.url):
        reading.continue_()
    page.evaluate("async () => { await (await fetch('api/studio')).json(); }")
    assert page.locator("#command").text_content() == before
    page.close()


def test_the_look_of_a_section_that_did_not_come_is_asked_for_again(page: "Page", served: Served) -> None:
    page.goto(f"{served.address}#/models")
    held = Held(page, "app/data/index.css")
    page.get_by_role("link", name="Data", exact=True).click()
    held.next().abort()
    page.get_by_role("heading", name="Data").wait_for()
    page.get_by_role("link", name="Models", exact=True).click()
    page.get_by_role("heading", name="Models").wait_for()
    page.get_by_role("link", name="Data", exact=True).click()
    held.next().continue_()
    page.get_by_role("heading", name="Data").wait_for()
    assert page.evaluate("document.querySelector('link[data-section=data]').sheet.cssRules.length") > 0
    page.close()


def test_a_new_run_is_filled_in_before_it_can_be_typed_in(page: "Page", served: Served) -> None:
    from playwright.sync_api import expect

    run = make_run(served.studio.folder, lora__rank=4)
    held = Held(page, "api/new_run/from?")
    page.goto(f"{served.address}#/new_run?from={quote(str(run), safe='')}")
    answer = held.next()
    expect(page.locator("[data-setting], main button")).to_have_count(0)
    answer.continue_()
    expect(page.locator('[data-setting="lora.rank"]')).to_have_value("4")
    page.close()


def test_a_cell_that_is_opened_before_all_images_are_there(page: "Page", served: Served) -> None:
    from playwright.sync_api import expect

    folder = drawn(served.studio.folder / "runs" / "hat" / "20260101-120000")
    held = Held(page, "api/grids/file")
    page.goto(f"{served.address}#/grids/grid?folder={quote(str(folder), safe='')}")
    frame = page.frame_locator("iframe.grid-frame")
    frame.locator(".cell").first.click()
    held.next()
    expect(page.get_by_role("link", name="Vary this cell")).to_be_visible()
    frame.locator("#close").click()
    expect(page.get_by_role("link", name="Vary this cell")).to_have_count(0)
    page.close()


def test_a_button_is_pressed_while_a_job_reports_its_progress(page: "Page", served: Served) -> None:
    """What is drawn anew under the pointer takes no click: a button stays the same while only the progress changes."""
    queue = Queue(served.studio.home)
    queue.pause()
    job, waiting = (queue.add(["train", f"seed={seed}"], folder=served.studio.folder).id for seed in (1, 2))
    place = queue.folder / job
    with locked(place):
        files.write_plain(place / files.BEGIN, {"began": datetime.now(UTC).isoformat(), "host": "another"})
        page.goto(f"{served.address}#/runs")
        for step, (label, route, id) in enumerate((("Stop", "stop", job), ("Remove", "remove", waiting), ("Stop", "stop", job)), 1):
            if step == 3:
                page.goto(f"{served.address}#/runs/job/{job}")
            page.get_by_role("button", name=label).hover()
            page.mouse.down()
            ProgressFile(place / "progress.json", lambda tick: None)(Tick("training", step, 100))
            page.get_by_text(f"training {step}/100").wait_for()
            with page.expect_request(f"**/api/runs/{route}") as asked:
                page.mouse.up()
            assert json.loads(asked.value.post_data or "")["id"] == id
    drawn_by = queue.add(["grid", "prompt=a cat"], folder=served.studio.folder).id
    place = queue.folder / drawn_by
    with locked(place):
        files.write_plain(place / files.BEGIN, {"began": datetime.now(UTC).isoformat(), "host": "another"})
        page.goto(f"{served.address}#/grids")
        page.get_by_role("link", name="prompt=a cat").hover()
        page.mouse.down()
        ProgressFile(place / "progress.json", lambda tick: None)(Tick("drawing", 1, 100))
        page.get_by_text("drawing 1 of 100").wait_for()
        page.mouse.up()
        page.wait_for_url(f"**#/grids/job?id={drawn_by}")
    page.close()


def test_a_grid_that_is_drawn_is_stopped_while_its_progress_comes(page: "Page", served: Served) -> None:
    """Its page has the button of its job, which is not drawn anew under the pointer."""
    queue = Queue(served.studio.home)
    queue.pause()
    folder = drawn(served.studio.folder / "runs" / "hat" / "20260101-120000")
    (folder / "result.json").unlink()
    id = queue.add(["grid", "prompt=a cat"], folder=served.studio.folder).id
    place = queue.folder / id
    (place / "made.jsonl").write_text(f"{json.dumps(str(folder))}\n")
    with locked(place), being_drawn(folder):
        files.write_plain(place / files.BEGIN, {"began": datetime.now(UTC).isoformat(), "host": "another"})
        page.goto(f"{served.address}#/grids/grid?folder={quote(str(folder), safe='')}")
        page.get_by_role("button", name="Stop", exact=True).hover()
        assert page.locator("#command").inner_text() == f"loraloom queue stop {id}"
        page.mouse.down()
        ProgressFile(place / "progress.json", lambda tick: None)(Tick("drawing", 1, 100, seconds_left=65.0))
        page.get_by_text("about 1:05 left").wait_for()
        with page.expect_request("**/api/runs/stop") as asked:
            page.mouse.up()
        assert json.loads(asked.value.post_data or "")["id"] == id
    page.get_by_role("button", name="Make its report whole").wait_for()
    page.goto(f"{served.address}#/runs")
    page.get_by_role("link", name=str(folder), exact=True).click()  # that of the grid, beside that of its job
    page.get_by_role("button", name="Make its report whole").wait_for()
    page.close()


def test_what_was_wrong_on_a_page_is_not_said_of_the_next_one(page: "Page", served: Served) -> None:
    """But for what has only just come."""
    page.clock.install()
    page.goto(f"{served.address}#/runs")
    page.get_by_role("heading", name="Runs").wait_for()
    page.evaluate("import('./app/parts.js').then(({ fail }) => fail(new Error('the disk is full')))")
    fault = page.locator(".message", has_text="the disk is full")
    fault.wait_for()
    page.get_by_role("link", name="Models").click()
    page.get_by_role("heading", name="Models").wait_for()
    assert fault.count() == 1
    page.clock.fast_forward(6000)
    page.get_by_role("link", name="Grids").click()
    fault.wait_for(state="detached")
    page.close()


def test_what_a_job_has_made_is_added_to_and_not_drawn_anew(page: "Page", served: Served) -> None:
    queue = Queue(served.studio.home)
    queue.pause()
    id = queue.add(["train", "--multirun", "seed=1,2"], folder=served.studio.folder).id
    place, runs = queue.folder / id, [str(make_run(served.studio.folder, name)) for name in "ab"]
    (place / "made.jsonl").write_text(f"{json.dumps(runs[0])}\n")
    with locked(place):
        files.write_plain(place / files.BEGIN, {"began": datetime.now(UTC).isoformat(), "host": "another"})
        page.goto(f"{served.address}#/runs/job/{id}")
        page.get_by_role("link", name=runs[0]).evaluate(
            "one => { window.first = one; one.focus(); getSelection().selectAllChildren(one); }"
        )
        with (place / "made.jsonl").open("a") as made:
            made.write(f"{json.dumps(runs[1])}\n")
        ProgressFile(place / "progress.json", lambda tick: None)(Tick("training", 2, 100))
        page.get_by_text("training 2/100").wait_for()
        page.get_by_role("link", name=runs[1]).wait_for()
        assert page.evaluate("[document.activeElement === window.first, String(getSelection())]") == [True, runs[0]]
    page.close()


def test_a_log_is_followed_again_when_the_server_answers_again(page: "Page", served: Served) -> None:
    from playwright.sync_api import expect

    queue = Queue(served.studio.home)
    queue.pause()
    job = queue.add(["train", "seed=1"], folder=served.studio.folder).id
    log = queue.folder / job / files.LOG
    log.write_text("the first line\n")
    page.goto(f"{served.address}#/runs/job/{job}")
    expect(page.get_by_label("Log")).to_contain_text("the first line")
    held = Held(page, "api/runs/log")
    held.next().abort()
    log.write_text("the first line\nthe second line\n")
    held.next().continue_()
    expect(page.get_by_label("Log")).to_have_text("the first line\nthe second line\n")
    page.close()


def test_notes_are_typed_on_where_the_model_is_read_again(page: "Page", served: Served, tmp_path: Path) -> None:
    """The caret stays where it was, and what is saved here is no change by somebody else."""
    from playwright.sync_api import expect

    lora(tmp_path / "ink.safetensors", MODULES, rank=2)
    store = Store(served.studio.home)
    record = store.add(str(tmp_path / "ink.safetensors"))
    page.goto(f"{served.address}#/models/one/{record.id}")
    notes = page.get_by_label("Notes")
    notes.fill("line art")
    for _ in "art":
        page.keyboard.press("ArrowLeft")
    assert served.post("models/tag", ids=[record.id], add=["style"], remove=[])[0] == 200
    expect(page.locator(".chip", has_text="style")).to_be_visible()
    page.keyboard.type("clear ")
    expect(notes).to_have_value("line clear art")
    held = Held(page, "api/models/note")
    page.get_by_role("button", name="Save notes").click()
    saving = held.next()
    notes.press("End")
    page.keyboard.type(".")
    saving.continue_()
    page.get_by_text("Notes saved.").wait_for()
    expect(notes).to_have_value("line clear art.")
    expect(page.get_by_text("The notes were changed meanwhile")).to_have_count(0)
    page.close()


def test_an_image_is_not_taken_for_the_one_that_comes(page: "Page", served: Served) -> None:
    from playwright.sync_api import expect

    run = make_run(served.studio.folder)
    page.goto(f"{served.address}#/runs/run/{quote(str(run), safe='')}")
    page.get_by_role("button", name="Enlarge a bell, step 40").click()
    large = page.locator("dialog img")
    expect(large).to_have_class("large-preview")
    held = Held(page, "api/image?", without="side=")
    page.keyboard.press("ArrowLeft")
    expect(large).to_have_attribute("alt", "a bell, step 20")
    coming = held.next()
    expect(large).to_have_class("large-preview coming")
    coming.continue_()
    expect(large).to_have_class("large-preview")
    page.close()
