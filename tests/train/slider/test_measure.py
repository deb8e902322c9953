"""A slider's reach in words."""

from train.slider.measure import Reach


def test_a_reach_of_less_than_a_tenth_is_called_little() -> None:
    weak, strong = (Reach((low, low + 0.01), 3.0, cosine=0.5).sentence() for low in (0.2, 0.3))
    assert "That is little: raise optim.lr or steps" in weak
    assert "That is little" not in strong and strong.startswith("the slider acts: ")
    assert "little" not in Reach((0.2, 0.21), None).sentence()
