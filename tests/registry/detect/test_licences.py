"""A derived model inherits the strictest licence; unknown ones are named."""

from pathlib import Path

import pytest

from registry.detect.inspect import inspect
from registry.detect.licences import declared_terms, inherited, strictness
from registry.store import Store
from tests.registry.made import lora, sd1_attention


@pytest.mark.parametrize(
    ("licence", "level"),
    [
        ("CC0-1.0", 0), ("MIT", 1), ("Apache-2.0", 1), ("CC-BY-4.0", 1), ("CC-BY-SA-4.0", 2), ("AGPL-3.0", 2),
        ("creativeml-openrail-m", 3), ("CreativeML Open RAIL++-M", 3), ("CC-BY-NC-4.0", 4), ("flux-1-dev-non-commercial-license", 4),
        ("CC-BY-NC-SA-4.0", 4), ("CC-BY-ND-4.0", 5), ("Bob's own", None),
    ],
)  # fmt: skip
def test_levels(licence: str, level: int | None) -> None:
    assert strictness(licence) == level


def test_the_strictest_counts_and_the_unknown_are_named() -> None:
    reported = inherited([("a", "MIT"), ("b", "CC-BY-NC-4.0"), ("c", None), ("d", "Bob's own"), ("e", "CC-BY-SA-4.0")])
    assert (reported.licence, reported.unknown) == ("CC-BY-NC-4.0", ("c", "d"))
    assert inherited([]).licence is None


def test_of_equally_strict_ones_all_hold() -> None:
    assert inherited([("a", "GPL-3.0"), ("b", "CC-BY-SA-4.0 AND MIT"), ("c", "GPL-3.0")]).licence == "GPL-3.0 AND CC-BY-SA-4.0"


def test_what_should_be_known_before_sharing_is_said() -> None:
    def codes(*licences: str | None) -> list[str]:
        return [warning.code for warning in inherited(zip("abc", licences, strict=False)).warnings()]

    assert codes("MIT", "openrail") == []
    assert codes("MIT", None) == ["licence-unknown"]
    assert codes("CC-BY-NC-4.0", "Bob's own") == ["licence-unknown", "licence-closed"]
    assert inherited([("a", None)]).entries() == {}


def test_a_derived_file_tells_its_terms_wherever_it_goes(tmp_path: Path) -> None:
    terms = inherited([("base", "CC-BY-NC-4.0"), ("style", None)])
    lora(tmp_path / "x.safetensors", sd1_attention(), metadata=terms.entries())
    record = inspect(tmp_path / "x.safetensors")
    assert record.licence == "CC-BY-NC-4.0" and [warning.code for warning in record.warnings] == ["licence-unknown", "licence-closed"]
    assert declared_terms({"loraloom.licences": '{"base": "CC-BY-NC-4.0", "style": null}'}) == terms
    assert declared_terms({"loraloom.licences": "[1"}) is declared_terms({}) is declared_terms({"loraloom.licences": '{"a": 1}'}) is None


def test_lineage_tells_what_follows_from_base_and_dataset(store: Store, tmp_path: Path) -> None:
    lora(tmp_path / "base.safetensors", sd1_attention(), seed="b")
    base = store.add(tmp_path / "base.safetensors", licence="creativeml-openrail-m")
    (tmp_path / "set").mkdir()
    store.add_dataset(tmp_path / "set", name="hats", sha256="1" * 64)
    lora(tmp_path / "x.safetensors", sd1_attention())
    first, second = {"role": "base", "ref": "base", "sha256": base.hashes.sha256}, {"role": "dataset", "ref": "hats", "sha256": "1" * 64}
    store.add(tmp_path / "x.safetensors", parents=[first, second])
    reported = store.lineage("x").to_json()
    assert (reported["inherited_licence"], reported["licence_unknown"]) == ("creativeml-openrail-m", ["hats"])
    assert "creativeml-openrail-m" in store.lineage("x").to_text()
