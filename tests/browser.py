"""The browser of the browser tier."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tests.infer.vote.made import chromium
from tests.patience import PATIENCE

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


@contextmanager
def launched() -> Iterator["Browser"]:
    """Chromium, whose pages wait as long as all tests do."""
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=PATIENCE * 1000)
    options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium(), args=options)
        new_page = opened.new_page

        def patient(**given: Any) -> "Page":
            page = new_page(**given)
            page.set_default_timeout(PATIENCE * 1000)
            return page

        opened.new_page = patient  # type: ignore[method-assign]
        yield opened
        opened.close()
