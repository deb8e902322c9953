"""The page in Chromium: votes by key, undo, zoom of both sides, hostile texts; the static file and its way back; and the command."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from infer.vote.comparison import compare
from infer.vote.finished import read_grid
from infer.vote.page.page import server_page, write_static
from infer.vote.page.server import VotingServer
from infer.vote.page.session import Session
from infer.vote.votes import NAME, read_votes
from loraloom.cli import main
from tests.browser import intercept, launched
from tests.infer.vote.made import made_grid

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NASTY = """</script><script>document.title="owned"</script><img src=x onerror=document.title='owned'> \x1b[2J"""
PROMPTS = [NASTY, *(f"p{number}" for number in range(19))]


def grid(folder: Path, **options: Any) -> Path:
    return made_grid(folder, {"adapter": ["none", NASTY[:40]], "prompt": PROMPTS}, **options)


# --- the static file


def data_of(path: Path) -> dict[str, Any]:
    text = path.read_text(encoding="utf-8")
    value: dict[str, Any] = json.loads(text.split('<script id="data" type="application/json">')[1].split("</script>")[0])
    return value


def test_the_static_file_is_blind_and_whole(tmp_path: Path) -> None:
    found = compare([read_grid(grid(tmp_path / "g"))], ("adapter",))
    assert write_static(tmp_path / "v.html", found, asked=60, seed=0, voter=None) == []
    text = (tmp_path / "v.html").read_text(encoding="utf-8")
    assert text.count("<script") == text.count("</script>") == 2 and "<img" not in text and "\x1b" not in text
    assert "SECRET" not in text and "none|" not in text and "default-src 'none'" in text and "http://" not in text
    data = data_of(tmp_path / "v.html")
    assert len(data["trials"]) == 22 and len(data["images"]) == 40 and data["voter"] is None
    assert all(left in data["images"] and right in data["images"] for left, right, _ in data["trials"])
    assert not any("SECRET" in uri or "loraloom" in uri for uri in data["images"].values())


@pytest.mark.slow
def test_the_command_writes_it_and_takes_votes_back_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = grid(tmp_path / "g")
    assert main(["vote", str(folder), "--html", str(tmp_path / "v.html"), "--count", "12"]) == 0
    data = data_of(tmp_path / "v.html")
    rows = [
        {"id": f"i{number}", "left": left, "right": right, "choice": "left", "voter": "bob", "seconds": 2, "at": "2026-01-31T12:00:00.000Z"}
        for number, (left, right, _) in enumerate(data["trials"])
    ]
    (tmp_path / "back.json").write_text(json.dumps({"format": data["format"], "salt": data["salt"], "votes": rows}))
    capsys.readouterr()
    assert main(["vote", str(folder), "--import", str(tmp_path / "back.json")]) == 0
    assert main(["vote", str(folder), "--import", str(tmp_path / "back.json")]) == 0
    assert capsys.readouterr().out.split("\n")[:2] == ["12 votes added, 0 were there already", "0 votes added, 12 were there already"]
    votes = read_votes(folder / NAME).votes
    assert len(votes) == 12 and {"none", NASTY[:30].strip()} >= {votes[0].left.split("|")[0][:4].strip()} - {NASTY[:4]}
    assert main(["rank", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["votes"] == 11  # one of the twelve is a repeat


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--count", "0"], "--count 0: expected 1 to 10,000"),
        (["--port", "70000"], "--port 70000"),
        (["--html", "v.txt"], "--html"),
        (["--html", "v.html", "--import", "x.json"], "give one of them"),
        (["--voter", " "], "A voter's name has 1 to 60 characters"),
        (["--import", "none.json"], "there is no such file of votes"),
        (["compare=seed"], "'seed' is no axis"),
    ],
)
def test_wrong_words_are_refused(tmp_path: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["vote", str(grid(tmp_path / "g")), *words]) == 2
    assert message in capsys.readouterr().err


def test_a_grid_without_images_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = grid(tmp_path / "g")
    text = (folder / "cells.jsonl").read_text()
    lines = [json.dumps({**json.loads(line), "image": None}) for line in text.splitlines()]
    (folder / "cells.jsonl").write_text("\n".join(lines))
    assert main(["vote", str(folder)]) == 2 and "there is nothing to vote on" in capsys.readouterr().err
    assert main(["vote", str(folder), "--html", str(tmp_path / "v.html")]) == 2


# --- in a browser


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    with launched() as opened:
        yield opened


@pytest.fixture
def server(tmp_path: Path) -> Iterator[VotingServer]:
    session = Session([read_grid(grid(tmp_path / "g", size=64))], ("adapter",))
    server = VotingServer(session, server_page(session))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def opened(browser: "Browser", address: str, troubles: list[str], **view: Any) -> "Page":
    page = browser.new_page(**view)
    page.on("console", lambda message: troubles.append(message.text))
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("request", lambda one: None if one.url.startswith((address, "data:", "blob:")) else troubles.append(one.url))
    page.goto(address)
    return page


def counts(page: "Page", text: str) -> None:
    """Waits for so many votes, and for the next pair: keys before it is in view are no votes."""
    ready = "!document.querySelector('[data-choice]').disabled"
    page.wait_for_function(f"text => document.getElementById('count').textContent === text && {ready}", arg=text)


@pytest.mark.browser
def test_votes_by_key(browser: "Browser", server: VotingServer, tmp_path: Path) -> None:
    troubles: list[str] = []
    page = opened(browser, server.address, troubles, viewport={"width": 1200, "height": 800})
    assert "20 decisive votes show a win rate of" in page.inner_text("#start")
    page.fill("#voter", "anna")
    page.keyboard.press("Enter")
    counts(page, "0 of 22")
    seen = []
    keys = {"ArrowLeft": "left", "ArrowRight": "right", "ArrowDown": "tie", "ArrowUp": "both_bad"}
    for number, (key, choice) in enumerate(keys.items(), 1):
        seen.append(page.inner_text("#prompt"))
        page.keyboard.press(key)
        counts(page, f"{number} of 22")
        assert read_votes(tmp_path / "g" / NAME).votes[-1].choice == choice
    page.keyboard.press("u")
    counts(page, "3 of 22")
    assert len(read_votes(tmp_path / "g" / NAME).votes) == 3 and page.inner_text("#prompt") == seen[-1]
    page.keyboard.press("s")
    page.wait_for_function("text => document.getElementById('prompt').textContent !== text", arg=seen[-1])
    for number in range(4, 23):
        counts(page, f"{number - 1} of 22")
        seen.append(page.inner_text("#prompt"))
        page.click("[data-choice=left]")
    counts(page, "22 of 22")
    assert page.inner_text("#thanks").startswith("22 votes are saved") and "none" not in page.inner_text("#worth")
    assert any(one.startswith("</script>") for one in seen) and page.title() == "Vote" and troubles == []
    assert len(read_votes(tmp_path / "g" / NAME).votes) == 22
    page.close()


@pytest.mark.browser
def test_both_sides_zoom_and_move_together(browser: "Browser", server: VotingServer) -> None:
    troubles: list[str] = []
    page = opened(browser, server.address, troubles, viewport={"width": 1200, "height": 800})
    page.fill("#voter", "anna")
    page.click("#go")
    counts(page, "0 of 22")

    def frames() -> list[Any]:
        return [page.locator(f"#stage-{side} .frame").bounding_box() for side in ("left", "right")]

    before, stage = frames(), page.locator("#stage-right").bounding_box()
    assert stage
    page.mouse.move(stage["x"] + 100, stage["y"] + 100)
    page.mouse.wheel(0, -400)
    zoomed = frames()
    assert zoomed[0]["width"] == pytest.approx(zoomed[1]["width"]) and zoomed[0]["width"] > 2 * before[0]["width"]
    page.mouse.down()
    page.mouse.move(stage["x"] + 40, stage["y"] + 70, steps=3)
    page.mouse.up()
    moved = frames()
    for index in (0, 1):
        assert moved[index]["x"] == pytest.approx(zoomed[index]["x"] - 60, abs=1)
        assert moved[index]["y"] == pytest.approx(zoomed[index]["y"] - 30, abs=1)
    page.keyboard.press("0")
    assert frames() == before and troubles == []
    page.close()


@pytest.mark.browser
def test_a_phone_shows_one_above_the_other_and_nothing_is_cut(browser: "Browser", server: VotingServer) -> None:
    page = opened(browser, server.address, [], viewport={"width": 390, "height": 844}, color_scheme="dark")
    page.fill("#voter", "anna")
    page.click("#go")
    counts(page, "0 of 22")
    left, right = page.locator("#stage-left").bounding_box(), page.locator("#stage-right").bounding_box()
    assert left and right and left["x"] == right["x"] and right["y"] > left["y"] + left["height"]
    assert page.get_by_role("button", name="Upper").is_visible() and not page.get_by_text("Left", exact=True).is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    page.close()


@pytest.mark.browser
def test_a_page_of_another_origin_reaches_nothing(browser: "Browser", server: VotingServer, tmp_path: Path) -> None:
    """Even one that knows the address: it can neither read, nor vote, nor show the page in a frame."""
    address = server.address
    trial = server.session.start("anna")["trial"]
    body = json.dumps({"voter": "anna", "id": trial["id"], "choice": "left", "seconds": 1})
    (tmp_path / "other.html").write_text(f"""<iframe id=f src="{address}"></iframe><img id=i src="{address}image/{trial["left"]}"><script>
      const send = (mode, type) => fetch("{address}vote", {{ method: "POST", mode, headers: {{ "Content-Type": type }}, body: '{body}' }})
        .then((answer) => answer.type, () => "refused");
      window.done = Promise.all([send("cors", "application/json"), send("no-cors", "text/plain"), send("no-cors", "application/json")]);
    </script>""")
    page = browser.new_page()
    page.goto((tmp_path / "other.html").as_uri())
    assert page.evaluate("window.done")[0] == "refused"
    assert page.evaluate("document.getElementById('i').naturalWidth") == 0
    assert all("Which image" not in frame.content() for frame in page.frames[1:])
    assert read_votes(tmp_path / "g" / NAME).votes == ()
    page.close()


@pytest.mark.browser
def test_a_server_that_has_gone_is_said(browser: "Browser", server: VotingServer) -> None:
    page = opened(browser, server.address, [])
    page.fill("#voter", "anna")
    page.click("#go")
    counts(page, "0 of 22")
    intercept(page, lambda address: address.endswith("/vote"), lambda route: route.abort())
    page.keyboard.press("ArrowLeft")
    page.wait_for_selector("#fault:not([hidden])")
    assert "Every vote that was confirmed is kept" in page.inner_text("#fault") and page.inner_text("#count") == "0 of 22"
    page.close()


@pytest.mark.browser
def test_a_static_file_is_voted_on_and_its_votes_come_back(browser: "Browser", tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = grid(tmp_path / "g")
    assert main(["vote", str(folder), "--html", str(tmp_path / "v.html"), "--count", "12", "--voter", "bob"]) == 0
    troubles: list[str] = []
    page = opened(browser, (tmp_path / "v.html").as_uri(), troubles)
    page.click("#go")
    for number in range(1, 4):
        counts(page, f"{number - 1} of 12")
        page.keyboard.press("ArrowRight")
    counts(page, "3 of 12")
    page.keyboard.press("u")
    counts(page, "2 of 12")
    page.reload()  # what was cast is still there
    page.click("#go")
    counts(page, "2 of 12")
    for number in range(3, 13):
        page.keyboard.press("b")
        counts(page, f"{number} of 12")
    with page.expect_download() as download:
        page.click("#save-end")
    download.value.save_as(tmp_path / "back.json")
    assert json.loads((tmp_path / "back.json").read_text()) == json.loads(page.input_value("#text"))
    page.close()
    capsys.readouterr()
    assert main(["vote", str(folder), "--import", str(tmp_path / "back.json")]) == 0
    assert capsys.readouterr().out.startswith("12 votes added") and troubles == []
    votes = read_votes(folder / NAME).votes
    assert {one.voter for one in votes} == {"bob"} and [one.choice for one in votes].count("both_bad") == 10
