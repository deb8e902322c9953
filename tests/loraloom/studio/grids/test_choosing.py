"""A finished run becomes a voted-on checkpoint in the page: drawn as a job, voted on blindly, the winner kept as NAME@best."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from loraloom.cli import main
from loraloom.queue.queue import Queue
from loraloom.studio.grids.voting import SESSIONS
from registry.store import Store
from tests import tiny
from tests.loraloom.studio.held import Held
from tests.loraloom.studio.opened import Served, serving
from tests.train.conftest import short_run
from train import run
from train.config import CheckpointConfig, OptimConfig, PreviewConfig

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

QUESTION: dict[str, Any] = {
    "checkpoints": "last",
    "weights": "1",
    "seeds": 1,
    "texts": [f"a disc, number {number}" for number in range(14)],
}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, Path]]:
    """A Studio above a run with checkpoints at steps 2 and 4."""
    root = tmp_path_factory.mktemp("choosing")
    images = tiny.tiny_dataset(root / "discs")
    tiny.tiny_dataset(images / "heldout", 3, seed=5)
    config = short_run(
        tiny.tiny_sd1(root / "tiny"),
        images,
        root / "work" / "runs",
        preview=PreviewConfig(prompts=["a disc"], steps=2, every=100),
        checkpoint=CheckpointConfig(every=2, keep=4),
        optim=OptimConfig(lr=0.2),
    )
    folder = run.run(config, Store(root / "home")).folder
    with serving(root / "work", home=root / "home") as served:
        yield served, folder


def test_a_run_becomes_a_chosen_checkpoint(
    trained: tuple[Served, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    served, folder = trained
    monkeypatch.setenv("LORALOOM_HOME", str(served.studio.home))
    assert [one["folder"] for one in served.get("grids/runs")[1]] == [str(folder)]
    asked = {"run": str(folder), **QUESTION}
    status, plan = served.post("grids/choose_plan", **asked)
    assert status == 200 and plan["plan"]["grid"]["distinct"] == 28 and plan["folder"] is None
    assert served.post("grids/choose_vote", **asked)[0] == 404
    assert main(plan["words"]) == 0  # the job
    assert served.post("grids/choose_plan", **asked)[1]["folder"].startswith(str(folder / "choosing"))
    (row,) = served.get("grids/list")[1]["rows"]
    assert row["run"] == str(folder) and row["done"] == 28
    session = served.post("grids/choose_vote", **asked)[1]["session"]
    cells = {cell.image: cell.values["candidate"] for row in SESSIONS.named(session).comparison.cells.values() for cell in row.values()}
    names = {name: cells[path] for name, path in SESSIONS.named(session).images.items()}
    taste = ["base", "step 4, weight 1"].index
    state = served.post("grids/ballot/start", session=session, voter="anna")[1]
    while state["trial"] is not None:
        trial = state["trial"]
        choice = max(("left", "right"), key=lambda side: taste(names[trial[side]]))
        vote = {"session": session, "voter": "anna", "id": trial["id"], "choice": choice, "seconds": 1}
        state = served.post("grids/ballot/vote", **vote)[1]
    route = f"/{served.token}/api/grids/choose_ranking?question="
    assert b"step 4, weight 1" in served.raw("GET", route + quote(json.dumps(asked)))[2]
    status, chosen = served.post("grids/choose", **asked)
    assert status == 200 and chosen["alias"] == "discs@best", (chosen["verdict"], chosen["votes"], chosen["candidates"])
    assert chosen["winner"] == {"step": 4, "weight": 1.0}
    assert Store(served.studio.home).find("discs@best").hashes.sha256 == chosen["sha256"]
    capsys.readouterr()
    assert main([*plan["words"], "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(chosen))


def draw_and_leave(page: "Page") -> None:
    """Draw, and be on another page before it was answered: that page keeps its address; then come back."""
    choosing, drawing = page.url, "**/grids/choose_draw*"
    held = Held(page, "/grids/choose_draw")
    page.get_by_role("button", name="Draw the images").click()
    page.locator("#nav a", has_text="Runs").click()
    page.locator(".section.runs").wait_for()
    with page.expect_response(drawing):
        held.next().continue_()
    page.evaluate("async () => { await (await fetch('api/studio')).json(); }")  # by then the answer is dealt with
    assert page.url.endswith("#/runs")
    page.goto(choosing)


@pytest.mark.browser
def test_a_checkpoint_is_chosen_in_the_page(trained: tuple[Served, Path], browser: "Browser") -> None:
    served, _ = trained
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    troubles: list[str] = []
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.goto(f"{served.address}#/runs")
    page.get_by_role("link", name="discs", exact=True).click()
    page.get_by_text("Choose a checkpoint").click()
    page.get_by_label("Checkpoints").fill("2")
    page.get_by_label("Weights").fill("1")
    page.get_by_label("Seeds").fill("1")
    page.get_by_label("Prompts of your own").fill("\n".join(f"a circle, number {number}" for number in range(14)))
    page.locator("tr", has_text="Images").filter(has_text="28").wait_for()
    queue = Queue(served.studio.home)
    queue.pause()
    page.get_by_role("button", name="Draw the images").click()
    page.get_by_text("The job waits").wait_for()
    page.reload()
    page.get_by_text("The job waits").wait_for()
    assert page.get_by_label("Checkpoints").input_value() == "2" and page.get_by_role("button", name="Draw the images").count() == 0
    page.get_by_role("button", name="Remove from the queue").click()
    draw_and_leave(page)
    page.get_by_role("button", name="Remove from the queue").wait_for()
    queue.start()
    page.get_by_role("button", name="Vote").click()
    frame = page.frame_locator("iframe.grid-frame")
    frame.get_by_label("Your name").fill("anna")
    frame.get_by_role("button", name="Start").click()
    frame.locator("#count", has_text="0 of ").wait_for()
    session = list(SESSIONS.by_question.values())[-1].session
    cells = {cell.image: cell.values["candidate"] for row in session.comparison.cells.values() for cell in row.values()}
    wanted = {name for name, path in session.images.items() if cells[path].startswith("step")}
    for number in range(200):
        frame.locator("#count", has_text=f"{number} of ").or_(frame.get_by_role("heading", name="Done")).first.wait_for()
        if frame.get_by_role("heading", name="Done").is_visible():
            break
        left = frame.locator("#stage-left img").get_attribute("src") or ""
        side = "left" if any(name in left for name in wanted) else "right"
        frame.locator(f"button[data-choice={side}]:enabled").click()
    page.get_by_role("button", name="Keep the winner").click()
    page.locator("#verdict").wait_for()
    page.locator(".voting tr", has_text="Alias").filter(has_text="discs@best").wait_for()
    store = Store(served.studio.home)
    kept, wanted_one = (store.hashed(store.find(f"discs@{name}")).hashes for name in ("best", "step-2"))
    assert kept.tensors_sha256 == wanted_one.tensors_sha256  # the file that is kept says what it was chosen by, too
    assert troubles == []
    page.close()


def test_all_that_is_wrong_is_said(trained: tuple[Served, Path]) -> None:
    served, folder = trained
    status, value = served.post("grids/choose_plan", run=str(folder), weights="0", checkpoints="3", texts=[])
    assert status == 400 and len(value["faults"]) == 2
    assert served.post("grids/choose_plan", run=str(folder.parent), texts=[])[0] in (400, 404)
    assert served.post("grids/choose_plan", run="/etc", texts=[])[0] == 400
    assert served.post("grids/choose_plan", run=str(folder), prompts=0)[0] == 400
