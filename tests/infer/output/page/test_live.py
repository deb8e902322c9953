"""A page while its grid is drawn: there before the first cell, filled as they come, each part written once, whole at the end."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import infer.output.page.live
from infer.output.gallery import Gallery
from infer.output.page.live import LiveParts
from infer.output.report import write_live_report, write_report
from registry.formats import atomic_file
from tests.infer.images import gallery
from tests.infer.output.opened import NASTY, Shown

if TYPE_CHECKING:
    from playwright.sync_api import Browser


def waiting(found: Gallery, done: int) -> Gallery:
    """The grid with its first cells done, the others to come."""
    later = [replace(one, status="missing", path=None, error="not drawn yet", parameters="") for one in found.images[done:]]
    return replace(found, images=[*found.images[:done], *later])


def test_the_page_is_written_once_and_its_parts_in_linear_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(infer.output.page.live, "PART", 4)
    written: list[int] = []
    write = atomic_file.write_text

    def counted(path: Path, text: str) -> None:
        written.append(len(text))
        write(path, text)

    found = gallery(tmp_path / "images", {"seed": list(range(40))})
    path = tmp_path / "report.html"
    live = LiveParts(path)
    write_live_report(path, waiting(found, 0), live)
    page = path.read_bytes()
    monkeypatch.setattr(infer.output.page.live, "write_text", counted)
    for done in range(1, 41):
        write_live_report(path, waiting(found, done), live)
    assert path.read_bytes() == page and sorted(one.name for one in (tmp_path / "live").iterdir()) == sorted(f"{n}.js" for n in range(11))
    assert max(written) < 4 * 1000 and sum(written) < 40 * 4 * 1000  # never more than a part at once
    write_report(path, found)
    assert not (tmp_path / "live").exists() and path.read_bytes() != page


@pytest.mark.browser
def test_cells_come_into_an_open_page_and_its_view_stays(tmp_path: Path, browser: "Browser") -> None:
    found = gallery(tmp_path / "images", {"prompt": ["a", NASTY], "weight": [0, 1]}, failed=[(0, 1)])
    path = tmp_path / "report.html"
    live = LiveParts(path)
    write_live_report(path, waiting(found, 0), live)
    page = browser.new_page(viewport={"width": 1200, "height": 800})
    opened = Shown(page, path)
    assert page.locator(".cell").count() == 4 and "0 of 4 cells are done" in opened.text("#progress")
    assert opened.text(".summary") == "4 cells" and "in a new folder" in opened.text("#progress")
    page.locator("#sides").click()
    page.get_by_label("Place of prompt").select_option("columns")
    write_live_report(path, waiting(found, 1), live)
    opened.cell("0,0").locator("img").wait_for()
    opened.open("0,0")
    write_live_report(path, waiting(found, 2), live)
    opened.cell("0,1").get_by_text("Out of memory: <b>").wait_for()
    assert "2 of 4 cells" in opened.text("#progress")
    tried = "() => { const own = reloadUnread; window.tried = 0; reloadUnread = () => { window.tried += 1; own(); }; }"
    page.evaluate(tried)
    write_report(path, found)
    page.wait_for_function("() => window.tried > 1")
    assert page.evaluate("data.live") is True and page.locator("#viewer").is_visible()  # not from under what is looked at
    page.keyboard.press("Escape")
    page.wait_for_function("() => data.live === false")
    assert page.locator("#progress").is_hidden() and page.evaluate("state.columns.length") == 2  # the view came along
    assert page.title() == "a grid" and opened.text(".summary") == "4 cells · 4 rendered · 1.5 s"
    assert [one for one in opened.troubles if "live/0.js" not in one and "ERR_FILE_NOT_FOUND" not in one] == []
    page.close()
