"""The section in Chromium: the list with its queue by keyboard, a run whose curve grows while it is watched, runs side by side."""

from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from loraloom.queue.queue import Queue
from registry.formats.atomic_file import write_json
from tests.infer.output.opened import DESK, NASTY, PHONE, faint_texts
from tests.loraloom.studio.held import Held
from tests.loraloom.studio.opened import Served
from tests.loraloom.studio.runs.made import add_rows, make_run

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.browser
HOSTILE = """<img src=x onerror="document.title='owned'"> "it's" <b>"""


def test_a_run_is_found_compared_and_its_queue_is_ordered_by_keyboard(served: Served, browser: "Browser") -> None:
    root, queue = served.studio.folder, Queue(served.studio.home)
    make_run(root, HOSTILE, "20260109-120000", lora__rank=4)
    for number, name in enumerate(["plain", "x" * 200, "a", "b", "c"]):
        make_run(root, name, f"2026010{number + 1}-110000")
    queue.pause()
    first, second = (queue.add(["train", f"data.trigger={NASTY}", f"seed={seed}"], folder=root).id for seed in (1, 2))
    page = browser.new_page(viewport=DESK)  # type: ignore[arg-type]
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(f"{served.address}#/runs")
    page.locator(".active-jobs .job").nth(1).locator("a").focus()
    page.keyboard.press("Alt+ArrowUp")
    page.wait_for_function("() => document.querySelector('.active-jobs .job code, .active-jobs .job a').title.includes('seed=2')")
    assert [job.id for job in queue.jobs()] == [second, first] and "seed=2" in page.evaluate("document.activeElement.title")
    page.get_by_role("button", name="Down: loraloom train").first.focus()
    assert page.locator("#command").inner_text() == f"loraloom queue move {second} --last"
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.querySelector('.active-jobs .job a').title.includes('seed=1')")
    assert [job.id for job in queue.jobs()] == [first, second]
    assert page.locator(".runs-table tbody th").first.inner_text() == HOSTILE
    for box in page.locator(".runs-table input").all():
        box.check()
    page.get_by_role("button", name="Compare 6").click()
    page.locator(".charts .chart").first.wait_for()
    assert page.locator("#command").inner_text() == ""  # the move was of the page before
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    tones = page.locator(".chart").first.locator(".readout i").evaluate_all("all => all.map((one) => getComputedStyle(one).borderTopColor)")
    assert len(tones) == len({*tones}) == 6
    table = page.locator(".compare-table").inner_text()
    assert "lora.rank" in table and "4" in table and page.title() == "Runs · LoRA Loom Studio" and problems == []
    page.close()


def test_a_sweep_is_sorted_by_its_columns(served: Served, browser: "Browser") -> None:
    folder = served.studio.folder / "runs" / "sweeps" / "train-20260102-030405"
    (folder / "runs").mkdir(parents=True)
    runs = [
        {"number": n, "settings": {"lora.rank": rank, "note": HOSTILE}, "folder": None, "value": value, "exit_code": 1 if n == 2 else 0}
        | {"error": NASTY if n == 2 else None, "reference": None, "overrides": []}
        for n, (rank, value) in enumerate([(16, 0.8), (4, 0.7), (8, None)])
    ]
    write_json(folder / "result.json", {"job": "train", "runs": runs, "best": {"number": 1}, "summary": []})
    page = browser.new_page(viewport=DESK)  # type: ignore[arg-type]
    page.goto(f"{served.address}#/runs/sweeps")
    page.get_by_role("link", name=folder.name).click()
    heads = page.locator(".sweep-table tbody th")
    heads.first.wait_for()
    assert heads.all_inner_texts() == ["0", "1 best", "2"]
    page.get_by_role("button", name="lora.rank").click()
    assert heads.all_inner_texts() == ["1 best", "2", "0"]
    page.keyboard.press("Enter")  # the focus is still on it: the other way round
    assert heads.all_inner_texts() == ["0", "2", "1 best"]
    page.get_by_role("button", name="held-out loss").click()
    assert heads.all_inner_texts() == ["1 best", "0", "2"]
    assert "</script>" in page.locator(".sweep-table").inner_text() and page.title() == "Runs · LoRA Loom Studio"
    page.close()


@pytest.mark.parametrize(("size", "scheme"), [(DESK, "dark"), (PHONE, "light")], ids=["desk", "phone"])
def test_a_curve_grows_while_its_run_is_watched(served: Served, browser: "Browser", size: dict[str, int], scheme: str) -> None:
    folder = make_run(served.studio.folder, done=20, finished=False)
    page = browser.new_page(viewport=size, color_scheme=scheme)  # type: ignore[arg-type]
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(f"{served.address}#/runs/run/{quote(str(folder), safe='')}")
    readout = page.locator(".chart .readout").first
    readout.get_by_text("step 20").wait_for()
    add_rows(folder, 21, 33)
    readout.get_by_text("step 33").wait_for()
    page.get_by_role("slider", name="Step that is shown").fill("0")
    assert page.locator(".stage-bar output").inner_text() == "base"
    page.get_by_role("button", name="Enlarge a bell, base").click()
    page.keyboard.press("ArrowRight")
    assert page.locator("dialog img").get_attribute("alt") == "a bell, step 20"
    page.keyboard.press("Escape")
    resume = page.get_by_role("button", name="Resume")
    resume.focus()
    assert page.locator("#command").inner_text() == f"loraloom queue add train resume={folder}"
    count, faint = faint_texts(page)
    assert count > 30 and faint == {} and problems == []
    assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
    page.close()


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_the_images_stay_where_they_are_when_the_curves_come(served: Served, browser: "Browser", size: dict[str, int]) -> None:
    """What moves from under a pointer takes its click with it."""
    run = make_run(served.studio.folder)
    page = browser.new_page(viewport=size)  # type: ignore[arg-type]
    curves = Held(page, "api/runs/curves")
    page.goto(f"{served.address}#/runs/run/{quote(str(run), safe='')}")
    image = page.get_by_role("button", name="Enlarge a bell, step 40")
    page.get_by_text("Reading the curves").wait_for()
    before = image.bounding_box()
    curves.next().continue_()
    page.locator(".charts .chart").nth(1).wait_for()
    after = image.bounding_box()
    assert before and after and abs(after["y"] - before["y"]) < 40, (before, after)
    assert page.get_by_text("Reading the curves").count() == 0
    page.close()


def test_curves_that_cannot_be_read_are_not_waited_for(served: Served, browser: "Browser") -> None:
    from playwright.sync_api import expect

    run = make_run(served.studio.folder)
    page = browser.new_page(viewport=DESK)  # type: ignore[arg-type]
    curves = Held(page, "api/runs/curves")
    page.goto(f"{served.address}#/runs/run/{quote(str(run), safe='')}")
    page.get_by_text("Reading the curves").wait_for()
    curves.next().abort()
    page.locator("#messages .message").wait_for()
    expect(page.get_by_text("Reading the curves")).to_have_count(0)
    page.close()
