"""From a grid's votes to its ranking: candidates, counts, verdicts, scores, and the command."""

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from infer.vote.finished import read_grid
from infer.vote.ranking.rank import Ranking, rank_grids
from infer.vote.returned import FORMAT, image_id
from infer.vote.votes import NAME, Vote
from loraloom.cli import main
from registry.errors import Faults, NotFound, Refused
from tests.infer.vote.made import chromium, key_of, made_grid, vote, write_votes

PROMPTS = [f"prompt {number}" for number in range(12)]
NASTY = """</script><script>document.title="owned"</script><img src=x onerror=alert(1)> \x1b[2J"""


def duel(folder: Path, wins: int, losses: int, ties: int = 0) -> Ranking:
    """Candidates none and ink; a vote on each prompt, so many won by ink."""
    made_grid(folder, {"adapter": ["none", "ink"], "prompt": [f"p{number}" for number in range(wins + losses + ties)]})
    choices = ["right"] * wins + ["left"] * losses + ["tie"] * ties
    votes = [vote(number, f"none|p{number}", f"ink|p{number}", choice) for number, choice in enumerate(choices)]
    return rank_grids([read_grid(folder)], [(0, one) for one in votes])


def many(folder: Path, strengths: dict[str, int]) -> list[Vote]:
    """A grid of these adapters over PROMPTS, and votes on every pair, won by the larger on 11 of 12 prompts; equal ones by halves."""
    made_grid(folder, {"adapter": list(strengths), "prompt": PROMPTS, "seed": [0]})
    votes: list[Vote] = []
    for one, two in combinations(strengths, 2):
        for number, prompt in enumerate(PROMPTS):
            gap = strengths[one] - strengths[two]
            won = (gap > 0) == ((number + len(votes) // 12) % 12 < 11) if gap else number % 2 == 0
            votes.append(vote(len(votes), key_of(one, prompt, 0), key_of(two, prompt, 0), "left" if won else "right"))
    return votes


def test_two_candidates_have_wilsons_interval_and_the_sign_test(tmp_path: Path) -> None:
    found = duel(tmp_path / "g", 15, 5, 4).to_json()
    (pair,) = found["pairs"]
    assert (pair["a"], pair["b"], found["votes"], found["axis"]) == ("none", "ink", 24, "adapter")
    assert (pair["p"], pair["low"], pair["high"]) == pytest.approx((0.25, 0.1119, 0.4687), abs=1e-4)  # scipy's binomtest(5, 20)
    assert pair["p_value"] == pytest.approx(0.04139, abs=1e-5)
    assert (pair["ties_as_half"]["p"], pair["ties"]) == (pytest.approx(7 / 24), 4)
    assert found["verdict"] == "ink wins over none: ink is preferred in 75% of decisive votes, 53% to 89% with 95% confidence, p 0.041."
    first = found["candidates"][0]
    assert (first["value"], first["wins"], first["losses"], first["ties"]) == ("ink", 15, 5, 4)
    assert first["low"] < first["strength"] < first["high"] and first["p_best"] > 0.95


def test_votes_that_cannot_tell_are_called_so(tmp_path: Path) -> None:
    found = duel(tmp_path / "g", 12, 8)
    assert found.verdict.startswith("Cannot tell which is better, none or ink: ink is preferred in 60%")
    assert found.worth == "About 179 more decisive votes on none and ink could settle it, if the difference is as large as it looks."
    assert "hardly worth it" in duel(tmp_path / "h", 10, 10).worth
    assert duel(tmp_path / "i", 1, 0, 2).verdict.startswith("Cannot tell")


def test_a_candidate_that_won_everything_is_finite_and_named(tmp_path: Path) -> None:
    found = duel(tmp_path / "g", 12, 0)
    first = found.to_json()["candidates"][0]
    assert first["separated"] == "won" and 0.5 < first["strength"] < 3 and first["p_best"] < 1
    assert any(note.startswith("ink won every decisive vote: its strength is finite only by a prior") for note in found.notes)


def test_seeds_of_one_prompt_are_not_independent_votes(tmp_path: Path) -> None:
    """Four prompts, eight seeds each, every prompt of one opinion: 24 to 8 votes, but 3 to 1 prompts."""
    made_grid(tmp_path / "g", {"adapter": ["none", "ink"], "prompt": list("abcd"), "seed": list(range(8))})
    votes = [vote(f"{p}{s}", f"none|{p}|{s}", f"ink|{p}|{s}", "left" if p == "d" else "right") for p in "abcd" for s in range(8)]
    found = rank_grids([read_grid(tmp_path / "g")], [(0, one) for one in votes])
    pair = found.table.pairs[0]
    assert pair.p_value == 0.625 and pair.low is not None and pair.low < 0.05 and found.table.effect > 8
    assert found.verdict.startswith("Cannot tell") and "There are votes on 4 prompts only" in " ".join(found.notes)


def test_several_candidates(tmp_path: Path) -> None:
    votes = many(tmp_path / "g", {"a": 0, "b": 1, "c": 2, "d": 2})
    found = rank_grids([read_grid(tmp_path / "g")], [(0, one) for one in votes])
    value = found.to_json()
    assert {one["value"] for one in value["candidates"][:2]} == {"c", "d"} and [one["value"] for one in value["candidates"][2:]] == [
        "b",
        "a",
    ]
    assert len(value["pairs"]) == 6 and sum(one["p_best"] for one in value["candidates"]) == pytest.approx(1)
    assert found.verdict.startswith("Cannot tell which is better, c or d: ") and found.verdict.endswith(" Worse than c: a, b.")
    by_pair = {(pair["a"], pair["b"]): pair for pair in value["pairs"]}
    assert by_pair["a", "d"]["p"] < 0.15 and by_pair["a", "d"]["p_value"] >= by_pair["a", "d"]["p_value_single"]
    assert by_pair["c", "d"]["p"] == pytest.approx(0.5) and by_pair["c", "d"]["p_value"] == pytest.approx(1.0)
    again = rank_grids([read_grid(tmp_path / "g")], [(0, one) for one in votes])
    assert again.to_json() == value


def test_candidates_that_no_vote_connects(tmp_path: Path) -> None:
    votes = many(tmp_path / "g", {"a": 0, "b": 1, "c": 2, "d": 3})
    apart = [one for one in votes if {one.left[0], one.right[0]} in ({"a", "b"}, {"c", "d"})]
    found = rank_grids([read_grid(tmp_path / "g")], [(0, one) for one in apart])
    assert found.verdict == "Cannot tell: votes do not connect all candidates (a, b | c, d). Vote on pairs between these groups."
    value = found.to_json()
    assert [one["strength"] for one in value["candidates"]].count(None) == 2
    assert [pair["p"] for pair in value["pairs"]].count(None) == 5


def test_several_axes_and_cells_that_are_the_same_image(tmp_path: Path) -> None:
    """A weight of 0 is the base alone: its cell has the key of the base's."""
    folder = made_grid(tmp_path / "g", {"adapter": ["none", "ink"], "weight": [0, 1], "prompt": PROMPTS})
    lines = [json.loads(line) for line in (folder / "cells.jsonl").read_text().splitlines()]
    for line in lines:
        if line["axes"]["weight"] == 0 or line["axes"]["adapter"] == "none":
            line["key"] = f"base|{line['axes']['prompt']}"
    (folder / "cells.jsonl").write_text("\n".join(map(json.dumps, lines)))
    votes = [(0, vote(p, f"base|{p}", f"ink|1|{p}", "right")) for p in PROMPTS]
    found = rank_grids([read_grid(folder)], votes, axes=("adapter", "weight"))
    assert found.axis == "adapter,weight" and found.table.pairs[0].losses == 12
    assert found.comparison.candidates == (
        "adapter none, weight 0 = adapter none, weight 1 = adapter ink, weight 0",
        "adapter ink, weight 1",
    )


def test_repeats_measure_the_voter(tmp_path: Path) -> None:
    made_grid(tmp_path / "g", {"adapter": ["none", "ink"], "prompt": list("abc")})
    votes = [vote(1, "none|a", "ink|a", "right"), vote(2, "ink|a", "none|a", "left"), vote(3, "ink|a", "none|a", "right")]
    votes += [
        vote(4, "none|a", "ink|a", "left", voter="bob"),
        vote(5, "none|b", "ink|b", "tie", voter="bob"),
        vote(6, "none|b", "ink|b", "tie"),
    ]
    found = rank_grids([read_grid(tmp_path / "g")], [(0, one) for one in votes])
    value = found.to_json()
    assert (value["votes"], value["repeats"]) == (4, 2)
    assert (value["self_agreement"]["count"], value["self_agreement"]["of"]) == (1, 2)
    assert (value["agreement"]["count"], value["agreement"]["of"]) == (1, 2)  # a: they differ, b: both a tie
    assert [(one["voter"], one["votes"]) for one in value["voters"]] == [("anna", 4), ("bob", 2)]
    assert (value["left_side"]["count"], value["left_side"]["of"]) == (2, 4)


def test_pairs_that_differ_in_another_axis_do_not_count(tmp_path: Path) -> None:
    made_grid(tmp_path / "g", {"adapter": ["none", "ink"], "prompt": ["p", "q"]})
    votes = [(0, vote(1, "none|p", "ink|q", "left")), (0, vote(2, "none|p", "gone", "left")), (0, vote(3, "none|p", "ink|p", "left"))]
    found = rank_grids([read_grid(tmp_path / "g")], votes)
    assert found.votes == 1 and found.notes[0].startswith("2 votes are on pairs that differ in another axis")


def test_scores_are_judged_by_the_votes(tmp_path: Path) -> None:
    """`good` is higher on the winner of every prompt, `bad` on the loser of 11 of 12, `flat` nowhere."""
    votes = many(tmp_path / "other", {"none": 0, "ink": 1})
    won = {one.left if one.choice == "left" else one.right for one in votes}
    scores = {
        key: {"good": float(key in won), "bad": float(key.startswith("none")), "flat": 1.0}
        for one in votes
        for key in (one.left, one.right)
    }
    folder = made_grid(tmp_path / "g", {"adapter": ["none", "ink"], "prompt": PROMPTS, "seed": [0]}, scores=scores)
    bad, flat, good = rank_grids([read_grid(folder)], [(0, one) for one in votes]).scores
    assert (good.agreement, good.votes) == (1.0, 12) and good.kendall == pytest.approx(1.0) and "goes with your votes" in good.sentence
    assert (
        bad.agreement == pytest.approx(1 / 12) and bad.kendall is not None and bad.kendall < 0 and "goes against your votes" in bad.sentence
    )
    assert (flat.agreement, flat.kendall) == (0.5, None) and "no better than a coin" in flat.sentence
    assert bad.kendall_low is not None and bad.kendall_high is not None and bad.kendall_low < bad.kendall < bad.kendall_high


def test_what_to_compare_is_not_guessed(tmp_path: Path) -> None:
    grid = read_grid(made_grid(tmp_path / "g", {"adapter": ["none", "ink"], "steps": [10, 20], "prompt": ["p"]}))
    with pytest.raises(Refused, match=r"This grid varies adapter, steps\. Say what to compare: compare=AXIS"):
        rank_grids([grid], [])
    assert rank_grids([grid], [(0, vote(1, "none|10|p", "ink|20|p", "left"))]).axis == "adapter,steps"  # as the voted pairs differ
    with pytest.raises(Refused, match=r"'adaptor' is no axis that this grid varies\. Did you mean 'adapter'\?"):
        rank_grids([grid], [], axes=("adaptor",))
    assert rank_grids([grid], [], axes=("steps",)).comparison.candidates == ("10", "20")
    assert rank_grids([grid], [], axes=("steps",)).verdict == "Cannot tell: there are no votes between these candidates."


def test_grids_are_joined_by_names_but_not_where_files_differ(tmp_path: Path) -> None:
    grids = [read_grid(made_grid(tmp_path / name, {"adapter": ["none", "ink"], "prompt": [name, f"{name}2"]})) for name in "gh"]
    votes = [(0, vote(1, "none|g", "ink|g", "right")), (1, vote(2, "none|h", "ink|h", "right"))]
    assert rank_grids(grids, votes).table.pairs[0].losses == 2
    text = (tmp_path / "h" / "cells.jsonl").read_text().replace('"adapters": []', '"adapters": [{"sha256": "other"}]')
    (tmp_path / "h" / "cells.jsonl").write_text(text)
    with pytest.raises(Refused, match="not the same file in each"):
        rank_grids([grids[0], read_grid(tmp_path / "h")], votes)


# --- files and the command


@pytest.fixture
def voted(tmp_path: Path) -> Path:
    """A grid of three adapters, one of a hostile name, with its votes."""
    write_votes(tmp_path / "made.jsonl", many(tmp_path / "g", {"a": 0, "b": 1, NASTY: 2}))
    (tmp_path / "made.jsonl").rename(tmp_path / "g" / NAME)
    return tmp_path / "g"


def test_the_command_shows_and_writes_it(voted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rank", str(voted)]) == 0
    said = capsys.readouterr().out
    assert "\x1b" not in said and "36 votes on 12 prompts" in said and "wins over a, b" in said
    assert main(["rank", str(voted), "compare=adapter", "--json", "--html", str(tmp_path / "r.html")]) == 0
    value: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert value["candidates"][0]["value"] == NASTY and {"axis", "candidates", "pairs", "verdict", "votes"} <= value.keys()
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert page.count("<script") == page.count("</script>") == 2 and "<img" not in page and "\x1b" not in page
    assert "default-src 'none'" in page and "&lt;img src=x" in page and "http://" not in page and "https://" not in page


@pytest.mark.browser
def test_the_page_in_a_browser(voted: Path, tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    assert main(["rank", str(voted), "--html", str(tmp_path / "r.html")]) == 0
    troubles: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox", "--disable-gpu", "--no-first-run"])
        page = browser.new_page(viewport={"width": 390, "height": 844})
        page.on("console", lambda message: troubles.append(message.text))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("request", lambda one: None if one.url.startswith(("file:", "data:")) else troubles.append(one.url))
        page.goto((tmp_path / "r.html").as_uri())
        assert page.title() == "Ranking by adapter" and page.locator(".forest tbody tr").count() == 3 + 3 + 1
        assert page.locator(".matrix td.found").count() == 6 and page.evaluate("document.documentElement.scrollWidth") == 390
        page.click("#theme")
        browser.close()
    assert troubles == []


def test_votes_of_another_file(voted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A page names images by a keyed hash; its file has the salt."""
    salt = "0123456789abcdef"
    rows = [
        {**json.loads(line), "left": image_id(salt, json.loads(line)["left"]), "right": image_id(salt, json.loads(line)["right"])}
        for line in (voted / NAME).read_text().splitlines()
    ]
    (voted / NAME).unlink()
    (tmp_path / "back.json").write_text(json.dumps({"format": FORMAT, "salt": salt, "votes": rows + rows[:3]}))
    assert main(["rank", str(voted), "--votes", str(tmp_path / "back.json"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["votes"] == 36
    made_grid(tmp_path / "other", {"adapter": ["x", "y"], "prompt": ["p", "q"]})
    assert main(["rank", str(tmp_path / "other"), "--votes", str(tmp_path / "back.json")]) == 2
    assert "none of them on images of" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no JSON"),
        ("[]", "is no file of votes. Expected"),
        (json.dumps({"format": FORMAT}), "no whole file of votes"),
        (json.dumps({"format": FORMAT, "salt": "x", "votes": [1, {}]}), "vote 2: it has no at"),
    ],
)
def test_a_damaged_file_of_votes_is_refused(voted: Path, tmp_path: Path, content: str, message: str, capsys: Any) -> None:
    (tmp_path / "back.json").write_text(content)
    assert main(["rank", str(voted), "--votes", str(tmp_path / "back.json")]) == 2
    assert message in (said := capsys.readouterr().err) and "fault of loraloom" not in said


DAMAGE = {
    "{": "line 2: ",
    "[]": "line 2: a cell is an object",
    '{"key": 3, "image": null, "axes": {}, "scores": {}}': "key is not a text",
    '{"key": "k", "image": "../../etc/passwd", "axes": {}, "scores": {}}': "image is not a path inside",
    '{"key": "k", "image": "/etc/passwd", "axes": {}, "scores": {}}': "image is not a path inside",
    '{"key": "k", "image": null, "axes": [], "scores": {}}': "axes and scores are objects",
    '{"image": null}': "it has no 'key'",
}


@pytest.mark.parametrize("line", DAMAGE)
def test_a_damaged_grid_is_refused(voted: Path, line: str) -> None:
    cells = (voted / "cells.jsonl").read_text().splitlines()
    (voted / "cells.jsonl").write_text("\n".join([cells[0], line, *cells[1:]]))
    with pytest.raises(Faults, match="lines that are no cells") as caught:
        read_grid(voted)
    assert DAMAGE[line] in caught.value.faults[0]


def test_other_folders_and_words_are_refused(voted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(NotFound, match="no such folder"):
        read_grid(tmp_path / "none")
    with pytest.raises(NotFound, match=r"it has no cells\.jsonl"):
        read_grid(tmp_path)
    for words, message in (
        ([str(voted), str(voted)], "A grid is given twice"),
        (["compare=adapter"], "No grid is given"),
        ([str(voted), "compare=adapter", "--compare", "seed"], "compare is given 2 times"),
        ([str(voted), "compare=adapter,"], "give axes of the grid, each once"),
        ([str(voted), "--html", "page.txt"], "--html"),
        ([str(voted), "--seed", "-1"], "--seed -1: expected 0 or more"),
        ([str(voted), "--votes", str(tmp_path / "no.json")], "there is no such file of votes"),
    ):
        assert main(["rank", *words]) == 2
        assert message in capsys.readouterr().err
