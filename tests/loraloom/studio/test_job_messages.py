"""What a page shows of a job that one of its buttons has started, in Chromium: until the job ends, on whatever page."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from loraloom.queue import folder as files
from loraloom.queue.queue import Queue
from tests.loraloom.studio.opened import Served
from tests.loraloom.studio.runs.made import make_run
from train.output.folder import held

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.browser


def test_the_message_of_a_job_stays_until_it_ends(served: Served, browser: "Browser") -> None:
    queue = Queue(served.studio.home)
    queue.pause()
    run = make_run(served.studio.folder, done=20, finished=False)
    page = browser.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.clock.install()
    page.goto(f"{served.address}#/runs/run/{quote(str(run), safe='')}")
    for exit_code, said in ((0, "Done: "), (1, "The job failed: ")):
        make_report = page.get_by_role("button", name="Make the report")
        make_report.click()
        page.get_by_text(f"Waits in the queue: loraloom report {run}").wait_for()
        make_report.click()
        page.get_by_text(f"Waits in the queue already: loraloom report {run}").wait_for()
        page.get_by_role("link", name="Models").click()
        page.get_by_role("heading", name="Models").wait_for()
        page.clock.fast_forward(60_000)
        assert page.locator(".message").count() == 1
        folder, now = queue.folder / queue.jobs()[0].id, datetime.now(UTC).isoformat()
        with held(folder):  # as its process does: without that it is lost until its end is written
            files.write_plain(folder / files.BEGIN, {"began": now, "host": "another"})
            files.write_plain(folder / files.END, {"exit_code": exit_code, "ended": now})
        page.locator(".message", has_text=f"{said}loraloom report").wait_for()
        page.clock.fast_forward(60_000)
        assert page.locator(".message").count() == exit_code
        page.go_back()
    page.locator(".message a").click()
    page.get_by_role("heading", name="Job").wait_for()
    assert problems == []
    page.close()
