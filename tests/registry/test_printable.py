"""Lists in messages."""

import subprocess

from registry.printable import shell_line, some


def test_long_lists_are_cut() -> None:
    assert some("abcde") == "a, b, c and 2 more"
    assert some("abc") == "a, b, c"
    assert some({"a": 1, "b": 2}, most=1) == "a and 1 more"
    assert some("abc", most=2, between="; ") == "a; b; and 1 more" and some([]) == ""


def test_a_line_for_a_shell_has_its_words() -> None:
    words = ["a b", "it's", "$HOME `x` \\", "\x1b[2J\n", "\u202e", "-x", ""]
    line = shell_line("printf", "%s|", *words)
    assert line.isprintable() and subprocess.check_output(["bash", "-c", line]).decode() == "".join(f"{word}|" for word in words)
    assert shell_line("a", "\udcff") == r"a $'\xff'"
