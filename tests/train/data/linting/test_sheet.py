"""The contact sheet: self-contained, safe whatever a caption holds, limited, and usable in a browser."""

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from loraloom.cli import main
from tests import tiny
from train.config import DataConfig
from train.data.lint import lint
from train.data.linting import sheet
from train.data.linting.sheet import write_sheet

NASTY = """</script><script>document.title="owned"</script> "quotes" <img src=x onerror=alert(1)> <!-- & \u2028 \x1b[2J"""


def hostile_set(folder: Path) -> str:
    """Six images; a caption and a file name are HTML."""
    tiny.tiny_dataset(folder, 6)
    (folder / "000.txt").write_text(NASTY, encoding="utf-8")
    (folder / "001.png").rename(folder / "<b onclick=x>.png")
    (folder / "001.txt").rename(folder / "<b onclick=x>.txt")
    shutil.copy(folder / "002.png", folder / "again.png")
    (folder / "again.txt").write_text("a disc, again")
    return str(folder)


def data_of(path: Path) -> dict[str, Any]:
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', path.read_text(encoding="utf-8"), re.S)
    assert found
    value: dict[str, Any] = json.loads(found[1])
    return value


def test_everything_is_inside_and_nothing_escapes(tmp_path: Path) -> None:
    found = lint(DataConfig(path=hostile_set(tmp_path / "set")), count=lambda text: (len(text.split()), 5))
    assert write_sheet(tmp_path / "sheet.html", found) == 7
    text = (tmp_path / "sheet.html").read_text(encoding="utf-8")
    assert text.count("<script") == text.count("</script>") == 2 and "<img" not in text and "<b onclick" not in text and "\x1b" not in text
    frame = re.sub(r'<script id="data".*?</script>', "", text, flags=re.S)
    assert re.findall(r"""(?:src|href)=["']?([^"'> ]+)""", frame) == ["data:,"] and "http" not in frame.replace("http-equiv", "")
    cards = {card["name"]: card for card in data_of(tmp_path / "sheet.html")["cards"]}
    assert cards["000.png"]["caption"] == NASTY.replace("\u2028", "\\u2028").replace("\x1b", "\\x1b") and cards["000.png"]["checks"] == [
        "too-long"
    ]
    assert cards["002.png"]["checks"] == cards["again.png"]["checks"] == ["same-image"] and cards["again.png"]["tokens"] == 3
    assert cards["<b onclick=x>.png"]["size"] == "32 × 32" and cards["<b onclick=x>.png"]["image"]


def test_a_large_set_is_limited_to_those_with_findings_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sheet, "MOST", 3)
    found = lint(DataConfig(path=hostile_set(tmp_path / "set")))
    assert write_sheet(tmp_path / "sheet.html", found) == 3
    assert [card["name"] for card in data_of(tmp_path / "sheet.html")["cards"]] == ["000.png", "002.png", "again.png"]
    assert "7 images; 3 of them are shown here" in (tmp_path / "sheet.html").read_text(encoding="utf-8")


def test_one_image_is_an_image(tmp_path: Path) -> None:
    write_sheet(tmp_path / "sheet.html", lint(DataConfig(path=str(tiny.tiny_dataset(tmp_path / "set", 1)))))
    assert "<p>1 image.</p>" in (tmp_path / "sheet.html").read_text(encoding="utf-8")


def test_the_command_writes_it_and_refuses_a_wrong_place_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tiny.tiny_dataset(tmp_path / "set", 2)
    assert main(["data", "lint", str(folder), "--html", str(tmp_path / "sheet.html")]) == 0
    assert len(data_of(tmp_path / "sheet.html")["cards"]) == 2
    for wrong in ("sheet.txt", "none/sheet.html"):
        capsys.readouterr()
        assert main(["data", "lint", str(folder), "--html", str(tmp_path / wrong)]) == 2
        assert "--html" in (error := capsys.readouterr().err) and "read images" not in error


@pytest.mark.browser
def test_findings_are_filtered_in_a_browser(tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    program = os.environ.get("LORALOOM_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    assert program, "The browser tier needs chromium: install it, or name it in LORALOOM_CHROMIUM."
    write_sheet(tmp_path / "sheet.html", lint(DataConfig(path=hostile_set(tmp_path / "set"))))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu", "--no-first-run"])
        page = browser.new_page()
        troubles: list[str] = []
        page.on("console", lambda message: troubles.append(message.text))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("request", lambda request: None if request.url.startswith(("file:", "data:")) else troubles.append(request.url))
        page.goto((tmp_path / "sheet.html").as_uri())
        assert page.locator("article").count() == 7 and page.title() == str(tmp_path / "set")
        page.select_option("#check", "same-image")
        assert page.locator("article h2").all_inner_texts() == ["002.png", "again.png"]
        page.select_option("#check", "")
        page.fill("#words", "onerror")
        assert page.locator("article h2").all_inner_texts() == ["000.png"] and page.locator("article .caption img").count() == 0
        browser.close()
    assert troubles == []
