"""In Chromium: from a folder of images to a started run whose curve comes live; saved, stopped and resumed, without the terminal."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from loraloom.data_files import data_dir
from loraloom.queue.queue import Queue
from tests.infer.output.opened import DESK, PHONE, faint_texts
from tests.loraloom.studio.opened import Served
from tests.patience import until

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser


def fill(page: "Page", setting: str, text: str) -> None:
    page.locator(f'input[data-setting="{setting}"]').fill(text)


def images_of(served: Served) -> Path:
    """A folder with six images of a figure and their captions."""
    folder = served.studio.folder / "blob"
    folder.mkdir()
    for image in sorted((data_dir() / "blob").glob("*.png"))[:6]:
        shutil.copy(image, folder)
        shutil.copy(image.with_suffix(".txt"), folder)
    return folder


def checkpoints(run: Path, least: int) -> list[str]:
    """The names of a run's checkpoints, as soon as there are so many."""
    return until(lambda: found if len(found := sorted(place.name for place in (run / "checkpoints").glob("step-*"))) >= least else [])


@pytest.mark.slow
def test_from_a_folder_of_images_to_a_run_that_is_stopped_and_resumed(served: Served, browser: "Browser") -> None:
    from playwright.sync_api import expect

    images_of(served)
    page = browser.new_page(viewport=DESK)  # type: ignore[arg-type]
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(f"{served.address}#/new_run")
    fill(page, "data.path", "blob")
    fill(page, "steps", "x")
    page.locator(".field-fault", has_text="steps=x").wait_for()
    assert page.get_by_role("button", name="Start", exact=True).is_disabled()
    for setting, text in {"steps": "300", "batch_size": "1", "lora.rank": "2", "preview.prompts": "[a blob]", "name": "blob"}.items():
        fill(page, setting, text)
    page.get_by_text("Planned: this can be started.").wait_for()
    assert "6 images" in page.locator(".plan-text").inner_text().replace("6 from", "6 images from")
    command = page.locator("#new-run-command").inner_text()
    assert command.startswith("loraloom train data.path=blob steps=300")
    page.get_by_role("button", name="Start", exact=True).click()
    page.locator(".chart .readout", has_text="step").first.wait_for()  # the run's page, with its first steps
    before = page.locator(".chart .readout").first.inner_text()
    page.wait_for_function("before => document.querySelector('.chart .readout').innerText !== before", arg=before)
    [job] = Queue(served.studio.home).jobs()
    run = job.made[0]
    page.get_by_role("button", name="Save now").click()
    page.get_by_text("A checkpoint is saved after the next step.").wait_for()
    page.wait_for_function("() => document.querySelector('.log').innerText.length > 0")
    asked = checkpoints(run, 1)
    page.get_by_role("button", name="Stop").click()
    resume = page.get_by_role("button", name="Resume")
    resume.wait_for()
    assert page.locator(".heading .state").inner_text() == "stopped" and not (run / "result.json").exists()
    assert checkpoints(run, 1)[-1] > asked[0]  # that of the stop, after the one that was asked for
    resume.click()
    page.locator(".heading .state", has_text="running").wait_for()
    page.get_by_role("button", name="Stop").click()
    page.locator(".heading .state", has_text="stopped").wait_for()
    assert Queue(served.studio.home).jobs()[0].words[1] == f"resume={run}"
    page.get_by_role("link", name="Again with changes").click()
    expect(page.locator("#new-run-command")).to_have_text(command)  # without what its plan filled in
    assert problems == []
    page.close()


@pytest.mark.slow
def test_faults_stand_beside_their_fields_and_settings_are_found(served: Served, browser: "Browser") -> None:
    images_of(served)
    page = browser.new_page(viewport=PHONE)  # type: ignore[arg-type]
    page.goto(f"{served.address}#/new_run?data=blob")
    fill(page, "lora.rank", "0")
    page.get_by_label("Search the settings").fill("caption dropout")
    fill(page, "data.caption_dropout", "2")
    page.locator('[data-setting="data.caption_dropout"][aria-invalid="true"]').wait_for()
    rank = page.locator(".field", has=page.locator('[data-setting="lora.rank"]'))
    assert "rank" in rank.locator(".field-fault").inner_text()
    assert page.locator(".plan-faults li").count() == 0
    start = page.get_by_role("button", name="Start", exact=True)
    fill(page, "lora.rank", "4")
    assert rank.locator(".field-fault").is_hidden() and start.is_disabled()  # a fault of what is not there any more, and no plan yet
    fill(page, "data.caption_dropout", "")
    fill(page, "resolution", "1000000")  # its fault names `out`, which the page does not have
    page.locator(".plan-faults li", has_text="Make room").filter(has_text="out is not among the settings of this page").wait_for()
    assert start.is_disabled()
    fill(page, "resolution", "")
    page.get_by_label("Search the settings").fill("--network-dim")
    assert page.locator(".filters [role=status]").inner_text() == "1 found, above: lora.rank. --network-dim: here this is lora.rank=VALUE."
    page.get_by_role("button", name="lora.rank").click()
    page.keyboard.type(",8")
    fill(page, "lora.rank", "4,8")
    page.get_by_label("sweep (--multirun)").check()
    page.get_by_text("Planned: this can be started.").wait_for()
    assert page.locator(".figures").inner_text().split()[:2] == ["runs", "2"]
    assert page.locator("#new-run-command").inner_text() == "loraloom train --multirun data.path=blob lora.rank=4,8"
    count, faint = faint_texts(page)
    assert count > 40 and faint == {}
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    page.close()
