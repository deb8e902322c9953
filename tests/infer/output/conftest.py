"""The browser, and a report opened in it."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from infer.output.gallery import Gallery
from infer.output.report import write_report
from tests.browser import launched
from tests.infer.images import gallery
from tests.infer.output.opened import NASTY, Shown

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    with launched() as opened:
        yield opened


@pytest.fixture
def shown(tmp_path: Path) -> Gallery:
    """Two prompts by three weights by two seeds; one cell failed, one is not there."""
    axes = {"prompt": ["a cat", NASTY], "seed": ["1", "2"], "weight": ["0", "0.5", "1"]}
    return gallery(tmp_path / "images", axes, failed=[(0, 0, 1)], absent=[(1, 0, 2)], title='a "grid" </title><b>')


@pytest.fixture
def report(shown: Gallery, tmp_path: Path, browser: "Browser") -> Iterator[Shown]:
    write_report(tmp_path / "report.html", shown)
    page = browser.new_page(viewport={"width": 1200, "height": 800})
    opened = Shown(page, tmp_path / "report.html")
    yield opened
    page.close()
    assert opened.troubles == []
