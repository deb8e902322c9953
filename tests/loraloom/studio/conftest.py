"""What the tests of the Studio share: a served one, and a browser."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser import launched
from tests.loraloom.studio.opened import Served, serving

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """A Studio of an empty folder and an empty home."""
    (tmp_path / "work").mkdir()
    with serving(tmp_path / "work", home=tmp_path / "home") as found:
        yield found


@pytest.fixture(scope="module")  # another module's own playwright cannot begin while one is open
def browser() -> Iterator["Browser"]:
    with launched() as opened:
        yield opened
