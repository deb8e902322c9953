"""A Studio on the tests' own home, whose embedded base has been looked at already; one for all tests of a file."""

from collections.abc import Iterator

import pytest

from registry.home import home_dir
from tests.loraloom.studio.opened import Served, serving


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("work"), home=home_dir()) as found:
        yield found
