"""A session without its server: voters and their pairs, what is shown, what is worth it, and a disk that refuses."""

from pathlib import Path
from typing import Any

import pytest

from infer.vote.finished import read_grid
from infer.vote.page.session import Rejected, Session, check_voter
from infer.vote.votes import NAME, read_votes
from registry.errors import Refused
from registry.files.write_failure import write_failed
from tests.infer.vote.made import made_grid


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return made_grid(tmp_path / "g", {"adapter": ["none", "zebra7"], "prompt": [f"p{number}" for number in range(12)]})


def session(folder: Path, **options: Any) -> Session:
    return Session([read_grid(folder)], ("adapter",), **options)


def cast(found: Session, voter: str, count: int, choice: str = "left") -> dict[str, Any]:
    state = found.start(voter)
    for _ in range(count):
        state = found.vote(voter, state["trial"]["id"], choice, 1.0)
    return state


def test_a_session_goes_on_where_another_ended(folder: Path) -> None:
    cast(session(folder, asked=12), "anna", 5)
    found = session(folder, asked=12)
    state = found.start("anna")
    assert (state["done"], state["total"], state["undo"]) == (0, 7, False)
    last = cast(found, "anna", 7)
    assert last["trial"] is None and not last["more"]
    votes = read_votes(folder / NAME).votes
    assert len(votes) == len({frozenset((one.left, one.right)) for one in votes}) == 12


def test_voters_have_pairs_of_their_own(folder: Path) -> None:
    found = session(folder)
    anna, bob = found.start("anna"), found.start("bob")
    assert anna["trial"]["id"] != bob["trial"]["id"]
    with pytest.raises(Rejected, match="not shown to this voter"):
        found.vote("bob", anna["trial"]["id"], "left", 1)
    with pytest.raises(Rejected, match="another voter's"):
        session(folder, voter="carl").start("anna")
    for name in ("", " anna", "x" * 61, "a\nb", None, 3):
        with pytest.raises(Refused):
            check_voter(name)


def test_what_is_shown_has_no_name_in_it(folder: Path) -> None:
    state = session(folder).start("anna")
    assert state["trial"].keys() == {"id", "left", "right", "prompt"} and state["trial"]["prompt"].startswith("p")
    assert "zebra7" not in str(state) and "none" not in str(state["trial"])
    found = Session([read_grid(folder)], ("prompt",))
    assert found.start("anna")["trial"]["prompt"] is None  # prompts are what is compared


def test_how_many_votes_are_worth_it_is_said_without_a_name(folder: Path) -> None:
    found = session(folder, asked=8)
    assert found.preview().startswith("8 decisive votes show a win rate of")
    state = cast(found, "anna", 8, "tie")
    assert state["trial"] is None and "hardly worth it" in state["worth"] and "zebra7" not in state["worth"]
    state = found.more("anna")
    assert state["trial"] is not None and state["total"] == 12 and state["worth"] == ""


def test_a_vote_that_the_disk_refused_is_open_again_and_counts_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = session(folder)
    cast(found, "anna", 1)
    identity = found.start("anna")["trial"]["id"]

    def full(path: Path) -> None:
        raise write_failed(path, OSError(28, "No space left on device"))

    with monkeypatch.context() as patched:
        patched.setattr("infer.vote.votes._flush", full)
        with pytest.raises(OSError, match="the disk is full"):
            found.vote("anna", identity, "left", 1)
    state = found.start("anna")
    assert (state["trial"]["id"], state["done"]) == (identity, 1) and len(read_votes(folder / NAME).votes) == 1
    assert found.vote("anna", identity, "right", 1)["done"] == 2
    assert [one.choice for one in read_votes(folder / NAME).votes] == ["left", "right"]


def test_the_choice_of_candidates_follows_the_votes_that_were_taken_back(folder: Path) -> None:
    found = session(folder)
    cast(found, "anna", 3)
    found.undo("anna")
    assert found.counted() == 2 and found.start("anna")["done"] == 2
    assert found.undo("anna")["done"] == 1 and found.undo("anna")["undo"] is False
    with pytest.raises(Rejected, match="no vote of this session"):
        found.undo("anna")
