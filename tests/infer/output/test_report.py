"""The report: self-contained, safe whatever a prompt says, and usable with mouse, keyboard and thumb in a real browser."""

import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import infer.output.report
from infer.output.gallery import Gallery
from infer.output.report import LiveImages, write_live_report, write_report
from registry.printable import script_json
from tests.infer.images import gallery

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NASTY = """</script><script>document.title="owned"</script> "quotes" 'single' <img src=x onerror=alert(1)> <!-- & ${x} \u2028 猫"""


def data_of(path: Path) -> dict[str, Any]:
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', path.read_text(encoding="utf-8"), re.S)
    assert found
    value: dict[str, Any] = json.loads(found[1])
    return value


@pytest.fixture
def shown(tmp_path: Path) -> Gallery:
    """Two prompts by three weights by two seeds; one cell failed, one is not there."""
    axes = {"prompt": ["a cat", NASTY], "seed": ["1", "2"], "weight": ["0", "0.5", "1"]}
    return gallery(tmp_path / "images", axes, failed=[(0, 0, 1)], absent=[(1, 0, 2)], title='a "grid" </title><b>')


def test_everything_is_inside_and_nothing_escapes(shown: Gallery, tmp_path: Path) -> None:
    assert write_report(tmp_path / "report.html", shown) == []
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert text.count("<script") == text.count("</script>") == 2 and "<b>" not in text and "<img" not in text
    frame = re.sub(r'<script id="data".*?</script>', "", text, flags=re.S)
    assert re.findall(r"""(?:src|href)=["']?([^"'> ]+)""", frame) == ["data:,"] and "//" not in re.sub(r"(?m)^// .*$| // .*$", "", frame)
    data = data_of(tmp_path / "report.html")
    assert (
        len(data["cells"]) == 11 and len(data["images"]) == 10 and all(one.startswith("data:image/png;base64,") for one in data["images"])
    )
    assert {cell["settings"][2][1] for cell in data["cells"]} >= {f"{NASTY} 1 0"}
    assert [cell["error"] for cell in data["cells"] if cell["image"] is None] == ["Out of memory: <b>2 GiB</b> were asked for."]


def test_script_json_cannot_be_left() -> None:
    text = script_json({"a": "</script><!--\u2028&"})
    assert not set("<>&\u2028") & set(text) and json.loads(text) == {"a": "</script><!--\u2028&"}


def test_a_report_that_would_be_too_large_holds_smaller_images_and_says_so(
    shown: Gallery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(infer.output.report, "LARGEST", 1500)
    (note,) = write_report(tmp_path / "report.html", shown)
    assert "WebP" in note and "images/" in note and note in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert data_of(tmp_path / "report.html")["images"][0].startswith("data:image/webp")


# --- in a browser


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    from playwright.sync_api import sync_playwright

    program = (
        os.environ.get("LORALOOM_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    )
    assert program, "The browser tier needs chromium: install it, or name it in LORALOOM_CHROMIUM."
    options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=program, args=options)
        yield opened
        opened.close()


class Shown:
    """An open report that fails its test when the page says an error or asks for anything."""

    def __init__(self, page: "Page", path: Path) -> None:
        self.page = page
        self.troubles: list[str] = []
        page.on("console", lambda message: self.troubles.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: self.troubles.append(str(error)))
        page.on("request", lambda request: None if request.url.startswith(("file:", "data:")) else self.troubles.append(request.url))
        page.goto(path.as_uri())

    def text(self, selector: str) -> str:
        return self.page.locator(selector).inner_text()

    def focused(self) -> str | None:
        place: str | None = self.page.evaluate("document.activeElement.dataset.place ?? null")
        return place

    def open(self, place: str) -> None:
        self.page.locator(f'.cell[data-place="{place}"]').click()


@pytest.fixture
def report(shown: Gallery, tmp_path: Path, browser: "Browser") -> Iterator[Shown]:
    write_report(tmp_path / "report.html", shown)
    page = browser.new_page(viewport={"width": 1200, "height": 800})
    opened = Shown(page, tmp_path / "report.html")
    yield opened
    page.close()
    assert opened.troubles == []


@pytest.mark.browser
def test_the_grid_and_its_axes(report: Shown) -> None:
    assert report.page.title() == 'a "grid" </title><b>'  # no prompt ran
    assert report.page.locator("thead th").all_inner_texts() == ["0", "0.5", "1"]
    assert report.page.locator(".cell").count() == 5 and report.page.locator(".empty").count() == 1
    assert report.page.locator("#grid tbody th").all_text_contents()[1] == NASTY
    assert "Out of memory: <b>2 GiB</b>" in report.text(".cell.broken")
    report.page.get_by_label("seed", exact=True).select_option(label="2")
    assert report.page.locator(".cell").count() == 6
    report.page.get_by_label("Rows", exact=True).select_option(label="weight")  # trades places with what was there
    assert report.page.locator("thead th").all_inner_texts()[0] == "a cat" and report.page.locator("#grid tbody th").all_inner_texts() == [
        "0",
        "0.5",
        "1",
    ]
    assert report.page.locator(".cell img").first.evaluate("image => image.naturalWidth") == 64


@pytest.mark.browser
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
    report.page.locator("#copy").click()
    report.page.get_by_text("Copied").wait_for()
    assert report.page.evaluate("navigator.clipboard.readText()") == report.page.locator("#parameters").text_content()
    assert (report.page.locator("#save").get_attribute("href") or "").startswith("data:image/png")
    report.page.keyboard.press("Escape")
    assert not report.page.locator("#viewer").is_visible() and report.focused() == "1,0,1"


@pytest.mark.browser
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


@pytest.mark.browser
def test_flipping_with_the_keyboard(report: Shown) -> None:
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


@pytest.mark.browser
def test_two_cells_under_a_slider(report: Shown) -> None:
    report.page.locator("#pair").click()
    report.open("0,0,0")
    assert "Choose the cell to compare it with" in report.text("#hint")
    report.open("0,0,2")
    assert report.text("#sides").split() == ["A", "weight", "0", "weight", "1", "B"]
    frame = report.page.locator(".frame").bounding_box()
    assert frame

    def colours() -> tuple[Any, Any]:
        """The pixels a quarter from the left and from the right, as they are seen."""
        import io

        from PIL import Image

        with Image.open(io.BytesIO(report.page.screenshot())) as seen:
            image = seen.convert("RGB")
        y = int(frame["y"] + frame["height"] / 4)
        return image.getpixel((int(frame["x"] + frame["width"] / 4), y)), image.getpixel((int(frame["x"] + frame["width"] * 3 / 4), y))

    assert colours() == ((0, 0, 0), (0, 0, 80))  # A left, B right
    report.page.mouse.move(frame["x"] + frame["width"] / 2, frame["y"] + 50)
    report.page.mouse.down()
    report.page.mouse.move(frame["x"] + frame["width"] * 0.1, frame["y"] + 60, steps=4)
    report.page.mouse.up()
    assert colours() == ((0, 0, 80), (0, 0, 80))
    handle = report.page.get_by_role("slider", name="Where A ends")
    assert handle.get_attribute("aria-valuenow") == "10"
    handle.focus()
    report.page.keyboard.press("End")
    assert handle.get_attribute("aria-valuenow") == "100" and colours() == ((0, 0, 0), (0, 0, 0))
    report.page.get_by_role("button", name="Difference").click()
    assert colours() == ((0, 0, 80), (0, 0, 80))
    report.page.get_by_role("button", name="Side by side").click()
    assert report.page.locator(".frame").count() == 2
    report.page.locator("#viewer").press("ArrowLeft")  # B goes back to the failed cell: nothing to compare
    assert report.text("#world").startswith("failed") and not report.page.locator("#modes").is_visible()
    report.page.keyboard.press("c")
    report.page.keyboard.press("Escape")
    report.page.wait_for_function("() => !document.querySelector('.cell.held')")
    assert report.page.locator(".cell.held").count() == 0


@pytest.mark.browser
def test_light_and_dark(report: Shown) -> None:
    def paper() -> str:
        colour: str = report.page.evaluate("getComputedStyle(document.body).backgroundColor")
        return colour

    light = paper()
    report.page.locator("#theme").click()
    dark = paper()
    report.page.locator("#theme").click()
    assert light == paper() != dark
    report.page.emulate_media(color_scheme="dark")
    report.page.reload()
    assert paper() == dark


@pytest.mark.browser
def test_on_a_phone(shown: Gallery, tmp_path: Path, browser: "Browser") -> None:
    write_report(tmp_path / "report.html", shown)
    context = browser.new_context(viewport={"width": 390, "height": 800}, has_touch=True, is_mobile=True)
    report = Shown(context.new_page(), tmp_path / "report.html")
    assert report.page.evaluate("document.documentElement.scrollWidth") <= 390
    report.page.locator(".cell").first.tap()
    frame = report.page.locator(".frame").bounding_box()
    assert frame and 250 < frame["width"] <= 390 and frame["x"] >= 0
    assert report.page.evaluate("document.getElementById('viewer').scrollWidth") <= 390
    for name in ("#close", "#in", "#pin"):
        box = report.page.locator(name).bounding_box()
        assert box and box["x"] >= 0 and box["x"] + box["width"] <= 390 and box["height"] >= 30
    context.close()
    assert report.troubles == []


@pytest.mark.browser
@pytest.mark.parametrize("axes", [{}, {"prompt": ["a", "b", "c"]}, {"seed": list(range(30))}], ids=["no axis", "prompts", "seeds"])
def test_grids_of_fewer_axes(axes: dict[str, list[Any]], tmp_path: Path, browser: "Browser") -> None:
    write_report(tmp_path / "report.html", gallery(tmp_path / "images", axes))
    page = browser.new_page()
    report = Shown(page, tmp_path / "report.html")
    labels = [str(label) for values in axes.values() for label in values]
    assert page.locator(".cell").count() == max(len(labels), 1) and page.locator("figcaption").all_inner_texts() == labels
    page.locator(".cell").first.click()
    for key in ("ArrowRight", "ArrowDown", "PageDown"):
        page.keyboard.press(key)
    page.keyboard.press("Escape")
    page.close()
    assert report.troubles == []


@pytest.mark.browser
def test_a_report_of_a_grid_that_is_drawn_loads_itself_again_but_not_while_an_image_is_open(
    shown: Gallery, tmp_path: Path, browser: "Browser", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(infer.output.report, "REFRESH", 1)
    path, live = tmp_path / "report.html", LiveImages()
    write_live_report(path, replace(shown, title="first"), live)
    page = browser.new_page(viewport={"width": 1200, "height": 800})
    opened = Shown(page, path)
    opened.open("1,0,1")
    write_live_report(path, replace(shown, title="second"), live)
    page.wait_for_timeout(2500)
    assert opened.text("h1") == "first" and page.locator("#viewer").is_visible()
    page.keyboard.press("Escape")
    page.get_by_role("heading", name="second").wait_for()
    write_report(path, replace(shown, title="last"))
    page.get_by_role("heading", name="last").wait_for()
    page.wait_for_timeout(1500)
    assert opened.text("h1") == "last" and opened.troubles == []
    page.close()
