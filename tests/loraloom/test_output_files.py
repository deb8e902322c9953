"""Where a page may go is checked before anything is read."""

from pathlib import Path

import pytest

from loraloom.output_files import html_path
from registry.errors import Refused


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("page.txt", "--html .*page.txt: the contact sheet is an HTML file. Give a name that ends in .html."),
        ("folder.html", "--html .*folder.html is a folder. Give the name of a file in it."),
        ("gone/page.html", "--html .*: there is no folder .*gone. Make it, or give another."),
    ],
)
def test_what_cannot_be_written_is_refused(given: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(Refused, match=message):
        html_path(str(tmp_path / given), "--html", "contact sheet")


def test_a_relative_name_is_taken_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert html_path("page.HTML", "--output", "report") == tmp_path / "page.HTML"
