"""How votes become pairs: each voter one voice on a pair, the majority counts, what says nothing is left out and counted."""

from typing import Any

from train.preference.ballots import Ballot, Ballots, Pair, once, pairs_of


def ballot(choice: str, *, left: str = "a", right: str = "b", voter: str = "anna", prompt: str | None = "a cat", **more: Any) -> Ballot:
    return Ballot(**({"id": str(id(object())), "voter": voter, "prompt": prompt, "left": left, "right": right, "choice": choice} | more))


def test_a_vote_is_a_pair_whichever_side_it_was_on() -> None:
    pairs, _ = pairs_of(Ballots([ballot("left"), ballot("right", prompt="a dog")]))
    assert pairs == [Pair("a cat", "a", "b"), Pair("a dog", "b", "a")]


def test_a_pair_counts_once_and_a_voter_is_one_voice() -> None:
    again = [ballot("left"), ballot("right", left="b", right="a"), ballot("left", voter="bo"), ballot("right", voter="cy")]
    pairs, tally = pairs_of(Ballots(again))
    assert pairs == [Pair("a cat", "a", "b")], "anna, twice, and bo against cy"
    assert (tally.votes, tally.voters, tally.pairs, tally.repeated, tally.disputed) == (4, 3, 1, 3, 1)
    one_voice = [ballot("left"), ballot("left"), ballot("right", voter="bo")]
    assert pairs_of(Ballots(one_voice))[1].undecided == 1, "two votes of one voter do not outvote another"


def test_a_voter_who_says_both_has_no_voice() -> None:
    found = Ballots([ballot("left"), ballot("right"), ballot("right", voter="bo")])
    assert pairs_of(found)[0] == [Pair("a cat", "b", "a")]
    pairs, tally = pairs_of(Ballots([ballot("left"), ballot("right")]))
    assert pairs == [] and tally.undecided == 1 and "1 pair as often the one way as the other" in tally.sentence()


def test_what_prefers_nothing_is_left_out_and_counted() -> None:
    votes = [ballot("tie"), ballot("both_bad"), ballot("left", prompt=None), ballot("left", right="a"), ballot("left")]
    pairs, tally = pairs_of(Ballots(votes, gone=2))
    assert len(pairs) == 1 and tally.votes == 7
    assert tally.left_out() == "1 tie, 1 both bad, 1 between two prompts, 1 on one and the same image, 2 on an image that is gone"


def test_the_order_of_pairs_is_by_content() -> None:
    votes = [ballot("left", prompt=prompt) for prompt in ("b", "a", "c")]
    assert pairs_of(Ballots(votes))[0] == pairs_of(Ballots(votes[::-1]))[0]


def test_an_id_counts_once_and_clashes_are_named() -> None:
    one = ballot("left", id="1")
    assert once([one, one]) == ([one], [])
    assert once([one, ballot("right", id="1")])[1] == ["the id 1 is of two votes that differ"]
