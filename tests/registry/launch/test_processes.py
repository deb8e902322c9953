"""The place of a process in a launch, by the variables of accelerate, torchrun and MPI."""

import pytest

from registry.errors import Refused
from registry.launch.processes import Launch

ACCELERATE = {"WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "1", "MASTER_PORT": "29500"}
MPI = {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_LOCAL_RANK": "0"}


def test_the_place_of_a_process() -> None:
    assert Launch.here({}) == Launch.here({"WORLD_SIZE": "1", "RANK": "0"}) == Launch(rank=0, local=0, count=1)
    assert Launch.here(ACCELERATE) == Launch(rank=3, local=1, count=4, name="MASTER_PORT=29500")
    assert Launch.here(MPI) == Launch(rank=1, local=0, count=2)
    assert Launch().is_first and not Launch.here(MPI).is_first


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"RANK": ""}, "WORLD_SIZE=4 counts 4 processes, but no RANK says which of them this is"),
        ({"RANK": "4"}, "WORLD_SIZE=4 counts 4 processes, but no RANK says"),
        ({"RANK": "x"}, "RANK=x is no number of a process"),
        ({"LOCAL_RANK": "x"}, "LOCAL_RANK=x is no number of a process"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE=0 is no number of processes"),
    ],
)
def test_what_is_no_place_is_refused(changes: dict[str, str], fault: str) -> None:
    with pytest.raises(Refused, match=fault):
        Launch.here(ACCELERATE | changes)
