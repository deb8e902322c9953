"""Scores that are added to a page later: its data is that of a page that was written with them, whatever the texts are."""

from dataclasses import replace
from pathlib import Path

from infer.output.gallery import Gallery, Score
from infer.output.page.scored import ScoredCell, add_scores
from infer.output.report import write_report
from tests.infer.output.opened import NASTY, data_of

CONTRAST, CHANGE = Score(name="contrast", definition=NASTY), Score(name="change", definition="Of pixels.", better="lower")


def details(page: Path) -> list[dict[str, str]]:
    read = data_of(page)
    rows = [[read["texts"][number] for number in read["tables"][cell["details"]]] for cell in read["cells"]]
    return [dict(zip(one[::2], one[1::2], strict=True)) for one in rows]


def test_a_page_with_scores_added_is_one_that_was_written_with_them(shown: Gallery, tmp_path: Path) -> None:
    write_report(tmp_path / "later.html", shown)
    rows = [ScoredCell(one.key, {"contrast": number / 7}, {}) for number, one in enumerate(shown.images)]
    assert add_scores(tmp_path / "later.html", [CONTRAST], rows)
    images = [replace(one, scores=row.scores) for one, row in zip(shown.images, rows, strict=True)]
    write_report(tmp_path / "at-once.html", replace(shown, images=images, scores=(CONTRAST,)))
    assert (tmp_path / "later.html").read_bytes() == (tmp_path / "at-once.html").read_bytes()


def test_a_score_of_a_name_that_is_there_is_replaced_and_its_text_is_a_detail(shown: Gallery, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    first = shown.images[0]
    write_report(page, replace(shown, images=[replace(one, scores={"contrast": 1.0}) for one in shown.images], scores=(CONTRAST,)))
    rows = [
        ScoredCell(one.key, {"change": 2.0} if one is first else {}, {"score change": NASTY} if one is first else {})
        for one in shown.images
    ]
    assert add_scores(page, [CHANGE], rows) and add_scores(
        page, [replace(CONTRAST, definition="Other.")], [replace(row, scores={}, details={}) for row in rows]
    )
    read = data_of(page)
    assert [(one["name"], one["definition"]) for one in read["scores"]] == [("change", "Of pixels."), ("contrast", "Other.")]
    assert [cell["scores"] for cell in read["cells"]] == [{"change": 2.0}, *[{}] * (len(shown.images) - 1)]
    assert details(page)[0] == {**first.details, "score change": NASTY}
    assert details(page)[1:] == [dict(one.details) for one in shown.images[1:]]


def test_what_is_no_page_of_these_cells_stays_as_it_is(shown: Gallery, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    assert not add_scores(page, [CHANGE], [])
    write_report(page, shown)
    before = page.read_bytes()
    assert not add_scores(page, [CHANGE], [ScoredCell("another", {"change": 1.0}, {})]) and page.read_bytes() == before
    for text in (
        "",
        "<html>",
        '<script id="data" type="application/json">{}</script>',
        '<script id="data" type="application/json">[</script>',
    ):
        page.write_text(text)
        assert not add_scores(page, [CHANGE], []) and page.read_text() == text
