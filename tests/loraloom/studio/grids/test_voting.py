"""Votes in the page: the pairs of `loraloom vote`, on the disk before they are confirmed, and the ranking of `loraloom rank`."""

import json
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from infer.vote.votes import NAME, read_votes
from loraloom.cli import main
from tests.infer.output.opened import NASTY
from tests.infer.vote.made import made_grid
from tests.loraloom.studio.opened import Served, serving

AXES: dict[str, list[Any]] = {"prompt": ["a cat", NASTY, "c"], "seed": [1, 2], "weight": [0.5, 1.0, NASTY]}


@pytest.fixture
def folder(served: Served) -> Path:
    return made_grid(served.studio.folder / "runs/a/1", AXES)


def page_of(served: Served, route: str, **values: str) -> tuple[int, dict[str, str], str]:
    status, headers, body = served.raw("GET", f"/{served.token}/api/grids/{route}?{urlencode(values)}")
    return status, headers, body.decode()


def test_six_votes_are_on_the_disk_and_ranked(served: Served, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert served.get("grids/comparable", folder=str(folder))[1]["compared"] == ["weight"]
    session = served.post("grids/vote", folder=str(folder))[1]["session"]
    assert served.post("grids/vote", folder=str(folder))[1]["session"] == session  # one for all pages
    status, headers, html = page_of(served, "ballot", session=session)
    assert (
        status == 200
        and "'sha256-" in headers["Content-Security-Policy"]
        and "unsafe-inline" not in headers["Content-Security-Policy"].split("script-src")[1]
    )
    assert "weight" not in html.partition('id="data"')[2].partition("</script>")[0]
    state = served.post("grids/ballot/start", session=session, voter="anna")[1]
    for number in range(6):
        trial = state["trial"]
        assert served.raw("GET", f"/{served.token}/api/grids/ballot/image?{urlencode({'session': session, 'name': trial['left']})}")[
            2
        ].startswith(b"\x89PNG")
        status, state = served.post("grids/ballot/vote", session=session, voter="anna", id=trial["id"], choice="left", seconds=1.5)
        assert status == 200 and state["done"] == number + 1 == len(read_votes(folder / NAME).votes)
    state = served.post("grids/ballot/undo", session=session, voter="anna")[1]
    assert state["done"] == 5 == len(read_votes(folder / NAME).votes)
    assert (
        served.post("grids/ballot/skip", session=session, voter="anna", id=state["trial"]["id"])[1]["trial"]["id"] != state["trial"]["id"]
    )
    status, headers, html = page_of(served, "ranking", folder=str(folder))
    assert status == 200 and "'sha256-" in headers["Content-Security-Policy"] and NASTY not in html
    assert main(["rank", str(folder), "--json"]) == 0
    ranked = json.loads(capsys.readouterr().out)
    assert ranked["votes"] == 5 and ranked["verdict"] in unescape(html)


@pytest.mark.parametrize(
    "changes",
    [
        {"session": "0" * 32},
        {"voter": ""},
        {"voter": 7},
        {"id": "nothing"},
        {"choice": "best"},
        {"seconds": "1"},
        {"seconds": True},
        {"seconds": -1},
    ],
    ids=str,
)
def test_what_is_no_vote_changes_nothing(served: Served, folder: Path, changes: dict[str, Any]) -> None:
    session = served.post("grids/vote", folder=str(folder))[1]["session"]
    trial = served.post("grids/ballot/start", session=session, voter="anna")[1]["trial"]
    good = {"session": session, "voter": "anna", "id": trial["id"], "choice": "tie", "seconds": 1}
    status, value = served.post("grids/ballot/vote", **(good | changes))
    assert status in (400, 404) and value["error"] and not (folder / NAME).exists()
    assert served.post("grids/ballot/vote", **good)[0] == 200


def test_what_is_compared_must_be_clear(served: Served, folder: Path) -> None:
    other = made_grid(served.studio.folder / "runs/b/1", {"prompt": ["a"], "weight": [0, 1], "steps": [1, 2]})
    found = served.get("grids/comparable", folder=str(other))[1]
    assert found["compared"] == [] and found["axes"] == ["weight", "steps"] and "compare" in found["fault"]
    assert served.post("grids/vote", folder=str(other))[0] == 400
    assert served.post("grids/vote", folder=str(other), compare="weight,steps")[1]["candidates"] == 4
    assert served.get("grids/comparable", folder=str(folder), compare="wieght")[1]["fault"]


def test_a_sealed_studio_takes_no_votes(tmp_path: Path) -> None:
    folder = made_grid(tmp_path / "work/runs/a/1", AXES)
    with serving(tmp_path / "work", home=tmp_path / "home", read_only=True) as served:
        assert served.post("grids/vote", folder=str(folder))[0] == 403
        form = {"values": {}, "axes": {"prompt": ["@/etc/passwd"]}}
        assert served.post("grids/plan", form=form)[0] == 403 == served.post("grids/draw", form=form)[0]
        assert served.get("grids/comparable", folder=str(folder))[0] == 200 and page_of(served, "ranking", folder=str(folder))[0] == 200


def test_a_registered_grid_outside_of_the_roots_is_not_written_to(served: Served, tmp_path: Path) -> None:
    outside = made_grid(tmp_path / "outside/1", AXES)
    assert served.post("grids/vote", folder=str(outside))[0] == 400 and not (outside / NAME).exists()
