"""kill -9 at random moments: nothing is lost, nothing half is left, and the same command goes on. bench/faults has the long form."""

import os
from pathlib import Path

import pytest

from tests.faults import kills

SEED = int(os.environ.get("LORALOOM_FAULTS_SEED", "1"))


@pytest.mark.slow
@pytest.mark.parametrize("name", kills.CASES)
def test_a_job_that_is_killed_goes_on(name: str, tmp_path: Path) -> None:
    assert kills.run(name, tmp_path, 2, seed=SEED) == []
