"""Paths as people write them."""

from pathlib import Path

import pytest

from registry.home import expanded


def test_a_tilde_is_a_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert expanded("~/set") == expanded(Path("~/set")) == Path("/home/me/set")


def test_that_of_an_unknown_user_is_a_folder_that_is_not_there() -> None:
    assert expanded("~nobody-of-this-name/set") == Path("~nobody-of-this-name/set")
    assert str(expanded("~\0/set")) == "~\0/set"
