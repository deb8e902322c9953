"""The browser of the browser tier."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tests.infer.vote.made import chromium
from tests.patience import PATIENCE, until

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Route


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


def intercept(page: "Page", address: Callable[[str], bool], handler: "Callable[[Route], object]") -> None:
    """Requests of a page to such an address go to `handler`, from the next one on.

    `page.route` alone comes back before Chromium's renderer has been told: a request that an open page sends right after it may go past
    the handler. So requests of our own are sent from it until one of them is caught.
    """
    caught: list[str] = []

    def probe(route: "Route") -> None:
        caught.append(route.request.url)
        route.fulfill(body="")

    page.route(address, handler)
    if page.url == "about:blank":
        return
    page.route("**/*intercepted-yet", probe)
    until(lambda: page.evaluate("fetch('?intercepted-yet').then((answer) => answer.ok)") and caught)
    page.unroute("**/*intercepted-yet", probe)
