"""A report opened in Chromium, by the tests of its page."""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Page

NASTY = """</script><script>document.title="owned"</script> "quotes" 'single' <img src=x onerror=alert(1)> <!-- & ${x} \u2028 猫"""
DESK, PHONE = {"width": 1400, "height": 900}, {"width": 390, "height": 844}


FAINT = r"""() => {
  const rgba = (text) => {
    const found = text.match(/rgba?\(([^)]+)\)/)[1].split(/[ ,\/]+/).map(parseFloat);
    return [...found.slice(0, 3), found[3] ?? 1];
  };
  const over = (top, under) => [0, 1, 2].map((at) => top[at] * top[3] + under[at] * (1 - top[3]));
  const chain = (one) => { const all = []; for (let at = one; at; at = at.parentElement) all.push(getComputedStyle(at)); return all; };
  const light = (colour) => {
    const [r, g, b] = colour.map((one) => { const v = one / 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const faint = {};
  let count = 0;
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.data.trim(), one = walker.currentNode.parentElement;
    if (!text || one.matches("script, style, :disabled, :disabled *") || !one.checkVisibility({ visibilityProperty: true })) continue;
    const styles = chain(one), style = styles[0];
    const papers = styles.map((each) => rgba(each.backgroundColor));
    const first = papers.findIndex((paper) => paper[3] === 1);
    const under = papers.slice(0, first + 1 || papers.length).reverse().reduce((found, paper) => over(paper, found), [255, 255, 255]);
    const seen = styles.reduce((share, each) => share * parseFloat(each.opacity), 1);
    const [r, g, b, alpha] = rgba(one.closest("svg") ? style.fill : style.color);
    const [more, less] = [light(over([r, g, b, alpha * seen], under)), light(under)].sort((x, y) => y - x);
    const ratio = (more + 0.05) / (less + 0.05), size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && parseInt(style.fontWeight) >= 700);
    count += 1;
    if (ratio < (large ? 3 : 4.5)) faint[`${one.tagName}.${one.className}: ${text.slice(0, 40)}`] = ratio.toFixed(2);
  }
  return [count, faint];
}"""


def faint_texts(page: "Page") -> tuple[int, dict[str, str]]:
    """How many texts are seen, and those with less contrast than WCAG 2.2 AA asks: 4.5, or 3 where letters are large."""
    count, faint = page.evaluate(FAINT)
    return count, faint


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
