from pathlib import Path

from train.data.wording import names_of


def test_many_names_are_cut() -> None:
    assert names_of([Path("set/a.png"), Path("b.png")]) == "a.png, b.png"
    assert names_of([Path(f"set/{number}.png") for number in range(14)], most=1) == "0.png and 13 more"
