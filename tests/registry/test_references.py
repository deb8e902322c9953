"""References as people write them."""

from pathlib import Path

import pytest

from registry.errors import Refused
from registry.references import (
    NAME,
    Weighted,
    is_hash,
    looks_like_path,
    names_like,
    parse_adapters,
    proper_name,
    split_alias,
    without_alias,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ()),
        ("none", ()),
        (" None ", ()),
        ("ink", (Weighted("ink", 1.0),)),
        ("ink:0.6", (Weighted("ink", 0.6),)),
        ("ink:0.6+hat:0.4", (Weighted("ink", 0.6), Weighted("hat", 0.4))),
        ("ink : 0.6 + hat", (Weighted("ink", 0.6), Weighted("hat", 1.0))),
        ("ink:-1", (Weighted("ink", -1.0),)),
        ("ink:+.5+hat", (Weighted("ink", 0.5), Weighted("hat", 1.0))),
        ("ink:1e-1", (Weighted("ink", 0.1),)),
        ("ink:1e+1+hat", (Weighted("ink", 10.0), Weighted("hat", 1.0))),
        ("style+2e+hat", (Weighted("style", 1.0), Weighted("2e", 1.0), Weighted("hat", 1.0))),  # a name's own e is no exponent
        ("ink@best:0.5", (Weighted("ink@best", 0.5),)),
        ("ink@step-300", (Weighted("ink@step-300", 1.0),)),
        ("sha256:1234", (Weighted("sha256:1234", 1.0),)),
        ("sha256:12345678:0.5", (Weighted("sha256:12345678", 0.5),)),
        (r"C:\models\ink.safetensors", (Weighted(r"C:\models\ink.safetensors", 1.0),)),
        (r"C:\models\ink.safetensors:0.5", (Weighted(r"C:\models\ink.safetensors", 0.5),)),
        ("runs/a/ink.safetensors:2", (Weighted("runs/a/ink.safetensors", 2.0),)),
    ],
)
def test_adapters_with_weights(text: str, expected: tuple[Weighted, ...]) -> None:
    assert parse_adapters(text) == expected


@pytest.mark.parametrize("text", ["ink+", "+ink", ":0.5", "ink:nan", "ink:inf", "ink+none"])
def test_what_cannot_be_meant_is_refused(text: str) -> None:
    with pytest.raises(Refused):
        parse_adapters(text)


def test_a_plus_or_colon_in_a_path_that_exists_is_part_of_it(tmp_path: Path) -> None:
    path = tmp_path / "a+b:2"
    path.write_text("")
    assert parse_adapters(str(path)) == (Weighted(str(path), 1.0),)
    assert parse_adapters(f"{path}:0.5") == (Weighted(str(path), 0.5),)


def test_hashes_paths_and_aliases_are_reported_apart() -> None:
    assert is_hash("sha256:ABCD12") == "abcd12" and is_hash("ink") is None
    for bad in ("sha256:", "sha256:xyz", "sha256:12"):
        with pytest.raises(Refused):
            is_hash(bad)
    assert looks_like_path("a/b") and looks_like_path("./a") and looks_like_path("a.safetensors") and not looks_like_path("ink.v2")
    assert split_alias("ink@best") == ("ink", "best") and split_alias("ink") == ("ink", None) and split_alias("@best") == ("@best", None)


def test_a_sweeps_run_is_a_name_with_its_override() -> None:
    assert NAME.fullmatch("ink@lora.rank=4,seed=1")
    assert not NAME.fullmatch("ink@step-300") and not NAME.fullmatch("ink@a=1@b=2")
    assert parse_adapters("ink@lora.rank=4:0.5+hat") == (Weighted("ink@lora.rank=4", 0.5), Weighted("hat"))
    assert split_alias("ink@lora.rank=4@step-300") == ("ink@lora.rank=4", "step-300")
    assert [without_alias(name) for name in ("ink", "ink@best", "ink@lora.rank=4", "ink@lora.rank=4@best")] == [
        "ink",
        "ink",
        "ink@lora.rank=4",
        "ink@lora.rank=4",
    ]
    assert proper_name("ink@lora.rank=4") == "ink@lora.rank=4"


def test_a_pattern_takes_the_runs_of_a_sweep_in_the_order_of_their_values() -> None:
    names = ["ink@lora.rank=16", "ink@lora.rank=4", "ink@lora.rank=4@20260102-030405", "ink", "hat@lora.rank=4", "ink@lora.rank=8,seed=1"]
    assert names_like("ink@lora.rank=*", names) == ["ink@lora.rank=4", "ink@lora.rank=8,seed=1", "ink@lora.rank=16"]
    assert names_like("ink@optim.lr=*", ["ink@optim.lr=0.001", "ink@optim.lr=1e-05"]) == ["ink@optim.lr=1e-05", "ink@optim.lr=0.001"]
