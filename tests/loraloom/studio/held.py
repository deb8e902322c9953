"""Requests of a page that wait, so that a test does something while their answer is under way."""

from typing import TYPE_CHECKING

from tests.browser import intercept
from tests.patience import until

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route


class Held:
    """The requests of a page whose address has all of `parts`, and none of `without`: none is sent until it is let go."""

    def __init__(self, page: "Page", *parts: str, without: str = "\0") -> None:
        self.page = page
        self.waiting: list[Route] = []
        intercept(
            page,
            lambda address: all(part in address for part in parts) and without not in address,
            lambda route: self.waiting.append(route),
        )

    def next(self) -> "Route":
        """The next one, once it is asked for: `continue_()` lets it go."""

        def asked() -> "Route | None":
            self.page.title()  # what the browser says arrives while it is asked
            return self.waiting.pop(0) if self.waiting else None

        return until(asked)
