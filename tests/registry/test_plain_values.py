"""JSON and YAML that others wrote: texts can be stored, and everything that is wrong is a ValueError."""

import json

import pytest

from registry.plain_values import from_json, from_yaml


def test_half_of_a_pair_is_replaced_wherever_it_is_and_whole_pairs_stay() -> None:
    assert from_json(r'{"a\ud800": ["x\udfffy", {"b": "\ud83d\ude00"}]}') == {"a\ufffd": ["x\ufffdy", {"b": "\U0001f600"}]}
    assert from_yaml(r'{a: ["x\ud800y"]}') == {"a": ["x\ufffdy"]}
    assert from_json(b"\xef\xbb\xbf[1]") == [1]  # with a byte order mark
    assert from_json(r'"\\ud800"') == r"\ud800"  # no escape: a backslash


@pytest.mark.parametrize("text", ["", "{", b"\xff", "[" * 100_000, '{"a": ' * 3000, "1" * 5000])
def test_json_that_is_none(text: str | bytes) -> None:
    with pytest.raises(ValueError):
        from_json(text)


@pytest.mark.parametrize(
    "text",
    ["[" * 1000, "a: [", "!!timestamp x", "!!int x", "!!python/object/apply:os.system [true]", "&a [*a]", "{{}: 1}", "!!binary é", "\x01"],
)
def test_yaml_that_is_none(text: str) -> None:
    with pytest.raises(ValueError):
        from_yaml(text)


def test_aliases_that_multiply_are_refused_before_anything_walks_them() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    with pytest.raises(ValueError, match="200,000 values"):
        from_yaml("\n".join(lines))
    assert from_yaml("a: &a [1, 2]\nb: *a") == json.loads('{"a": [1, 2], "b": [1, 2]}')
