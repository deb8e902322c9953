"""The report of a real tiny run: what it holds, what it says of what is missing, and what it refuses."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from loraloom.cli import main
from registry.errors import NotFound, Refused
from registry.store import Store
from tests.train.conftest import short_run
from train import run
from train.config import PreviewConfig
from train.run_report.page import page
from train.run_report.report import make_report

NASTY = "a </script><b>disc & 'x'"


@pytest.fixture(scope="module")
def finished(base: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of four steps with previews of two prompts, one of them hostile."""
    home = tmp_path_factory.mktemp("report")
    preview = PreviewConfig(prompts=["a disc", NASTY], every=2, steps=2)
    return run.run(short_run(base, images, home / "runs", preview=preview), Store(home / "home")).folder


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    """The run folder at another place, to be changed."""
    return Path(shutil.copytree(finished, tmp_path / "moved" / finished.name))


def data_of(text: str) -> dict[str, Any]:
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', text, re.DOTALL)
    assert found
    value: dict[str, Any] = json.loads(found[1])
    return value


def test_a_run_ends_with_a_whole_report(finished: Path) -> None:
    text = (finished / "report.html").read_text(encoding="utf-8")
    assert "default-src 'none'" in text and not re.search(r"(src|href)=[\"']?https?:", text)
    assert "<b>disc" not in text and "&lt;/script&gt;&lt;b&gt;disc" in text
    data = data_of(text)
    assert [chart["key"] for chart in data["charts"]][:2] == ["training_loss", "heldout_loss"]
    assert data["steps"] == [0, 2, 4] and len(data["cards"]) == 2 and all(one.startswith("data:image/") for one in data["images"])
    near = data["cards"][0]["images"][2]["nearest"]
    assert near["name"].endswith(".png") and 0 <= near["bits"] <= 63
    assert "What is missing" not in text or "style curve" in text
    assert json.loads((finished / "plan.json").read_text())["buckets"][0]["images"] == 6


def test_the_values_are_those_of_the_run(finished: Path) -> None:
    found = make_report(finished).to_json()
    result = json.loads((finished / "result.json").read_text())
    assert found["finished"] and found["step"] == 4 and found["verdict"]["sentence"] == result["verdict"]["sentence"]
    assert found["sentences"] == result["sentences"] and found["command"].startswith("loraloom train name=discs ")
    heldout = next(curve for curve in found["curves"] if curve["key"] == "heldout_loss")["lines"][0]["points"]
    assert heldout[-1][1] == pytest.approx(result["heldout"]["final"])
    losses = {row["file"]: row["points"][-1][1] for row in found["image_losses"] if row["part"] == "held out"}
    assert losses == pytest.approx({name: each["final"] for name, each in result["heldout"]["images"].items()})
    assert len(found["previews"]) == 2 and [one["step"] for one in found["previews"][0]["images"]] == [0, 2, 4]
    assert found["spectrum"]["whole"]["rank"] == 2 and found["inputs"]["dataset"]["files"]


def test_a_stopped_run_from_before_has_a_report_of_what_it_has(copied: Path) -> None:
    for name in ("result.json", "plan.json", "metrics.jsonl"):
        (copied / name).unlink()
    for folder in ("samples", "checkpoints"):
        shutil.rmtree(copied / folder)
    (copied / "discs.safetensors").unlink()
    found = make_report(copied)
    text = "\n".join(found.missing)
    assert all(word in text for word in ("the result:", "the plan, ", "curves:", "images by step:", "loss of each image", "the spectrum:"))
    assert found.charts == () and found.verdict is None and "No verdict" in page(found) and "What is missing" in page(found)


def test_a_run_that_goes_on_has_a_verdict_so_far(copied: Path) -> None:
    (copied / "result.json").unlink()
    found = make_report(copied)
    assert found.verdict is not None and not found.verdict.final and "The run is not finished" in page(found)


def test_training_images_that_changed_are_named(copied: Path) -> None:
    files = json.loads((copied / "inputs.json").read_text())
    files["dataset"]["files"][0]["sha256"] = "0" * 64
    (copied / "inputs.json").write_text(json.dumps(files))
    found = make_report(copied)
    assert any(line.startswith("1 of 6 training images are no longer where they were") for line in found.missing)
    assert files["dataset"]["files"][0]["file"] not in {image.name for image in found.trained} and len(found.trained) == 5


DAMAGE = {
    "inputs.json": b"{",
    "result.json": b"[1]",
    "plan.json": b"\xff\xfe",
    "metrics.jsonl": b'{"step": "x"}\n{"step": 1}\n',
    "images.jsonl": b'{"step": 0, "image": 5, "loss": 1.0}\n',
    "judgement.json": b'{"sentence": "good"}',
    "config.yaml": b"axes: {}\n",
    "samples/step-000002-01.png": b"no image",
    "discs.safetensors": b"\x08\x00\x00\x00\x00\x00\x00\x00{}      ",
    "checkpoints/step-000004/state.json": b'{"history": {"base": [1.0], "heldout": [{"step": 1, "losses": [1.0, 2.0]}]}}',
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_file_is_refused_by_name(name: str, copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (copied / name).write_bytes(DAMAGE[name])
    assert main(["report", str(copied)]) == 2
    said = capsys.readouterr().err
    assert Path(name).name in said and "Traceback" not in said and "fault of loraloom" not in said


def test_other_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no such folder"):
        make_report(tmp_path / "none")
    with pytest.raises(Refused, match=r"not a run folder of loraloom train: it has no config\.yaml and no inputs\.json"):
        make_report(tmp_path)


def test_the_command_writes_the_page_or_the_values(copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (copied / "report.html").unlink()
    assert main(["report", str(copied)]) == 0
    assert capsys.readouterr().out.strip() == str(copied / "report.html") and (copied / "report.html").is_file()
    assert main(["report", str(copied), "--json", "--output", str(tmp_path / "own.html")]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["report"] == str(tmp_path / "own.html") and value["finished"] and (tmp_path / "own.html").is_file()
    for bad in ("own.txt", "none/own.html"):
        assert main(["report", str(copied), "--output", str(tmp_path / bad)]) == 2


# --- in a browser


@pytest.fixture
def opened(finished: Path) -> Iterator[Callable[..., Any]]:
    import os

    from playwright.sync_api import sync_playwright

    program = os.environ.get("LORALOOM_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    assert program, "The browser tier needs chromium: install it, or name it in LORALOOM_CHROMIUM."
    troubles: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu", "--no-first-run"])

        def show(width: int) -> Any:
            view = browser.new_page(viewport={"width": width, "height": 800})
            view.on("console", lambda message: troubles.append(message.text) if message.type in ("error", "warning") else None)
            view.on("pageerror", lambda error: troubles.append(str(error)))
            view.on("request", lambda request: None if request.url.startswith(("file:", "data:")) else troubles.append(request.url))
            view.goto((finished / "report.html").as_uri())
            return view

        yield show
        browser.close()
    assert troubles == []


@pytest.mark.browser
def test_curves_and_steps_are_read_with_the_keyboard(opened: Callable[..., Any]) -> None:
    view = opened(1200)
    chart = view.locator(".chart").nth(0)
    chart.locator("svg").focus()
    view.keyboard.press("Home")
    assert chart.locator(".readout").inner_text().startswith("step 1")
    view.keyboard.press("ArrowRight")
    assert chart.locator(".readout").inner_text().startswith("step 2")
    before = chart.locator("polyline").nth(1).get_attribute("points")
    chart.locator(".scale").click()
    assert chart.locator(".scale").get_attribute("aria-pressed") == "true"
    assert chart.locator("polyline").nth(1).get_attribute("points") != before
    view.locator("#step").focus()
    view.keyboard.press("Home")
    assert view.locator("#shown").inner_text() == "0 (base)" and view.locator(".card").nth(0).locator(".trio figure").count() == 2
    view.keyboard.press("ArrowRight")
    assert view.locator("#shown").inner_text() == "2" and view.locator(".card").nth(0).locator(".trio figure").count() == 3
    assert view.locator(".card h3").nth(1).inner_text() == NASTY
    view.locator(".card").nth(0).locator(".trio button").nth(1).click()
    assert view.locator("#large").is_visible() and view.locator("#large-title").inner_text() == "step 2"


@pytest.mark.browser
@pytest.mark.parametrize("width", [320, 400, 1200])
def test_the_page_fits_its_window(opened: Callable[..., Any], width: int) -> None:
    assert opened(width).evaluate("document.documentElement.scrollWidth") == width
