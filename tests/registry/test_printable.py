"""Lists in messages."""

import subprocess

from registry.printable import counted, shell_line, some


def test_long_lists_are_cut() -> None:
    assert some("abcde") == "a, b, c and 2 more"
    assert some("abc") == "a, b, c"
    assert some({"a": 1, "b": 2}, most=1) == "a and 1 more"
    assert some("abc", most=2, between="; ") == "a; b; and 1 more" and some([]) == ""


def test_one_is_no_plural() -> None:
    assert [counted(number, "caption") for number in (0, 1, 2)] == ["0 captions", "1 caption", "2 captions"]
    assert [counted(number, "entry is", "entries are") for number in (1, 2)] == ["1 entry is", "2 entries are"]


def test_a_line_for_a_shell_has_its_words() -> None:
    words = ["a b", "it's", "$HOME `x` \\", "\x1b[2J\n", "\u202e", "-x", ""]
    line = shell_line("printf", "%s|", *words)
    assert line.isprintable() and subprocess.check_output(["bash", "-c", line]).decode() == "".join(f"{word}|" for word in words)
    assert shell_line("a", "\udcff") == r"a $'\xff'"
