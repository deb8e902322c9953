"""Cells of a grid explained beside its report: what is drawn, what is not drawn again, and the tab that shows them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest

from infer.explain.cells import explain_cells, plan_cells
from infer.grid.config import Axes, GridConfig
from infer.grid.job import run
from infer.output.page import explained
from infer.output.page.explained import add_panels, with_images_inside
from infer.output.page.single_file import write_single_file
from loraloom.cli import main
from registry.errors import BadFile, Faults, Refused
from tests.infer.conftest import Shelf
from tests.infer.explain.test_explain import pixels
from tests.infer.images import square
from tests.infer.output.opened import DESK, NASTY, PHONE, Shown, data_of
from tests.infer.vote.made import chromium

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # of diffusers' schedulers under numpy 2


def drawn_grid(shelf: Shelf, *, single_file: bool = False, **axes: Any) -> Path:
    """The folder of a grid without and with an adapter."""
    config = GridConfig(
        base="tiny",
        prompt=None if "prompt" in axes else "a cat",
        negative="a dog",
        steps=2,
        guidance=4.0,
        size=32,
        out=str(shelf.work),
        single_file=single_file,
        axes=Axes(**{"adapter": ["none", "ink"], "seed": [5]} | axes),
    )
    return run(config, shelf.store).folder


@dataclass(frozen=True)
class Cell:
    """A line of cells.jsonl."""

    key: str
    image: Path


def cells_in(folder: Path) -> list[Cell]:
    rows = [json.loads(line) for line in (folder / "cells.jsonl").read_text().splitlines()]
    return [Cell(row["key"], folder / row["image"]) for row in rows]


@pytest.mark.slow
def test_cells_are_explained_beside_their_report(shelf: Shelf, capsys: pytest.CaptureFixture[str]) -> None:
    folder = drawn_grid(shelf)
    plain, inked = cells_in(folder)
    assert main(["explain", str(folder), "--cells", f"2,{inked.key[:8]}", "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert [one["key"] for one in plan["explain"]] == [inked.key] and (plan["images"], plan["reused"]) == (4, 1)  # the cell without it
    assert not (folder / "explain").exists()
    assert main(["explain", str(folder), "--cells", inked.key[:8], "--frames", "2"]) == 0
    assert capsys.readouterr().out.strip() == str(folder / "report.html")
    own = folder / "explain" / inked.key[:16]
    values = json.loads((own / "explain.json").read_text())
    assert values["key"] == inked.key and values["largest_difference"] == 0 and values["forwards"] == 9  # 3 images in PNDM's 3
    assert (pixels(own / values["adapters"][0]["image"]) == pixels(plain.image)).all()
    data = data_of(folder / "report.html")
    assert list(data["explained"]) == [inked.key] and f'src="explain/{own.name}/images/frame-0.png"' in data["explained"][inked.key]
    assert "Where the adapters act" in data["explained"][inked.key] and "<script" not in data["explained"][inked.key]
    assert main(["explain", str(folder), "--all", "--frames", "2", "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert (again["explained"], again["reused"]) == (1, 1) and set(again["pages"]) == {plain.key, inked.key}
    assert set(data_of(folder / "report.html")["explained"]) == {plain.key, inked.key}
    (own / "images" / "frame-0.png").unlink()  # then it is drawn again
    assert [one.render.key() for one in plan_cells(folder, shelf.store, frames=2).plans] == [inked.key]


@pytest.mark.slow
def test_cells_that_share_a_load_are_explained_as_each_is_alone(shelf: Shelf, tmp_path: Path) -> None:
    """An adapter of the text encoders, attached for one cell, is in no number of the next."""
    folder = drawn_grid(shelf, adapter=["words", "none", "words:0.5"])
    together = explain_cells(plan_cells(folder, shelf.store, frames=2, against=["a horse"]))
    for key, page in together["pages"].items():
        values = json.loads((Path(page).parent / "explain.json").read_text())
        alone = tmp_path / key[:8]
        assert main(["explain", values["image"], "--frames", "2", "--against", "a horse", "--out", str(alone)]) == 0
        (written,) = alone.rglob("explain.json")
        apart = json.loads(written.read_text())
        for name in ("tokens", "similarity", "negative", "guidance", "adapters", "largest_difference"):
            assert values[name] == apart[name], name
        assert [one["noise"] for one in values["frames"]] == [one["noise"] for one in apart["frames"]]


@pytest.mark.slow
def test_a_page_that_holds_its_images_holds_these_too(shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = drawn_grid(shelf)
    explain_cells(plan_cells(folder, shelf.store, cells=["1"], frames=2))
    assert write_single_file(folder / "report.html", tmp_path / "one.html") == []
    (html,) = data_of(tmp_path / "one.html")["explained"].values()
    assert html.count('src="data:image/png;base64,') >= 6 and 'src="explain/' not in html
    small = drawn_grid(shelf, single_file=True)
    explain_cells(plan_cells(small, shelf.store, cells=["1"], frames=2))
    assert list(data_of(small / "report.html")["explained"].values()) == [html]
    monkeypatch.setattr(explained, "LARGEST", len(html) - 1)
    held, (note,) = with_images_inside(data_of(folder / "report.html")["explained"], folder)
    assert held == {} and "no room for all explanations: 1 of 1" in note


def test_images_of_a_tab_lie_in_the_folder_of_the_report(tmp_path: Path) -> None:
    square((1, 2, 3)).save(tmp_path / "secret.png")
    (tmp_path / "grid" / "explain" / ("0" * 16)).mkdir(parents=True)
    (tmp_path / "grid" / "explain" / ("0" * 16) / "images").symlink_to(tmp_path)
    with pytest.raises(BadFile, match="missing"):
        with_images_inside({"key": f'<img src="explain/{"0" * 16}/images/secret.png">'}, tmp_path / "grid")


@pytest.mark.slow
def test_what_is_no_cell_to_explain_is_named(shelf: Shelf, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = drawn_grid(shelf)
    first, second = cells_in(folder)
    assert [one.render.key() for one in plan_cells(folder, shelf.store, cells=["1-2", "2"]).plans] == [first.key, second.key]
    with pytest.raises(Faults) as caught:
        plan_cells(folder, shelf.store, cells=["2-3", "0-1", "2-1"])
    assert len(caught.value.faults) == 3 and "2-3 is no range" in caught.value.faults[0] and "the cells 1 to 2" in caught.value.faults[2]
    second.image.unlink()
    with pytest.raises(Faults) as caught:
        plan_cells(folder, shelf.store, cells=["0", "3", "x", "2", "0123456789"])
    assert (
        len(caught.value.faults) == 5 and "It has the cells 1 to 2" in caught.value.faults[1] and "has no image" in caught.value.faults[3]
    )
    planned = plan_cells(folder, shelf.store)
    assert [one.render.key() for one in planned.plans] == [first.key] and "are left out: 1 of 2" in planned.notes[0]
    for words, message in (
        ([str(folder)], "--cells 1,5 (or keys), or --all"),
        ([str(folder), "--all", "--set", "steps=3"], "--set and --out are for an image"),
        ([str(first.image), "--all"], "are for the folder of a grid"),
        ([str(tmp_path), "--all"], "is not the folder of a grid"),
        ([str(folder), "--cells", ","], "none is given"),
    ):
        assert main(["explain", *words]) == 2 and message in capsys.readouterr().err
    report = folder / "report.html"
    report.write_text(report.read_text().replace('"live":false', '"live":true'))
    with pytest.raises(Refused, match="is being drawn"):
        plan_cells(folder, shelf.store)
    report.write_text("<html>")
    with pytest.raises(BadFile, match="no report of a grid"):
        add_panels(report, {first.key: ""})


CONTRAST = """() => {  // the least of WCAG 2.2 among the texts of the tab
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const linear = (one) => one <= 0.03928 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4;
  const light = (rgb) => [0.2126, 0.7152, 0.0722].reduce((sum, share, at) => sum + share * linear(rgb[at] / 255), 0);
  const own = (node) => numbers(getComputedStyle(node).backgroundColor);
  const under = (node) => own(node)[3] === 0 ? under(node.parentElement) : own(node);
  const isText = (node) => node.nodeType === 3 && node.data.trim();
  const texts = [...document.querySelectorAll("#explained *, #tabs *")].filter((one) => [...one.childNodes].some(isText));
  return Math.min(...texts.map((one) => {
    const [a, b] = [light(numbers(getComputedStyle(one).color)), light(under(one))].sort((x, y) => y - x);
    return (a + 0.05) / (b + 0.05);
  }));
}"""


@pytest.mark.browser
def test_the_tab_in_chromium(shelf: Shelf) -> None:
    from playwright.sync_api import sync_playwright

    folder = drawn_grid(shelf, adapter=None, seed=None, prompt=["a cat", NASTY])
    explain_cells(plan_cells(folder, shelf.store, cells=["2"], against=[NASTY]))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox", "--disable-gpu", "--no-first-run"])
        schemes: tuple[Literal["light", "dark"], ...] = ("light", "dark")
        for scheme in schemes:
            for size in (DESK, PHONE):
                page = browser.new_page(
                    viewport={"width": size["width"], "height": size["height"]}, color_scheme=scheme, is_mobile=size == PHONE
                )
                shown = Shown(page, folder / "report.html")
                _look(shown, page)
                assert page.evaluate(CONTRAST) >= 4.5 and shown.troubles == []
                page.close()
        browser.close()


def _look(report: Shown, page: Page) -> None:
    report.open("0")
    assert page.locator("#stage").is_visible() and page.locator("#explained").is_hidden()
    page.keyboard.press("e")
    assert report.text("#explain-command").startswith(f"loraloom explain {report.path.parent} --cells ")
    page.keyboard.press("ArrowRight")  # the tab stays while one goes through the cells
    assert "The prompt becomes tokens" in report.text("#explained") and page.title() == "grid"
    assert page.locator("#explained img[src='x']").count() == 0 and NASTY.split(" <img")[0] in report.text("#explained table")
    page.locator("#explained .strip").scroll_into_view_if_needed()
    loaded = "all => Promise.all(all.map((one) => one.decode().then(() => one.naturalWidth)))"
    assert set(page.locator("#explained .strip img").evaluate_all(loaded)) == {32}
    page.locator("#explained").focus()
    before = page.evaluate("addressNow()")
    page.keyboard.press("ArrowUp")  # scrolls, and flips no cell
    assert page.evaluate("addressNow()") == before and "tab=explain" in before
    page.wait_for_function("before => location.hash === `#${before}`", arg=before)  # it is not changed oftener than browsers allow
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth && by('explained').scrollWidth <= by('explained').clientWidth")
    page.reload()
    assert "The prompt becomes tokens" in report.text("#explained")
    page.get_by_role("button", name="Image", exact=True).click()
    assert page.locator("#stage img").evaluate("one => one.getBoundingClientRect().width") > 100 and page.locator("#explained").is_hidden()
    page.get_by_role("button", name="Explain", exact=True).click()
    page.locator("#explained").focus()
    page.keyboard.press("Escape")
    assert page.locator("#viewer").is_hidden()
    report.open("1")
    assert page.locator("#explained").is_visible()
