"""Jobs of the section: each button's words are a command line that is accepted as it stands."""

from pathlib import Path

import pytest

from loraloom.queue.check import check_words
from loraloom.queue.queue import Queue
from loraloom.studio.grids.choosing import Question, read_question
from loraloom.studio.grids.jobs import explain_words, score_words
from loraloom.studio.routes import Ask
from registry.errors import LoomError
from tests.loraloom.studio.grids.made import drawn
from tests.loraloom.studio.opened import Served


@pytest.mark.parametrize(
    "words",
    [
        score_words(Path("runs/a b/1"), []),
        score_words(Path("runs/a/1"), ["sharpness", "clip=/models/clip"]),
        explain_words(Path("runs/a/1"), "a" * 64),
        Question(run="runs/a/1").words("--no-vote"),
        Question(run="ink", checkpoints="best,last", weights="0.5,1", prompts=3, seeds=1, texts=("a, b", "'c'")).words("--no-vote"),
    ],
    ids=str,
)
def test_the_words_are_accepted(words: list[str]) -> None:
    assert check_words(words) == tuple(words)


def test_what_is_no_score_no_key_and_no_prompt_is_refused() -> None:
    with pytest.raises(LoomError, match="sharpness"):
        score_words(Path("a"), ["sharpnes"])
    for key in ("", "../../x", "--all", "A" * 16):
        with pytest.raises(LoomError, match="key"):
            explain_words(Path("a"), key)
    for text in ("@/etc/passwd", "--weights"):
        with pytest.raises(LoomError, match="prompts"):
            read_question(Ask({"run": "a", "texts": [text]}))


def test_buttons_put_their_words_into_the_queue(served: Served) -> None:
    queue = Queue(served.studio.home)
    queue.pause()
    folder = drawn(served.studio.folder / "runs/a/1", {"seed": ["1"]})
    form = {"values": {"prompt": "a cat, 'sitting'", "steps": "2"}, "axes": {"seed": ["1-2"]}}
    status, job = served.post("grids/draw", form=form)
    assert status == 200 and job["words"] == ["grid", "prompt=a cat, 'sitting'", "steps=2", "axes.seed=[1-2]"] and job["state"] == "waiting"
    assert served.post("grids/score", folder=str(folder), scores=["sharpness"])[1]["words"] == [
        "score",
        str(folder),
        "--score",
        "sharpness",
    ]
    assert served.post("grids/explain", folder=str(folder), key="b" * 64)[1]["words"] == ["explain", str(folder), "--cells", "b" * 16]
    assert [one.words[0] for one in queue.jobs()] == ["grid", "score", "explain"]
    assert {one.folder for one in queue.jobs()} == {served.studio.folder}
    assert served.post("grids/draw", form={"values": {"stpes": "1"}, "axes": {}})[0] == 400 and len(queue.jobs()) == 3
