"""Two cells compared in Chromium: slider, side by side, blink, difference with gain and number; cycles, marks, scores."""

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from infer.output.gallery import Gallery, Score
from infer.output.report import write_report
from tests.infer.output.opened import NASTY, Shown

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.browser


def compare(report: Shown, first: str, second: str) -> dict[str, float]:
    """Open two cells side against side; gives the box of their image."""
    report.page.locator("#pair").click()
    report.open(first)
    report.open(second)
    box = report.page.locator(".frame").bounding_box()
    assert box
    return {"x": box["x"], "y": box["y"], "width": box["width"], "height": box["height"]}


def colours(report: Shown, frame: dict[str, float]) -> tuple[Any, Any]:
    """The pixels a quarter from the left and from the right, as they are seen."""
    y = frame["y"] + frame["height"] / 4
    return report.colour(frame["x"] + frame["width"] / 4, y), report.colour(frame["x"] + frame["width"] * 3 / 4, y)


def test_two_cells_under_a_slider(report: Shown) -> None:
    frame = compare(report, "0,0,0", "0,0,2")
    assert report.text("#pair-text").split() == ["A", "weight", "0", "weight", "1", "B"]
    assert colours(report, frame) == ((0, 0, 0), (0, 0, 80))  # A left, B right
    report.page.mouse.move(frame["x"] + frame["width"] / 2, frame["y"] + 50)
    report.page.mouse.down()
    report.page.mouse.move(frame["x"] + frame["width"] * 0.1, frame["y"] + 60, steps=4)
    report.page.mouse.up()
    assert colours(report, frame) == ((0, 0, 80), (0, 0, 80))
    handle = report.page.get_by_role("slider", name="Where A ends")
    assert handle.get_attribute("aria-valuenow") == "10"
    handle.focus()
    report.page.keyboard.press("End")
    assert handle.get_attribute("aria-valuenow") == "100" and colours(report, frame) == ((0, 0, 0), (0, 0, 0))
    report.page.get_by_role("button", name="Side by side").click()
    assert report.page.locator(".frame").count() == 2
    report.page.locator("#viewer").press("ArrowLeft")  # B goes back to the failed cell: nothing to compare
    assert report.text("#world").startswith("failed") and not report.page.locator("#modes").is_visible()
    report.page.keyboard.press("c")
    report.page.keyboard.press("Escape")
    report.page.wait_for_function("() => !document.querySelector('.cell.held')")
    assert report.page.locator(".cell.held").count() == 0


def test_space_shows_a_whatever_button_has_the_focus(report: Shown) -> None:
    frame = compare(report, "0,0,0", "0,0,2")
    for button in ("#close", "#pin", "#modes [data-mode=blink]"):
        report.page.locator(button).focus()
        report.page.keyboard.down(" ")
        assert colours(report, frame) == ((0, 0, 0), (0, 0, 0))
        report.page.keyboard.up(" ")
        assert colours(report, frame) == ((0, 0, 0), (0, 0, 80))  # open, compared, and under the slider still
    report.page.keyboard.press("c")
    report.page.locator("#close").press(" ")  # nothing is compared: a button keeps its key
    report.page.wait_for_function("() => !document.getElementById('viewer').open")


def test_a_difference_has_a_gain_and_an_exact_number(report: Shown) -> None:
    frame = compare(report, "0,0,0", "1,1,2")  # (0, 0, 0) and (40, 40, 80)
    report.page.keyboard.press("4")
    assert colours(report, frame) == ((40, 40, 80), (40, 40, 80))
    report.page.get_by_text("Mean difference").wait_for()
    assert report.text("#apart") == "Mean difference 53.333 of 255, largest 80, 100.0 % of the pixels differ"
    report.page.get_by_label("Gain of the difference").focus()
    report.page.keyboard.press("ArrowRight")
    assert report.text("#gain-text") == "× 2" and colours(report, frame) == ((80, 80, 160), (80, 80, 160))


def test_a_blink_alternates_at_its_speed(report: Shown) -> None:
    frame = compare(report, "0,0,0", "0,0,2")
    report.page.get_by_role("button", name="Blink").click()
    report.page.locator("#speed-2").select_option("0.25")
    for now in ("hidden", "visible", "hidden"):
        report.page.wait_for_function("now => getComputedStyle(document.querySelector('.over')).visibility === now", arg=now)
    assert set(colours(report, frame)) <= {(0, 0, 0), (0, 0, 80)}
    report.page.keyboard.press("Escape")
    report.page.wait_for_function("() => blinking === null")


def test_a_cycle_goes_along_an_axis_and_around(report: Shown) -> None:
    report.open("1,1,1")
    report.page.locator("#viewer").get_by_role("button", name="Cycle along weight").click()
    report.page.locator("#speed-2").select_option("0.25")
    for now in ("0", "0.5", "1", "0"):
        report.page.wait_for_function("now => by('caption').innerText.split(' ').at(-1) === now", arg=now)
    report.page.keyboard.press("Escape")
    report.page.wait_for_function("() => cycling === null")
    report.go("#rows=0&columns=2&select=1-0")
    report.page.reload()
    report.page.locator(".bar").get_by_role("button", name="Cycle along seed").click()
    report.page.wait_for_function("() => state.at[1] === 1")
    report.page.wait_for_function("() => state.at[1] === 0")
    report.page.locator(".bar").get_by_role("button", name="Stop the cycle along seed").click()
    assert report.page.evaluate("cycling") is None


def test_marks_are_kept_filtered_copied_and_saved(report: Shown, tmp_path: Path) -> None:
    report.cell("1,1,2").focus()
    report.page.keyboard.press("m")
    assert report.focused() == "1,1,2" and report.page.locator(".cell.marked").count() == 1
    report.open("0,0,0")
    report.page.locator("#mark").click()
    report.page.keyboard.press("Escape")
    report.page.wait_for_function("() => !location.hash.includes('cell')")
    report.page.reload()
    assert report.page.locator(".cell.marked").count() == 2 and report.text("#marks") == "★ 2"
    report.page.locator("#marks").click()
    report.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    report.page.locator("#copy-marks").click()
    report.page.get_by_text("Copied").wait_for()
    keys = report.page.evaluate("navigator.clipboard.readText()").split()
    assert len(keys) == 2 and all(len(key) == 64 for key in keys)
    with report.page.expect_download() as waiting:
        report.page.locator("#save-marks").click()
    waiting.value.save_as(tmp_path / "marks.json")
    saved = json.loads((tmp_path / "marks.json").read_text(encoding="utf-8"))
    assert {one["key"] for one in saved["marked"]} == set(keys) and saved["marked"][1]["axes"]["prompt"] == NASTY
    report.page.get_by_role("button", name="Show only these").click()
    report.page.keyboard.press("Escape")
    assert sorted(report.places()) == ["0,0,0", "1,1,2"]


def test_marks_of_two_tabs_are_added_to_one_another(shown: Gallery, tmp_path: Path, browser: "Browser") -> None:
    write_report(tmp_path / "report.html", shown)
    context = browser.new_context()
    report, other = (Shown(context.new_page(), tmp_path / "report.html") for _ in range(2))
    for tab, place in ((report, "0,0,0"), (other, "1,1,2"), (report, "0,1,0")):
        tab.cell(place).focus()
        tab.page.keyboard.press("m")
    for tab in (report, other):
        tab.page.wait_for_function("() => document.querySelectorAll('.cell.marked').length === 3")
        assert tab.text("#marks") == "★ 3"
    report.page.reload()
    assert report.page.locator(".cell.marked").count() == 3
    other.cell("0,0,0").focus()
    other.page.keyboard.press("m")
    report.page.wait_for_function("() => state.marked.size === 2")
    other.page.evaluate("localStorage.setItem(MARKS, JSON.stringify([...keptMarks()].slice(1)))")  # written, and not yet heard of here
    report.page.wait_for_function("() => state.marked.size === 1")
    context.close()
    assert report.troubles == other.troubles == []


@pytest.fixture
def scored(shown: Gallery) -> Gallery:
    """The grid with a score that grows with the weight and is lower for the second prompt."""
    of = {one.place: one.place[2] - one.place[0] + one.place[1] / 10 for one in shown.images}
    images = [replace(one, scores={"sharp": None if one.path is None else of[one.place]}) for one in shown.images]
    return replace(shown, images=images, scores=(Score(name="sharp", definition="how sharp <b>it</b> is", better="higher"),))


def test_scores_are_on_the_tiles_and_order_values_and_ranking(scored: Gallery, tmp_path: Path, browser: "Browser") -> None:
    write_report(tmp_path / "report.html", scored)
    page = browser.new_page(viewport={"width": 1200, "height": 800})
    report = Shown(page, tmp_path / "report.html")
    page.locator("#score").select_option(label="sharp")
    assert "how sharp <b>it</b> is (higher is better)" in report.text("#hint")
    assert page.locator(".score").count() == 10 and report.cell("0,1,2").locator(".score").inner_text() == "2.1"
    page.locator("#view").select_option("ranking")
    assert report.places()[:3] == ["0,1,2", "0,0,2", "0,1,1"] and report.places()[-1] == "0,0,1"  # without a score: last
    report.open("0,1,2")
    for key, caption in (
        ("ArrowRight", "a cat · seed 1 · weight 1"),
        ("ArrowDown", "a cat · seed 2 · weight 0.5"),
        ("ArrowLeft", "a cat · seed 1 · weight 1"),
    ):
        page.keyboard.press(key)
        assert report.text("#caption") == f"prompt {caption}"
    page.keyboard.press("Escape")
    page.wait_for_function("() => state.open === null")
    page.locator("#view").select_option("grid")
    page.locator("#sides").click()
    page.get_by_label("Order of weight").select_option(label="by sharp")
    assert page.locator(".name:not(.spans)").all_inner_texts()[:3] == ["1", "0.5", "0"]
    report.open("0,1,2")
    assert report.text("#scores") == "sharp\t2.1"
    page.close()
    assert report.troubles == []
