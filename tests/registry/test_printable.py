"""Lists in messages."""

from registry.printable import some


def test_long_lists_are_cut() -> None:
    assert some("abcde") == "a, b, c and 2 more"
    assert some("abc") == "a, b, c"
    assert some({"a": 1, "b": 2}, most=1) == "a and 1 more"
    assert some("abc", most=2, between="; ") == "a; b; and 1 more" and some([]) == ""
