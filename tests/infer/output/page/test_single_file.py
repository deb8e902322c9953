"""A report with images beside it becomes one file."""

from pathlib import Path

import pytest

from infer.output.gallery import Gallery
from infer.output.page.single_file import BESIDE, write_single_file
from infer.output.report import write_report
from loraloom.cli import main
from registry.errors import BadFile, Refused
from tests.infer.output.opened import data_of


def test_the_copy_is_the_report_with_its_images_inside(shown: Gallery, tmp_path: Path) -> None:
    write_report(tmp_path / "report.html", shown, single_file=False)
    assert write_single_file(tmp_path / "report.html", tmp_path / "one.html") == []
    write_report(tmp_path / "inside.html", shown, single_file=True)
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "inside.html").read_bytes()
    assert BESIDE.split(".")[0] not in (tmp_path / "one.html").read_text(encoding="utf-8")


def test_what_cannot_be_made_one_file_is_refused(shown: Gallery, tmp_path: Path) -> None:
    path, out = tmp_path / "report.html", tmp_path / "one.html"
    write_report(path, shown, single_file=True)
    with pytest.raises(Refused, match="holds its images already"):
        write_single_file(path, out)
    write_report(path, shown, single_file=False)
    text = path.read_text(encoding="utf-8")
    assert data_of(path)["images"][0][0] == "images/0.png"
    for address, message in (("../../etc/passwd", "outside of its folder"), ("images/none.png", "is missing")):
        path.write_text(text.replace("images/0.png", address), encoding="utf-8")
        with pytest.raises(BadFile, match=message):
            write_single_file(path, out)
    path.write_text("<html>", encoding="utf-8")
    with pytest.raises(BadFile, match="no report"):
        write_single_file(path, out)
    assert not out.exists()


def test_the_command_writes_it_beside_the_report(shown: Gallery, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_report(tmp_path / "report.html", shown, single_file=False)
    assert main(["report", str(tmp_path), "--single-file"]) == 2 and "no cells.jsonl" in capsys.readouterr().err
    assert (
        main(["report", str(tmp_path)]) == 2 and "of no training run (config.yaml, inputs.json) and of no grid" in capsys.readouterr().err
    )
    (tmp_path / "cells.jsonl").write_text("")
    assert main(["report", str(tmp_path)]) == 2 and "--single-file puts its images inside" in capsys.readouterr().err
    assert main(["report", str(tmp_path), "--single-file"]) == 0
    written = Path(capsys.readouterr().out.strip())
    assert written == tmp_path / "report-single-file.html" and data_of(written)["kind"] == "png"


@pytest.mark.parametrize("raw", [b"\xff\xfe", b"<html>", b'<script id="data" type="application/json">[1]</script>'])
def test_what_is_no_report_is_refused_and_left(raw: bytes, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_bytes(raw)
    with pytest.raises(BadFile, match="is no report of a grid of this version"):
        write_single_file(page, tmp_path / "out.html")
    assert page.read_bytes() == raw and not (tmp_path / "out.html").exists()
