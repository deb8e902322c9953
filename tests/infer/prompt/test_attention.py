"""Weights in prompts: literals of A1111's documentation, random texts against a second reader, ComfyUI's rules."""

import random

import pytest

from infer.prompt.attention import a1111_pieces, comfy_pieces
from registry.errors import Refused
from tests.infer.images import a1111_weights

SIGNS = ["(", ")", "[", "]", "\\", ":1.3)", ":0.5)", "a", " cat", ", ", ":", "1.2"]


def pairs(text: str) -> list[tuple[str, float]]:
    return [(piece.text, piece.weight) for piece in a1111_pieces(text)]


def test_the_literals_of_a1111s_documentation() -> None:
    assert pairs("normal text") == [("normal text", 1.0)]
    assert pairs("an (important) word") == [("an ", 1.0), ("important", 1.1), (" word", 1.0)]
    assert pairs("(unbalanced") == [("unbalanced", 1.1)]
    assert pairs("\\(literal\\]") == [("(literal]", 1.0)]
    assert pairs("(unnecessary)(parens)") == [("unnecessaryparens", 1.1)]
    found = pairs("a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).")
    assert [text for text, _ in found] == ["a ", "house", " ", "on", " a ", "hill", ", sun, ", "sky", "."]
    assert [weight for _, weight in found] == pytest.approx([1.0, 1.573, 1.1, 1.0, 1.1, 0.55, 1.1, 1.4641, 1.1])


def test_a_weight_may_have_spaces_around_it() -> None:
    assert pairs("(red: 1.2 )") == [("red", 1.2)]


def test_random_texts_are_read_as_the_second_reader_reads_them() -> None:
    draw = random.Random(1)
    for _ in range(400):
        text = "".join(draw.choices(SIGNS, k=draw.randint(1, 12)))
        found, other = pairs(text), a1111_weights(text)
        assert "".join(part for part, _ in found) == "".join(part for part, _ in other), text
        assert _by_letter(found) == pytest.approx(_by_letter(other)), text


def _by_letter(found: list[tuple[str, float]]) -> list[float]:
    return [weight for text, weight in found for _ in text]


def test_break_ends_a_chunk() -> None:
    found = a1111_pieces("a cat BREAK (a dog)")
    assert [(piece.text, piece.weight, piece.is_break) for piece in found] == [
        ("a cat", 1.0, False),
        ("", 1.0, True),
        ("", 1.0, False),
        ("a dog", 1.1, False),
    ]
    assert [piece.text for piece in a1111_pieces("BREAKFAST")] == ["BREAKFAST"]


@pytest.mark.parametrize(("text", "part"), [("(a BREAK b)", "BREAK"), ("(a:1.2.3)", "1.2.3"), ("[a BREAK b", "BREAK")])
def test_what_has_no_meaning_is_refused(text: str, part: str) -> None:
    with pytest.raises(Refused, match=part):
        a1111_pieces(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a cat", [("a cat", 1.0)]),
        ("a (red:1.3) cat", [("a ", 1.0), ("red", 1.3), (" cat", 1.0)]),
        ("((red))", [("red", 1.1 * 1.1)]),
        ("((red:1.3))", [("red", 1.3)]),
        ("((red:1.3) hat:0.5)", [("red", 1.3), (" hat", 0.5)]),
        ("[red] \\(b\\)", [("[red] (b)", 1.0)]),
        ("(red", [("(red", 1.0)]),
        ("(a:b)", [("a:b", 1.1)]),
        ("", [("", 1.0)]),
    ],
)
def test_comfyui(text: str, expected: list[tuple[str, float]]) -> None:
    found = [(piece.text, piece.weight) for piece in comfy_pieces(text)]
    assert [part for part, _ in found] == [part for part, _ in expected]
    assert [weight for _, weight in found] == pytest.approx([weight for _, weight in expected])


def test_deep_brackets_are_read_at_once() -> None:
    with pytest.raises(Refused, match="100 brackets"):
        comfy_pieces("(" * 3000 + "a" + ")" * 3000)
    assert comfy_pieces("(" * 90 + "a" + ")" * 90)[0].text == "a"
    assert a1111_pieces("(" * 3000 + "a" + ")" * 3000)[0].text == "a"


def comfy_reads(text: str, weight: float = 1.0) -> list[tuple[str, float]]:
    """ComfyUI's rules once more, by recursion."""
    parts, start, depth = [], 0, 0
    for place, sign in enumerate(text):
        if sign == "(":
            if depth == 0:
                parts.append(text[start:place])
                start = place
            depth += 1
        elif sign == ")":
            depth -= 1
            if depth == 0:
                parts.append(text[start : place + 1])
                start = place + 1
    found = []
    for part in filter(None, [*parts, text[start:]]):
        if part[0] == "(" and part[-1] == ")" and len(part) > 1:
            inner, own = part[1:-1], weight * 1.1
            head, colon, tail = inner.rpartition(":")
            if colon and head:
                try:
                    inner, own = head, float(tail)
                except ValueError:
                    inner = part[1:-1]
            found += comfy_reads(inner, own)
        else:
            found.append((part, weight))
    return found


def test_random_texts_are_read_as_comfyui_reads_them() -> None:
    draw = random.Random(2)
    for _ in range(600):
        text = "".join(draw.choices(["(", ")", ":1.3)", ":x)", "a", " cat", ", ", ":", "(b:0.5)"], k=draw.randint(1, 12)))
        found = [(piece.text, piece.weight) for piece in comfy_pieces(text) if piece.text]
        expected = comfy_reads(text)
        assert "".join(part for part, _ in found) == "".join(part for part, _ in expected), text
        assert _by_letter(found) == pytest.approx(_by_letter(expected)), text
