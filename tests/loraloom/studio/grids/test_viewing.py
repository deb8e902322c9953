"""One grid in the report's viewer: its data are shown, and nothing of what the file holds beside them is ever run or sent."""

import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest

import infer.output.page.live
import infer.output.page.served
from infer.output.page.live import LiveParts
from infer.output.page.mended import LOCK, being_drawn
from infer.output.report import write_live_report
from loraloom.cli import main
from registry.printable import script_json
from tests.infer.images import gallery
from tests.infer.output.opened import NASTY, data_of
from tests.infer.output.page.test_live import waiting
from tests.loraloom.studio.grids.made import AXES, drawn
from tests.loraloom.studio.opened import Served

if TYPE_CHECKING:
    from playwright.sync_api import Browser

EVIL = "<img src=x onerror=\"document.title='owned'\">"


def viewer(served: Served, folder: Path) -> tuple[int, dict[str, str], str]:
    status, headers, body = served.raw("GET", f"/{served.token}/api/grids/viewer?{urlencode({'folder': str(folder)})}")
    return status, headers, body.decode()


def data_in(html: str) -> dict[str, Any]:
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', html, re.S)
    assert found
    value: dict[str, Any] = json.loads(found[1])
    return value


def with_data(folder: Path, **changes: Any) -> None:
    """The report of the folder with other data."""
    report = folder / "report.html"
    data = data_of(report) | changes
    text = report.read_text()
    start = text.index('<script id="data" type="application/json">') + len('<script id="data" type="application/json">')
    report.write_text(text[:start] + script_json(data) + text[text.index("</script>", start) :])


@pytest.mark.parametrize("single_file", [False, True])
def test_the_page_has_the_cells_and_their_images(served: Served, single_file: bool) -> None:
    folder = drawn(served.studio.folder / "runs/a/1", single_file=single_file, failed=[(0, 1)], title=NASTY)
    status, headers, html = viewer(served, folder)
    data, own = data_in(html), data_of(folder / "report.html")
    assert status == 200 and headers["Content-Type"] == "text/html; charset=utf-8"
    assert [cell["key"] for cell in data["cells"]] == [cell["key"] for cell in own["cells"]] and data["texts"] == own["texts"]
    assert "6 cells · 5 rendered · 1 failed · 1.5 s" in html and "<dt>steps</dt><dd>20</dd>" in html and "<dt>seed</dt>" not in html
    for cell in data["cells"]:
        if cell["image"] is not None:
            address = data["images"][cell["image"]][0]
            assert address.startswith("file?") and address.endswith(".png")
            status, headers, body = served.raw("GET", f"/{served.token}/api/grids/{address}")
            assert status == 200 and body.startswith(b"\x89PNG") and "immutable" in headers["Cache-Control"]


def test_the_head_is_the_reports_own_as_text(served: Served) -> None:
    folder = drawn(served.studio.folder / "runs/a/1", title="grid")
    report = folder / "report.html"
    report.write_text(report.read_text().replace("<dt>steps</dt><dd>20</dd>", "<dt>adapters</dt><dd>ink &lt;b&gt;</dd>"))
    _, _, html = viewer(served, folder)
    assert "<dt>adapters</dt><dd>ink &lt;b&gt;</dd>" in html and "<dt>steps</dt>" not in html


def test_what_else_the_file_holds_is_not_sent(served: Served) -> None:
    folder = drawn(served.studio.folder / "runs/a/1")
    key = data_of(folder / "report.html")["cells"][0]["key"]
    with_data(folder, explained={key: EVIL}, title=EVIL, more=EVIL, sources=[["a", f"data:text/html,{EVIL}"]])
    report = folder / "report.html"
    report.write_text(report.read_text().replace("</header>", f"<script>document.title='owned'</script>{EVIL}</header>"))
    _, headers, html = viewer(served, folder)
    assert EVIL not in html and html.count("<script") == 2
    data = data_in(html)
    assert data["explained"] == {key: True} and data["sources"] == [["a", ""]] and "more" not in data
    policy = headers["Content-Security-Policy"]
    script = re.search(r"script-src ([^;]*)", policy)
    assert (
        script and re.fullmatch(r"'sha256-[\w+/=]+'", script[1]) and "default-src 'none'" in policy and "frame-ancestors 'self'" in policy
    )


@pytest.mark.parametrize(
    "address",
    ["../../../secret.png", "/etc/passwd", "javascript:alert(1)", "http://evil.example/a.png", "data:text/html,x", "images/../../x.png"],
)
def test_an_image_elsewhere_is_not_shown(served: Served, address: str) -> None:
    folder = drawn(served.studio.folder / "runs/a/1", {"seed": ["1"]})
    (served.studio.folder / "secret.png").write_bytes((folder / "images/0.png").read_bytes())
    with_data(folder, images=[[address, address, 64, 64]])
    shown = data_in(viewer(served, folder)[2])["images"][0]
    assert shown[0].startswith("file?folder=") and shown[1] == ""
    assert served.raw("GET", f"/{served.token}/api/grids/{shown[0]}")[0] in (400, 404)


@pytest.mark.parametrize("name", ["cells.jsonl", "report.html", "link.png", "../1/../../../secret.png", "images", "images/0.png\0"])
def test_only_images_of_the_folder_are_sent(served: Served, name: str) -> None:
    folder = drawn(served.studio.folder / "runs/a/1", {"seed": ["1"]})
    (served.studio.folder / "secret.png").write_bytes((folder / "images/0.png").read_bytes())
    (folder / "link.png").symlink_to(served.studio.folder / "secret.png")
    assert served.get("grids/file", folder=str(folder), name=name)[0] in (400, 404)


def test_a_folder_outside_is_not_shown(served: Served, tmp_path: Path) -> None:
    folder = drawn(tmp_path / "outside/1", {"seed": ["1"]})
    for route in ("viewer", "part", "panel", "grid", "file"):
        status, value = served.get(f"grids/{route}", folder=str(folder), key="a" * 64, name="images/0.png")
        assert status == 400 and "--root" in value["error"]
    assert served.get("grids/viewer", folder=str(served.studio.folder))[0] == 404


def test_a_report_of_any_size_is_not_read(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = drawn(served.studio.folder / "runs/a/1", {"seed": ["1"]})
    monkeypatch.setattr(infer.output.page.served, "LARGEST", 100)
    status, _, body = viewer(served, folder)
    assert status == 400 and "more than 100 bytes" in body


@pytest.mark.parametrize(
    "changes",
    [
        {"cells": [{"place": [0]}]},
        {"axes": "no"},
        {"images": [["images/0.png", "", "64", 64]]},
        {"texts": [1]},
        {"rows": 7},
        {"tables": [[10**9]]},
        {"scores": [{"name": {}}]},
        {"live": "yes"},
    ],
    ids=str,
)
def test_data_of_another_form_are_refused(served: Served, changes: dict[str, Any]) -> None:
    folder = drawn(served.studio.folder / "runs/a/1", {"seed": ["1"]})
    with_data(folder, **changes)
    status, _, body = viewer(served, folder)
    assert status == 400 and "is no report of a grid of this version" in body


def test_a_live_grid_comes_in_parts(served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(infer.output.page.live, "PART", 4)
    folder = served.studio.folder / "runs/a/1"
    folder.mkdir(parents=True)
    found = gallery(folder / "images", AXES)
    live = LiveParts(folder / "report.html")
    write_live_report(folder / "report.html", waiting(found, 0), live)
    (folder / "cells.jsonl").write_text("")
    with being_drawn(folder):
        assert data_in(viewer(served, folder)[2])["live"] and served.get("grids/grid", folder=str(folder))[1]["state"] == "drawing"
        assert served.get("grids/part", folder=str(folder))[1] == {"part": 0, "ended": False, "full": False, "cells": []}
        write_live_report(folder / "report.html", waiting(found, 5), live)
        parts = [served.get("grids/part", folder=str(folder), part=number)[1] for number in (0, 1)]
        assert [part["full"] for part in parts] == [True, False] and [len(part["cells"]) for part in parts] == [4, 1]
        index, change, image = parts[1]["cells"][0]
        assert index == 4 and change["status"] == "rendered" and image[0].endswith("name=images%2F4.png")
        assert served.get("grids/part", folder=str(folder), part=2)[1]["ended"]
        (folder / "live/1.js").write_text("alert(1)")
        assert served.get("grids/part", folder=str(folder), part=1)[0] == 400
        assert served.post("grids/mend", folder=str(folder))[0] == 400
    (folder / "live/1.js").unlink()
    assert served.get("grids/grid", folder=str(folder))[1]["state"] == "killed" and not (folder / LOCK).exists()
    (folder / "cells.jsonl").write_text("".join(f'{{"key": "{one.key}"}}\n' for one in found.images))
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    assert served.post("grids/mend", folder=str(folder)) == (200, {"there": 6, "cells": 6})
    assert main(["report", str(copy)]) == 0  # the button's words
    assert (copy / "report.html").read_bytes() == (folder / "report.html").read_bytes()
    assert not data_in(viewer(served, folder)[2])["live"]


@pytest.mark.browser
def test_hostile_data_are_texts(served: Served, browser: "Browser") -> None:
    axes = {"prompt": [NASTY, "b"], "seed": ["1", "2"]}
    folder = drawn(served.studio.folder / "runs" / "a 'b' \"c\" & <d>" / "1", axes, title=NASTY)
    key = data_of(folder / "report.html")["cells"][0]["key"]
    with_data(folder, explained={key: EVIL})
    page = browser.new_page(viewport={"width": 390, "height": 844})
    troubles: list[str] = []
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("dialog", lambda dialog: troubles.append(dialog.message))
    page.goto(f"{served.address}#/grids")
    page.locator(".grid-card").click()
    page.wait_for_url("**grids/grid**")
    frame = page.frame_locator("iframe.grid-frame")
    frame.locator(".cell").first.click()
    frame.locator('[data-tab="explain"]').click()
    frame.locator("#explained .fault").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth") and troubles == []
    (folder / "report.html").write_text(EVIL)
    page.reload()
    page.locator(".nothing", has_text="is no report of a grid of this version").wait_for()
    assert all(one.title() != "owned" for one in page.frames)
    page.close()
