from pathlib import Path

from train.data.wording import counted, listed, names_of


def test_one_is_no_plural() -> None:
    assert [counted(number, "caption") for number in (0, 1, 2)] == ["0 captions", "1 caption", "2 captions"]


def test_many_names_are_cut() -> None:
    assert listed(["a", "b"]) == "a, b" and listed(["a", "b", "c"], most=2, between="; ") == "a; b and 1 more"
    assert names_of([Path(f"set/{number}.png") for number in range(14)], most=1) == "0.png and 13 more"
