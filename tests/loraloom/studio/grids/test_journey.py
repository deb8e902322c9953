"""In the page: a grid of the embedded base is built, drawn live, looked at, voted on and ranked, without the terminal."""

from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from infer.vote.votes import NAME, read_votes
from tests.infer.output.opened import faint_texts
from tests.loraloom.studio.grids.made import drawn
from tests.loraloom.studio.opened import Served

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.browser


def test_from_settings_to_a_ranking(studio: Served, browser: "Browser") -> None:
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    troubles: list[str] = []
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("console", lambda message: troubles.append(message.text) if message.type == "error" else None)
    page.goto(f"{studio.address}#/grids")
    page.get_by_role("link", name="New grid").first.click()
    page.get_by_label("prompt 1", exact=True).fill("a cat, sitting")
    page.get_by_label("prompt 1", exact=True).press("Enter")
    page.get_by_label("prompt 2", exact=True).fill('a "red" apple')
    page.get_by_role("button", name="seed: value").click()
    page.get_by_role("button", name="steps: axis").click()
    page.get_by_label("steps 1", exact=True).fill("x")
    page.locator('.setting[data-name="steps"] .field-fault:not([hidden])').wait_for()
    page.get_by_label("steps 1", exact=True).fill("2,3")
    page.get_by_label("steps 1", exact=True).fill("2-4")
    page.locator(".facts-list", has_text="6 (2 × 3)").wait_for()
    words = """loraloom grid 'axes.prompt=["a cat, sitting","a \\"red\\" apple"]' 'axes.steps=[2-4]'"""
    assert page.locator("#grid-command").inner_text() == page.locator("#command").inner_text()
    assert page.locator("#grid-command").inner_text() == words
    assert faint_texts(page)[1] == {}
    page.get_by_role("button", name="Draw").click()
    page.wait_for_url("**#/grids/grid?**")
    frame = page.frame_locator("iframe.grid-frame")
    page.locator(".heading", has_text="6 cells").wait_for()
    frame.locator(".summary", has_text="6 cells · 6").wait_for()  # the live page has become the finished one

    frame.locator(".cell img").first.click()
    page.get_by_role("link", name="Vary this cell").wait_for()
    assert frame.locator("#viewer #command").inner_text().startswith("loraloom grid base=pocket")
    frame.locator("#close").click()
    frame.locator("#pair").click()
    frame.locator(".cell img").nth(0).click()
    frame.locator(".cell img").nth(1).click()
    frame.locator("#stage[data-mode=slider] img.over").wait_for()
    frame.locator("#close").click()

    page.get_by_role("link", name="Vote").click()
    frame.get_by_label("Your name").fill("anna")
    frame.get_by_role("button", name="Start").click()
    for number in range(6):
        frame.locator("#count", has_text=f"{number} of ").wait_for()
        frame.locator("button[data-choice=left]:enabled").click()
    frame.get_by_role("heading", name="Done").wait_for()
    (folder,) = (path.parent for path in studio.studio.folder.glob(f"runs/*/*/{NAME}"))
    assert len(read_votes(folder / NAME).votes) >= 6
    page.get_by_role("link", name="Ranking").click()
    frame.get_by_role("heading", name="Ranking by steps").wait_for()
    assert frame.locator(".forest").first.locator("tbody tr").count() == 3
    assert troubles == []
    page.close()


def test_the_bar_has_the_scores_that_are_ticked(studio: Served, browser: "Browser") -> None:
    folder = drawn(studio.studio.folder / "runs" / "hat" / "20260101-120000")
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    page.goto(f"{studio.address}#/grids/grid?folder={quote(str(folder), safe='')}")
    page.get_by_role("button", name="Score").click()
    page.get_by_label("sharpness", exact=True).check()
    page.locator("dialog").get_by_role("button", name="Score").hover()
    assert page.locator("#command").inner_text() == f"loraloom score {folder} --score sharpness"
    page.close()


def test_a_telephone_has_all_of_it(studio: Served, browser: "Browser") -> None:
    page = browser.new_page(viewport={"width": 390, "height": 844}, color_scheme="dark")
    page.goto(f"{studio.address}#/grids/new")
    page.locator(".plan-faults li").first.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth") and faint_texts(page)[1] == {}
    page.keyboard.press("Tab")
    unnamed = "all => all.filter((one) => !one.labels?.length && !one.getAttribute('aria-label')).map((one) => one.outerHTML)"
    assert page.locator("main input, main select, main textarea").evaluate_all(unnamed) == []
    page.close()


def test_models_are_picked_from_their_cards(studio: Served, browser: "Browser") -> None:
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    page.goto(f"{studio.address}#/grids/new?adapter=nowhere")
    page.get_by_role("button", name="Pick base").click()
    page.locator(".pick-card", has_text="pocket").click()
    assert page.locator('.setting[data-name="base"] input').input_value() == "pocket"
    page.locator('.setting[data-name="adapters"] .field-fault', has_text="nowhere").wait_for()
    page.get_by_role("button", name="base: axis").click()
    page.get_by_role("button", name="Pick base").click()
    page.locator(".pick-card", has_text="pocket").click()
    page.get_by_role("button", name="Add 1").click()
    assert page.get_by_label("base 1", exact=True).input_value() == "pocket" and page.get_by_label("base 2", exact=True).count() == 0
    page.close()
