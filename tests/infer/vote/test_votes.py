"""votes.jsonl: what is confirmed is on the disk, a cut line is left out and mended, an id counts once, a wrong line is named."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from infer.vote.votes import NAME, VotesFile, read_votes
from registry.errors import BadFile, Faults, Refused
from tests.infer.vote.made import vote, write_votes
from tests.patience import until

ONE, TWO, THREE = vote(1, "a", "b", "left"), vote(2, "b", "c", "tie"), vote(3, "a", "c", "both_bad", voter="bob é")


def test_votes_are_read_as_they_were_written(tmp_path: Path) -> None:
    votes = VotesFile(tmp_path)
    assert votes.add([ONE]) == 1 and votes.add([TWO, THREE]) == 2
    assert read_votes(tmp_path / NAME).votes == (ONE, TWO, THREE)
    line = json.loads((tmp_path / NAME).read_text(encoding="utf-8").splitlines()[0])
    assert list(line) == ["id", "left", "right", "choice", "voter", "seconds", "at"]


def test_an_id_counts_once(tmp_path: Path) -> None:
    votes = VotesFile(tmp_path)
    assert votes.add([ONE]) == 1 and votes.add([ONE]) == 0 and votes.add([ONE, TWO, TWO]) == 1
    assert len((tmp_path / NAME).read_text().splitlines()) == 2
    with pytest.raises(Refused, match="1 is the id of another vote"):
        votes.add([vote(1, "a", "b", "right")])
    write_votes(tmp_path / NAME, [ONE, TWO, ONE])
    found = read_votes(tmp_path / NAME)
    assert found.votes == (ONE, TWO) and found.notes == ("votes.jsonl: 1 line repeats a vote, which counts once.",)


@pytest.mark.parametrize("cut", range(1, 40, 6))
def test_a_line_that_was_cut_off_is_left_out_and_mended(tmp_path: Path, cut: int) -> None:
    path = write_votes(tmp_path / NAME, [ONE, TWO])
    os.truncate(path, path.stat().st_size - cut)
    found = read_votes(path)
    if cut == 1:  # only the newline is missing: the vote is whole
        assert found.votes == (ONE, TWO) and found.notes == ()
    else:
        assert found.votes == (ONE,) and "line 2 was cut off" in found.notes[0]
    assert VotesFile(tmp_path).add([THREE]) == 1
    assert read_votes(path).votes == ((ONE, TWO, THREE) if cut == 1 else (ONE, THREE)) and read_votes(path).notes == ()


def test_two_writers_see_each_other(tmp_path: Path) -> None:
    first, second = VotesFile(tmp_path), VotesFile(tmp_path)
    first.add([ONE])
    assert second.votes() == [ONE] and second.add([ONE, TWO]) == 1 and first.votes() == [ONE, TWO]


def test_a_vote_is_taken_back(tmp_path: Path) -> None:
    votes = VotesFile(tmp_path)
    votes.add([ONE, TWO])
    assert votes.remove("2") == TWO and votes.remove("2") is None
    assert read_votes(tmp_path / NAME).votes == (ONE,) and votes.add([TWO]) == 1


WRONG = {
    "[]": "a vote is an object",
    "{}": "it has no at, choice, id, left, right, seconds, voter",
    "nonsense": "no JSON object",
    ONE.to_line().replace('"left"}', "").replace('"choice": "left"', '"choice": "up"'): "choice is 'up'",
    ONE.to_line().replace("2.0", "-1"): "seconds is not",
    ONE.to_line().replace("2.0", "NaN"): "seconds is not",
    ONE.to_line().replace("2.0", "true"): "seconds is not",
    ONE.to_line().replace('"b"', '"a"'): "left and right are the same cell",
    ONE.to_line().replace("2026-01-31T", "yesterday "): "at is not a time",
    ONE.to_line().replace("anna", "x" * 61): "voter is not a text of 1 to 60 characters",
    ONE.to_line().replace("anna", "a\\u001b[2J"): "voter is not a text",
    ONE.to_line().replace('{"id"', '{"more": 1, "id"'): "unknown keys: more",
    '{"id": ' + "[" * 3000 + "]" * 3000 + "}": "no JSON object",
}


@pytest.mark.parametrize("line", WRONG, ids=list(WRONG.values()))
def test_a_wrong_line_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / NAME).write_text(ONE.to_line() + line.rstrip("\n") + "\n" + TWO.to_line())
    with pytest.raises(Faults, match="lines that are no votes") as caught:
        read_votes(tmp_path / NAME)
    assert len(caught.value.faults) == 1 and caught.value.faults[0].startswith("line 2: ") and WRONG[line] in caught.value.faults[0]


def test_another_vote_under_an_id_is_a_fault(tmp_path: Path) -> None:
    write_votes(tmp_path / NAME, [ONE, vote(1, "a", "b", "right")])
    with pytest.raises(Faults, match="line 2: its id 1 is that of another vote, in line 1"):
        read_votes(tmp_path / NAME)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / NAME).mkdir()
    with pytest.raises(BadFile, match="is no file"):
        VotesFile(tmp_path)


WRITER = """
import sys
from pathlib import Path
from infer.vote.votes import VotesFile
from tests.infer.vote.made import vote
votes = VotesFile(Path(sys.argv[1]))
for number in range(100000):
    votes.add([vote(f"{sys.argv[2]}-{number}", "a", "b", "left")])
    print(number, flush=True)
"""


def test_killed_writers_lose_nothing_that_they_confirmed(tmp_path: Path) -> None:
    """Two processes append at once and are killed; what each printed is in the file, once."""
    folder = tmp_path / "grid"
    folder.mkdir()
    command = [sys.executable, "-c", WRITER, str(folder)]
    root = Path(__file__).resolve().parents[3]
    logs = [tmp_path / "one", tmp_path / "two"]
    children = []
    for name in logs:
        with name.open("w") as log:
            children.append(subprocess.Popen([*command, name.name], cwd=root, stdout=log, stderr=subprocess.PIPE, text=True))
    until(lambda: all(name.read_text().count("\n") > 20 for name in logs))
    for child in children:
        child.send_signal(signal.SIGKILL)
        child.communicate()
    found = read_votes(folder / NAME)
    confirmed = {f"{name.name}-{number}" for name in logs for number in name.read_text().split("\n")[:-1]}
    assert len(confirmed) > 40 and confirmed <= {one.id for one in found.votes}
    assert VotesFile(folder).add([THREE]) == 1 and read_votes(folder / NAME).notes == ()
