"""The shell of the page in Chromium: commands as a shell takes them, addresses that are none, and a Studio that was started again."""

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from registry.printable import HIDDEN, shell_word
from tests.loraloom.studio.opened import Served, serving

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.browser

WORDS = [
    "a b",
    "it's",
    "",
    "-x",
    "$(date)",
    "`id`",
    "!x",
    "back\\slash",
    "\x1b[31mred",
    "a\nb'c\\",
    "\u202ertl\u2028",
    "猫\r",
    "\x07" + "1",
]
COMMAND = """async (words) => { const { shellWord } = await import("./app/api.js"); return words.map(shellWord); }"""


def test_a_word_is_for_a_shell_what_it_is_for_the_commands(served: Served, browser: "Browser") -> None:
    page = browser.new_page()
    page.goto(served.address)
    written = page.evaluate(COMMAND, WORDS)
    page.close()
    assert not any(HIDDEN.search(word) for word in written)
    assert [word for word in written if word.startswith("$")] == [shell_word(word) for word in WORDS if HIDDEN.search(word)]
    read = subprocess.run(["bash", "-c", f"printf '%s\\0' {' '.join(written)}"], capture_output=True, check=True).stdout
    assert read.decode().split("\0")[:-1] == WORDS


def test_an_address_that_was_cut_shows_its_section(served: Served, browser: "Browser") -> None:
    page = browser.new_page()
    troubles: list[str] = []
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.goto(f"{served.address}#/models/%")
    page.locator(".heading h1", has_text="Models").wait_for()
    page.close()
    assert troubles == []


def test_the_keyboard_is_in_the_content_after_a_link_in_it(served: Served, browser: "Browser") -> None:
    page = browser.new_page()
    page.goto(f"{served.address}#/models?text=pocket")
    page.locator(".model-link").first.focus()
    page.keyboard.press("Enter")
    page.locator(".crumbs").wait_for()
    assert page.evaluate("document.activeElement.id") == "main"
    page.keyboard.press("Tab")
    assert page.locator(".crumbs a").evaluate("(one) => one === document.activeElement")
    page.close()


def test_a_page_of_a_studio_that_was_started_again_says_so(tmp_path: Path, browser: "Browser") -> None:
    page = browser.new_page()
    with serving(tmp_path, home=tmp_path / "home") as first:
        page.goto(f"{first.address}#/models")
        page.get_by_text("There is nothing yet").or_(page.locator(".model-card").first).wait_for()
    with serving(tmp_path, home=tmp_path / "home", port=first.port):
        page.get_by_label("Order").select_option("name")
        page.locator(".message", has_text="has ended. Open the address of the one that runs now").wait_for()
        assert page.locator("#offline").is_visible()
    page.close()
