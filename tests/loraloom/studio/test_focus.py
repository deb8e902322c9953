"""Where the keyboard is after a dialog, and after a part of the page was drawn anew, in Chromium."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.loraloom.studio.opened import Served
from tests.patience import until
from tests.train.data.editing.conftest import image

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser

# A section whose rows are drawn anew by draw(): in each a button that asks, one that opens, and a link that opens without button().
SECTION = """async () => {
const { button, confirmed, dialog } = await import("./app/parts.js");
const list = make("ul");
window.answers = [];
window.before = async () => {};
window.names = ["fox", "owl"];
const second = () => { dialog("Second", make("p", {}, "Second")); };
const open = () => dialog("Opened", make("p", {}, "What was opened."), button("More", { act: second }));
const row = (name) => {
  const link = make("a", { href: "#", role: "button" }, "Look");
  link.addEventListener("click", (event) => { event.preventDefault(); open(); });
  const ask = async () => { await before(); answers.push([name, await confirmed(`Remove ${name}?`, "Yes")]); };
  const asks = button("Remove", { words: ["remove", name], act: ask });
  return make("li", {}, make("strong", {}, name), asks, button("Open", { act: async () => { await before(); open(); } }), link);
};
window.draw = () => list.replaceChildren(...names.map(row));
draw();
by("main").replaceChildren(list);
}"""
FOCUS = """() => { const one = document.activeElement;
const around = one.closest("li")?.firstChild ?? one.closest("dialog")?.querySelector("h2");
return one.id || `${around?.textContent} ${one.textContent}`; }"""


@pytest.fixture
def page(served: Served, browser: "Browser") -> "Page":
    page = browser.new_page()
    page.goto(f"{served.address}#/models")
    page.get_by_text("There is nothing yet").or_(page.locator(".model-card").first).wait_for()
    page.evaluate(SECTION)
    return page


def press(page: "Page", row: str, label: str, title: str) -> None:
    page.locator("li", has_text=row).get_by_text(label, exact=True).focus()
    page.keyboard.press("Enter")
    page.get_by_role("dialog", name=title).wait_for()


def becomes(page: "Page", wanted: str, script: str = FOCUS) -> bool:
    """Whether this is so soon: the event `close` of a dialog comes after the key."""
    return until(lambda: bool(page.evaluate(script) == wanted))


def focused(page: "Page", wanted: str) -> bool:
    """Whether no dialog is left and this is focused."""
    return becomes(page, f"0 {wanted}", f"document.querySelectorAll('dialog').length + ' ' + ({FOCUS})()")


@pytest.mark.parametrize("label", ["Open", "Look", "Remove"])
def test_the_focus_goes_back_to_what_opened_a_dialog(page: "Page", label: str) -> None:
    title = "Sure?" if label == "Remove" else "Opened"
    press(page, "owl", label, title)
    page.keyboard.press("Escape")
    assert focused(page, f"owl {label}")
    press(page, "owl", label, title)
    page.evaluate("names.unshift('bone'); draw()")  # while it is open
    page.keyboard.press("Escape")
    assert focused(page, f"owl {label}")
    page.evaluate("draw()")  # after it
    assert focused(page, f"owl {label}")
    press(page, "owl", label, title)
    page.evaluate("names.pop(); draw()")
    page.keyboard.press("Escape")
    assert focused(page, "main")
    page.close()


@pytest.mark.parametrize("label", ["Open", "Remove"])
def test_what_is_drawn_anew_before_its_dialog_opens_is_found(page: "Page", label: str) -> None:
    page.evaluate("() => { before = async () => { await new Promise((done) => setTimeout(done, 100)); draw(); }; }")
    press(page, "fox", label, "Sure?" if label == "Remove" else "Opened")
    page.keyboard.press("Escape")
    assert focused(page, f"fox {label}")
    page.close()


def test_the_focus_goes_back_through_two_dialogs(page: "Page") -> None:
    press(page, "fox", "Open", "Opened")
    page.get_by_role("button", name="More").press("Enter")
    page.get_by_role("dialog", name="Second").wait_for()
    page.evaluate("draw()")
    page.keyboard.press("Escape")
    assert becomes(page, "Opened More")
    page.keyboard.press("Escape")
    assert focused(page, "fox Open")
    page.close()


def test_what_was_asked_is_done_and_the_focus_is_where_it_was(page: "Page") -> None:
    press(page, "fox", "Remove", "Sure?")
    page.evaluate("draw()")
    page.get_by_role("button", name="Yes").press("Enter")
    assert focused(page, "fox Remove") and page.evaluate("answers") == [["fox", True]]
    page.locator("#command-kind", has_text="Done").wait_for()  # the focus that is given back shows no command
    assert page.locator("#command").text_content() == "loraloom remove fox"
    page.close()


def test_the_focus_is_not_taken_back_where_it_was_left(page: "Page") -> None:
    page.locator("li", has_text="fox").get_by_text("Open").focus()
    page.locator("#main").click(position={"x": 5, "y": 300}, force=True)
    page.evaluate("draw()")
    assert page.evaluate("document.activeElement.id") in ("main", "")
    page.close()


def test_a_set_that_changes_while_its_history_is_open(served: Served, browser: "Browser") -> None:
    ink = served.studio.folder / "ink"
    image(ink / "fox.png", 1)
    page = browser.new_page()
    page.goto(f"{served.address}#/data/{str(ink).replace('/', '%2F')}")
    page.wait_for_selector(".row")
    page.get_by_role("button", name="History").press("Enter")
    page.get_by_role("dialog", name="Edits of this set").wait_for()
    written: Path = ink / "fox.txt"
    written.write_text("a fox")
    assert becomes(page, "a fox", "document.querySelector('.caption textarea').value")
    page.keyboard.press("Escape")
    assert becomes(page, "History", "document.activeElement.textContent")
    page.close()
