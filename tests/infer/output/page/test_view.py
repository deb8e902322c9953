"""The page in Chromium: the table and its axes, the viewer, mouse, keyboard and thumb."""

import io
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from infer.output.command import command_of
from infer.output.gallery import Gallery
from infer.output.report import write_report
from infer.output.sources import SourceImage
from tests.infer.images import gallery, resolved, square
from tests.infer.output.opened import DESK, NASTY, PHONE, Shown, faint_texts

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.browser


def columns(report: Shown) -> list[str]:
    return report.page.locator(".name").all_inner_texts()


def test_all_axes_stand_on_the_sides_and_are_moved(report: Shown) -> None:
    assert report.page.title() == 'a "grid" </title><b>'  # no prompt ran
    assert columns(report) == ["1", "2", "0", "0.5", "1", "0", "0.5", "1"]  # seeds over weights
    assert report.page.locator(".cell").count() == 11 and report.page.locator(".empty").count() == 1
    assert report.page.locator(".side:not(.corner)").all_text_contents() == ["a cat", NASTY]
    assert "Out of memory: <b>2 GiB</b>" in report.text(".cell.broken")
    report.page.locator("#sides").click()
    report.page.get_by_label("Place of seed").select_option("select")
    assert report.page.locator(".cell").count() == 5
    report.page.get_by_label("seed", exact=True).select_option(label="2")
    assert report.page.locator(".cell").count() == 6
    report.page.get_by_label("Place of seed").select_option("rows")
    assert report.page.locator(".super").all_text_contents() == ["prompt a cat", f"prompt {NASTY}"]
    report.page.get_by_role("button", name="seed: further out").click()
    assert report.page.locator(".super").all_inner_texts() == ["seed 1", "seed 2"]
    assert report.places()[:3] == ["0,0,0", "0,0,1", "0,0,2"] and report.places()[3] == "1,0,0"
    assert report.page.evaluate("document.activeElement.title") == "seed: further in"  # it cannot go further out
    report.page.keyboard.press("Enter")
    assert report.page.evaluate("document.activeElement.title") == "seed: further out"
    report.page.keyboard.press("Enter")
    assert report.cell("0,0,0").locator("img").evaluate("image => image.naturalWidth") == 64


def test_values_are_hidden_and_the_place_is_closed(report: Shown) -> None:
    report.page.locator("#sides").click()
    weights = report.page.get_by_role("group", name="Values of weight")
    weights.get_by_text("0.5").click()
    assert columns(report) == ["1", "2", "0", "1", "0", "1"] and report.text("#sides") == "Axes (1 hidden)"
    report.page.get_by_role("button", name="Hide all of weight").click()
    assert "Every cell is hidden" in report.text("#grid")
    report.page.get_by_role("button", name="Show all of weight").click()
    assert report.page.locator(".cell").count() == 11


@pytest.mark.parametrize(("columns", "window", "least"), [(8, DESK, 130), (12, DESK, 80), (40, DESK, 22), (8, PHONE, 36), (3, PHONE, 100)])
def test_all_columns_fit_the_window_at_first(columns: int, window: Any, least: int, tmp_path: Path, browser: "Browser") -> None:
    axes = {"prompt": ["a house with a garden and a tree in front of it", "a cat"], "adapter": [f"ink@step-{at}" for at in range(columns)]}
    write_report(tmp_path / "report.html", gallery(tmp_path / "images", axes))
    page = browser.new_page(viewport=window)
    opened = Shown(page, tmp_path / "report.html")
    assert page.evaluate("document.documentElement.scrollWidth") <= window["width"]
    box = opened.cell(f"1,{columns - 1}").bounding_box()
    assert box and box["x"] + box["width"] <= window["width"] and box["width"] >= least
    page.close()
    assert opened.troubles == []


def test_labels_of_narrow_columns_are_cut_to_one_line_that_can_be_read(tmp_path: Path, browser: "Browser") -> None:
    labels = [f"a checkpoint with a name that is far too long for its column {at}" for at in range(40)]
    write_report(tmp_path / "report.html", gallery(tmp_path / "images", {"prompt": ["a", "b"], "adapter": labels}))
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    opened = Shown(page, tmp_path / "report.html")
    boxes = page.locator(".name").evaluate_all(
        "all => all.map((one) => { const { left, right } = one.getBoundingClientRect(); return [left, right]; })"
    )
    assert len(boxes) == 40 and all(one[1] <= other[0] for one, other in pairwise(boxes))
    assert page.locator(".name").first.get_attribute("title") == labels[0]
    page.close()
    assert opened.troubles == []


def test_a_label_over_columns_begins_at_their_left_and_stays_in_sight(report: Shown) -> None:
    report.go("#rows=0&columns=1.2&tile=512")
    report.page.reload()
    label = report.page.locator(".name.spans > span").first

    def left(selector: str) -> float:
        found: float = report.page.locator(selector).first.evaluate("one => one.getBoundingClientRect().left")
        return found

    assert left(".name.spans > span") == pytest.approx(left(".name.spans"), abs=1)
    report.page.evaluate("scrollTo(900, 0)")
    assert left(".name.spans") < 0 and label.bounding_box()
    right = report.page.locator(".side").first.evaluate("one => one.getBoundingClientRect().right")
    assert 0 <= left(".name.spans > span") - right < 20


def test_a_click_shows_the_image_and_all_its_settings(report: Shown) -> None:
    report.open("1,0,1")
    settings = dict(
        zip(report.page.locator("#settings th").all_inner_texts(), report.page.locator("#settings td").all_inner_texts(), strict=True)
    )
    assert settings["steps"] == "20" and settings["seed"] == "7" and settings["prompt"].startswith("</script>")
    report.page.get_by_text("Files and versions").click()
    assert len(report.page.locator("#details td").last.inner_text()) == 64
    assert "Steps: 20, Sampler: DDIM" in report.text("#parameters")
    report.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    report.page.locator("#copy-command").click()
    report.page.get_by_text("Copied").wait_for()
    command = report.page.evaluate("navigator.clipboard.readText()")
    assert command == command_of(resolved(prompt=f"{NASTY} 1 0.5", seed=7)) and "alert(1)" in command
    report.page.get_by_text("Copied").wait_for(state="hidden")
    report.page.locator("#copy").click()
    report.page.get_by_text("Copied").wait_for()
    assert report.page.evaluate("navigator.clipboard.readText()") == report.page.locator("#parameters").text_content()
    assert (report.page.locator("#save").get_attribute("href") or "").startswith("data:image/png")
    report.page.keyboard.press("Escape")
    assert not report.page.locator("#viewer").is_visible() and report.focused() == "1,0,1"


def test_a_cell_shows_the_images_that_it_is_drawn_from(shown: Gallery, tmp_path: Path, browser: "Browser") -> None:
    sources = [SourceImage(label=f"{name} {NASTY}", png=png(colour), size=(8, 4)) for name, colour in (("init", 10), ("hint", 200))]
    images = [replace(one, sources=(1,) if one.place == (0, 0, 0) else ()) for one in shown.images]
    write_report(tmp_path / "report.html", replace(shown, images=images, sources=sources))
    page = browser.new_page(viewport={"width": 1200, "height": 800})
    report = Shown(page, tmp_path / "report.html")
    assert page.locator(".top figcaption").all_text_contents() == [one.label for one in sources] and page.title().startswith('a "grid"')
    report.open("0,0,0")
    assert page.locator("#cell-sources figcaption").all_text_contents() == [f"hint {NASTY}"]
    assert page.locator("#cell-sources img").evaluate("one => [one.naturalWidth, one.naturalHeight]") == [8, 4]
    page.get_by_label("Next weight").click()
    assert page.locator("#cell-sources figure").count() == 0
    page.close()
    assert report.troubles == []


def png(grey: int) -> bytes:
    whole = io.BytesIO()
    square((grey, grey, grey), (8, 4)).save(whole, "PNG")
    return whole.getvalue()


def test_zoom_and_move(report: Shown) -> None:
    report.open("0,0,0")
    frame = report.page.locator(".frame").bounding_box()
    assert frame and frame["width"] > 400  # an image of 64 pixels is enlarged to be looked at
    report.page.locator("#in").click()
    report.page.mouse.move(frame["x"] + 50, frame["y"] + 50)
    report.page.mouse.wheel(0, -400)
    zoomed = report.page.locator(".frame").bounding_box()
    assert zoomed and zoomed["width"] > 3 * frame["width"]
    report.page.mouse.down()
    report.page.mouse.move(frame["x"] + 10, frame["y"] + 30, steps=3)
    report.page.mouse.up()
    moved = report.page.locator(".frame").bounding_box()
    assert moved and moved["x"] == pytest.approx(zoomed["x"] - 40, abs=1) and moved["y"] == pytest.approx(zoomed["y"] - 20, abs=1)
    report.page.keyboard.press("0")
    assert report.page.locator(".frame").bounding_box() == frame


def test_flipping_with_the_keyboard(report: Shown) -> None:
    report.go("#rows=0&columns=2&select=1-0")
    report.page.reload()
    report.page.locator(".cell").first.focus()
    report.page.keyboard.press("ArrowRight")
    report.page.keyboard.press("ArrowRight")
    assert report.focused() == "0,0,2"
    report.page.keyboard.press("ArrowLeft")
    report.page.keyboard.press("ArrowDown")
    assert report.focused() == "1,0,1"
    report.page.keyboard.press("Enter")
    assert report.text("#caption").endswith("seed 1 · weight 0.5")
    report.page.keyboard.press("ArrowRight")  # there is no cell 1,0,2
    assert report.text("#caption").endswith("seed 1 · weight 0.5")
    report.page.keyboard.press("PageDown")
    report.page.keyboard.press("ArrowRight")
    assert report.text("#caption").endswith("seed 2 · weight 1")
    report.page.keyboard.press("ArrowUp")
    assert report.text("#caption") == "prompt a cat · seed 2 · weight 1"
    report.page.get_by_label("Previous weight").click()
    assert report.text("#caption") == "prompt a cat · seed 2 · weight 0.5"
    report.page.keyboard.press("PageUp")
    assert report.text("#world").startswith("failed: Out of memory: <b>2 GiB</b>")
    report.page.keyboard.press("Escape")
    report.page.wait_for_function("() => document.activeElement.dataset.place === '0,0,1'")  # the dialog's close event comes a moment later
    assert report.focused() == "0,0,1"


def test_light_and_dark(report: Shown) -> None:
    def paper() -> str:
        colour: str = report.page.evaluate("getComputedStyle(document.body).backgroundColor")
        return colour

    light = paper()
    report.page.locator("#theme").click()
    dark = paper()
    report.page.locator("#theme").click()
    assert light == paper() != dark
    report.page.locator("#theme").click()
    report.page.reload()
    assert paper() == dark  # the choice is remembered
    report.page.locator("#theme").click()
    report.page.emulate_media(color_scheme="dark")
    report.page.reload()
    assert paper() == dark


def test_texts_have_the_contrast_that_readers_need(report: Shown) -> None:
    """WCAG 2.2 AA, of every text as it is seen, in both schemes: the table, the panel of axes, an open cell, the comparison, the help."""

    def look(what: str) -> None:
        for scheme in ("light", "dark"):
            report.page.emulate_media(color_scheme=scheme)
            count, faint = faint_texts(report.page)
            assert count > 20 and faint == {}, (what, scheme)

    look("table")
    report.page.locator("#sides").click()
    look("panel")
    report.page.keyboard.press("?")
    look("help")
    report.page.keyboard.press("Escape")
    report.cell("0,0,0").focus()
    for key in ("c", "ArrowRight", "Enter"):
        report.page.keyboard.press(key)
    look("comparison")
    report.page.evaluate("document.documentElement.style.setProperty('--soft', '#777')")
    assert faint_texts(report.page)[1]


def test_every_colour_of_the_style_has_a_value_in_both_schemes(report: Shown) -> None:
    """A variable that is missing takes the colour of the text around it, unseen."""
    style = "".join(report.page.locator("style").all_text_contents())
    used = set(re.findall(r"(?:color|background|border[\w-]*|outline): [^;]*?var\(--([\w-]+)\)", style))
    assert used >= {"ink", "soft", "fault", "held"}
    script = "(names) => names.map((name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim())"
    for scheme in ("light", "dark"):
        report.page.emulate_media(color_scheme=scheme)
        found = dict(zip(sorted(used), report.page.evaluate(script, sorted(used)), strict=True))
        assert {name for name, value in found.items() if not re.fullmatch("#[0-9a-f]{6}", value)} == set(), scheme


def test_on_a_phone(shown: Gallery, tmp_path: Path, browser: "Browser") -> None:
    write_report(tmp_path / "report.html", shown)
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    report = Shown(context.new_page(), tmp_path / "report.html")
    assert report.page.evaluate("document.documentElement.scrollWidth") <= 390
    for control in report.page.locator(".bar button:visible, .bar select:visible").all():
        box = control.bounding_box()
        assert box and box["x"] >= 0 and box["x"] + box["width"] <= 390 and box["height"] >= 30
    report.page.locator("#sides").tap()
    assert report.page.evaluate("document.getElementById('panel').scrollWidth") <= 390
    report.page.locator("#sides").tap()
    report.page.locator(".cell").first.tap()
    frame = report.page.locator(".frame").bounding_box()
    assert frame and 250 < frame["width"] <= 390 and frame["x"] >= 0
    assert report.page.evaluate("document.getElementById('viewer').scrollWidth") <= 390
    for name in ("#close", "#in", "#pin", "#mark"):
        box = report.page.locator(name).bounding_box()
        assert box and box["x"] >= 0 and box["x"] + box["width"] <= 390 and box["height"] >= 30
    context.close()
    assert report.troubles == []


@pytest.mark.parametrize("axes", [{}, {"prompt": ["a", "b", "c"]}, {"seed": list(range(30))}], ids=["no axis", "prompts", "seeds"])
def test_grids_of_fewer_axes(axes: dict[str, list[Any]], tmp_path: Path, browser: "Browser") -> None:
    write_report(tmp_path / "report.html", gallery(tmp_path / "images", axes))
    page = browser.new_page()
    report = Shown(page, tmp_path / "report.html")
    labels = [str(label) for values in axes.values() for label in values]
    assert page.locator(".cell").count() == max(len(labels), 1) and page.locator("#grid figcaption").all_inner_texts() == (labels or [""])
    page.locator(".cell").first.click()
    for key in ("ArrowRight", "ArrowDown", "PageDown"):
        page.keyboard.press(key)
    page.keyboard.press("Escape")
    page.close()
    assert report.troubles == []


def test_five_axes_and_lines_far_below_are_filled_as_they_come_into_view(tmp_path: Path, browser: "Browser") -> None:
    axes: dict[str, list[Any]] = {
        "prompt": [f"p{number}" for number in range(14)],
        "seed": [1, 2],
        "steps": [10, 20],
        "guidance": [1, 4],
        "weight": [0, 1, 2],
    }
    found = gallery(tmp_path / "images", axes)
    write_report(tmp_path / "report.html", replace(found, title="five"))
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    report = Shown(page, tmp_path / "report.html")
    page.locator("#sides").click()
    page.get_by_label("Find in prompt").fill("P1")
    page.get_by_role("button", name="Hide all of prompt").click()
    assert page.evaluate("state.hidden[0].size") == 5  # p1 and p10 to p13
    page.get_by_role("button", name="Show all of prompt").click()
    page.get_by_label("Find in prompt").fill("")
    page.locator("#sides").click()
    assert page.evaluate("data.axes.length") == 5 and page.evaluate("lines.list.flatMap(({ cells }) => cells).length") == 336
    assert page.locator(".cell").count() < 336
    page.locator(".cell").first.focus()
    page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
    last = page.evaluate("lines.list.at(-1).cells.at(-1).place.join()")
    report.cell(last).locator("img").wait_for()
    page.keyboard.press("ArrowDown")  # the focused line was kept
    assert report.focused() is not None
    page.close()
    assert report.troubles == []
