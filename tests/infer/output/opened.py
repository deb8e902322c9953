"""A report opened in Chromium, by the tests of its page."""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Page

NASTY = """</script><script>document.title="owned"</script> "quotes" 'single' <img src=x onerror=alert(1)> <!-- & ${x} \u2028 猫"""
DESK, PHONE = {"width": 1400, "height": 900}, {"width": 390, "height": 844}


def data_of(path: Path) -> dict[str, Any]:
    """The data of a report."""
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', path.read_text(encoding="utf-8"), re.S)
    assert found
    value: dict[str, Any] = json.loads(found[1])
    return value


class Shown:
    """An open report that fails its test when the page says an error or asks for anything that does not lie beside it."""

    def __init__(self, page: "Page", path: Path, address: str = "") -> None:
        self.page = page
        self.path = path
        self.troubles: list[str] = []
        page.on("console", lambda message: self.troubles.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: self.troubles.append(str(error)))
        page.on("request", lambda request: None if request.url.startswith(("file:", "data:")) else self.troubles.append(request.url))
        self.go(address)

    def go(self, address: str) -> None:
        """Open the report with this behind its path."""
        self.page.goto(self.path.as_uri() + address)

    def text(self, selector: str) -> str:
        return self.page.locator(selector).inner_text()

    def focused(self) -> str | None:
        place: str | None = self.page.evaluate("document.activeElement.dataset.place ?? null")
        return place

    def cell(self, place: str) -> Any:
        return self.page.locator(f'.cell[data-place="{place}"]')

    def open(self, place: str) -> None:
        self.cell(place).click()

    def places(self) -> list[str]:
        """The cells in the order in which they stand."""
        found: list[str] = self.page.locator(".cell").evaluate_all("all => all.map((one) => one.dataset.place)")
        return found

    def colour(self, x: float, y: float) -> tuple[int, int, int]:
        """A pixel of the window as it is seen."""
        import io

        from PIL import Image

        with Image.open(io.BytesIO(self.page.screenshot())) as seen:
            pixel = seen.convert("RGB").getpixel((int(x), int(y)))
        assert isinstance(pixel, tuple)
        return pixel[0], pixel[1], pixel[2]
