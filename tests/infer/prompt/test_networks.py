"""<lora:...> in prompts."""

import pytest

from infer.prompt.networks import Network, networks
from registry.errors import Refused


@pytest.mark.parametrize(
    ("text", "left", "found"),
    [
        ("a cat", "a cat", []),
        ("a cat <lora:ink:0.8>", "a cat ", [Network("ink", 0.8, 0.8)]),
        ("<lora:ink> a", " a", [Network("ink", 1.0, 1.0)]),
        ("<lora:ink:0.5:1>", "", [Network("ink", 0.5, 1.0)]),
        ("<lora:ink:te=0.5:unet=1>", "", [Network("ink", 0.5, 1.0)]),
        ("<lyco:my hat:unet=0.3>", "", [Network("my hat", 1.0, 0.3)]),
        ("<lora:a:1><lora:b:2>", "", [Network("a", 1.0, 1.0), Network("b", 2.0, 2.0)]),
        ("I <3 it", "I <3 it", []),
    ],
)
def test_tags(text: str, left: str, found: list[Network]) -> None:
    assert networks(text) == (left, found)


@pytest.mark.parametrize(
    "text", ["<hypernet:old:1>", "<lora:ink:x>", "<lora:ink:1:1:1>", "<lora:ink:dyn=8>", "<lora:ink:1:stop=8>", "<lora: :1>"]
)
def test_what_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(Refused, match=text[:6]):
        networks(text)
