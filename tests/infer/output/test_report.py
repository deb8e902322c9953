"""The report's file: nothing escapes into its markup, and its images are inside it or beside it as asked."""

import json
import re
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import infer.output.page.images
from infer.output.gallery import Gallery
from infer.output.report import write_report
from registry.printable import script_json
from tests.infer.images import gallery
from tests.infer.output.opened import NASTY, Shown, data_of

if TYPE_CHECKING:
    from playwright.sync_api import Browser


def texts(data: dict[str, Any], numbers: list[int]) -> list[str]:
    return [data["texts"][number] for number in numbers]


def test_everything_is_inside_and_nothing_escapes(shown: Gallery, tmp_path: Path) -> None:
    assert write_report(tmp_path / "report.html", shown) == []
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert text.count("<script") == text.count("</script>") == 2 and "<b>" not in text and "<img" not in text
    frame = re.sub(r'<script id="data".*?</script>', "", text, flags=re.S)
    assert re.findall(r"""(?:src|href)=["']?([^"'> ]+)""", frame) == ["data:,"] and "//" not in re.sub(r"(?m)^// .*$| // .*$", "", frame)
    data = data_of(tmp_path / "report.html")
    images = [address for address, *_ in data["images"]]
    assert len(data["cells"]) == 11 and len(images) == 10 and all(one.startswith("data:image/png;base64,") for one in images)
    settings = [texts(data, cell["settings"]) for cell in data["cells"]]
    assert {dict(zip(one[::2], one[1::2], strict=True))["prompt"] for one in settings} >= {f"{NASTY} 1 0"}
    assert [cell["error"] for cell in data["cells"] if cell["image"] is None] == ["Out of memory: <b>2 GiB</b> were asked for."]


def test_script_json_cannot_be_left() -> None:
    text = script_json({"a": "</script><!--\u2028&"})
    assert not set("<>&\u2028") & set(text) and json.loads(text) == {"a": "</script><!--\u2028&"}


def test_a_report_that_would_be_too_large_holds_smaller_images_and_says_so(
    shown: Gallery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(infer.output.page.images, "LARGEST", 1500)
    (note,) = write_report(tmp_path / "report.html", shown, single_file=True)
    assert "WebP" in note and "images/" in note and note in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert data_of(tmp_path / "report.html")["images"][0][0].startswith("data:image/webp")


def test_images_beside_the_page_have_addresses_and_large_ones_a_small_copy(tmp_path: Path) -> None:
    from PIL import Image

    small = gallery(tmp_path / "images", {"seed": [1]})
    write_report(tmp_path / "report.html", small, single_file=False)
    assert data_of(tmp_path / "report.html")["images"] == [["images/0.png", "", 64, 64]] and not (tmp_path / "thumbs").exists()
    large = gallery(tmp_path / "images", {"seed": [1]}, size=(600, 450))
    (tmp_path / "images" / "0.png").rename(tmp_path / "images" / "a b#~é.png")
    object.__setattr__(large.images[0], "path", tmp_path / "images" / "a b#~é.png")
    write_report(tmp_path / "report.html", large, single_file=False)
    assert data_of(tmp_path / "report.html")["images"] == [["images/a%20b%23~%C3%A9.png", "thumbs/a%20b%23~%C3%A9.webp", 600, 450]]
    with Image.open(tmp_path / "thumbs" / "a b#~é.webp") as copy:
        assert copy.size == (384, 288)


@pytest.mark.parametrize(("limit", "address"), [(10**6, "data:"), (100, "images/")])
def test_without_a_wish_small_images_are_inside_and_large_ones_beside(
    limit: int, address: str, shown: Gallery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(infer.output.page.images, "SMALL", limit)
    write_report(tmp_path / "report.html", shown)
    assert data_of(tmp_path / "report.html")["images"][0][0].startswith(address)


@pytest.mark.browser
def test_images_beside_the_page_are_shown_and_missing_ones_are_named(shown: Gallery, tmp_path: Path, browser: "Browser") -> None:
    write_report(tmp_path / "report.html", shown, single_file=False)
    page = browser.new_page(viewport={"width": 1200, "height": 800})
    opened = Shown(page, tmp_path / "report.html")
    assert opened.cell("0,0,0").locator("img").evaluate("one => one.decode().then(() => one.naturalWidth)") == 64
    assert "--single-file" in opened.text(".note:visible")
    page.locator("#pair").click()
    opened.open("0,0,0")
    opened.open("0,0,2")
    page.get_by_text("may not read images beside it").wait_for()  # the disk's pages read no pixels: the number says so
    assert opened.troubles == []
    (tmp_path / "images" / "2.png").unlink()
    opened.go("")
    page.reload()
    page.get_by_text("images/2.png is missing.").wait_for()
    assert "moved without the folders" in opened.text("#hint")
    page.close()


@pytest.mark.browser
def test_served_by_http_images_beside_the_page_have_their_difference_in_numbers(shown: Gallery, tmp_path: Path, browser: "Browser") -> None:
    write_report(tmp_path / "report.html", shown, single_file=False)
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{server.server_port}/report.html#a=0.0.0&cell=0.0.2")
        number = page.get_by_text("Mean difference 26.667 of 255, largest 80, 100.0 % of the pixels differ")
        number.wait_for()
        assert number.is_visible() and page.url.startswith("http:")
        page.close()
        server.shutdown()
