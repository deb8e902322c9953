"""A memory budget as it is typed."""

import pytest
import torch

from registry.budget import free
from registry.budget.costs import LATER_LIBRARIES
from registry.budget.free import available_bytes, free_bytes, main_memory_bytes, process_bytes
from registry.budget.text import Budget, both_units, budget_fault, read_budget, size_to_give
from registry.errors import Refused

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("12GiB", 12 * 2**30),
        ("12GB", 12_000_000_000),
        ("11.5 GiB", 23 * 2**29),
        ("0.1GB", 100_000_000),
        (".5mib", 2**19),
        ("300kB", 300_000),
        (" 8gb ", 8_000_000_000),
        ("1TiB", 2**40),
        ("4951234560B", 4951234560),
    ],
)
def test_units_are_what_they_say(text: str, count: int) -> None:
    assert read_budget(text, CPU) == Budget(count)


@pytest.mark.parametrize("text", ["", "much", "-1GiB", "0GB", "nanGiB", "1e3GB", "12 Gi B", "12GiBs", "1,5GiB", "9999999TiB", "GiB"])
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(Refused, match=r"is no amount of memory\. Expected a size with its unit, such as 12GiB"):
        read_budget(text, CPU)


def test_a_number_without_a_unit_is_asked_which_it_means() -> None:
    assert budget_fault("12") == "needs a unit: 12GiB (12,884,901,888 bytes) or 12GB"
    assert budget_fault("500M") == "needs a unit: 500MiB (524,288,000 bytes) or 500MB"


def test_auto_is_what_is_free() -> None:
    found = read_budget("Auto", CPU)
    free = free_bytes(CPU)
    assert found.is_auto and free is not None and found.bytes == pytest.approx(free, rel=0.2)  # other programs take and free meanwhile
    assert str(found).endswith("GB), what is free") or str(found).endswith("MB), what is free")


def test_main_memory_is_that_of_the_machine_or_less() -> None:
    with open("/proc/meminfo", encoding="ascii") as lines:
        total = int(next(lines).split()[1]) * 1024
    free = available_bytes()
    size = main_memory_bytes()
    assert free is not None and size is not None and 0 < free <= size <= total


def test_bytes_are_shown_in_both_units() -> None:
    assert both_units(12_000_000_000) == "11.2 GiB (12.0 GB)"
    assert both_units(12 * 2**30) == "12.0 GiB (12.9 GB)"
    assert both_units(3 * 2**20) == "3.0 MiB (3.1 MB)"
    assert both_units(1000) == "1000 bytes"


@pytest.mark.parametrize("count", [1, 1023, 1025, 2**20 - 1, 2**20 + 1, 10_536_148_992, 2**30, 7 * 2**30 + 12345])
def test_a_size_to_give_is_enough_and_hardly_more(count: int) -> None:
    given = read_budget(size_to_give(count), CPU).bytes
    assert count <= given <= count + max(2, count // 1000 + 1)


def test_a_size_to_give_is_short() -> None:
    assert size_to_give(2**30) == "1GiB"
    assert size_to_give(10_536_148_992) == "9.813GiB"


def test_a_process_takes_the_same_from_start_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = set()
    for resident in (300 * 2**20, 300 * 2**20 + 600_000):  # of two starts of one command
        monkeypatch.setattr(free, "resident_bytes", lambda resident=resident: resident)
        counted.add(process_bytes(CPU))
    assert counted == {368 * 2**20} and LATER_LIBRARIES == 56 * 2**20  # 356 MiB and a little more, up to whole 16 MiB
    assert process_bytes(torch.device("cuda")) == 0
