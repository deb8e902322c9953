"""Freed memory stays for the next tensors where that is asked for, and goes back to the system all the same."""

import subprocess
import sys

PROGRAM = """
import resource
from registry.budget.free import resident_bytes
from registry.budget.freed import give_back, keep_freed

MIB = 1 << 20


def call():
    "Pages taken anew by 90 MiB, in blocks that glibc has in its own memory."
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [bytearray(15 * MIB) for _ in range(6)]
    del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


call(), call()
alone = call()
keep_freed()
call(), call()
kept, held = call(), resident_bytes()
give_back()
print(alone, kept, (held - resident_bytes()) // MIB)
"""


def test_memory_that_is_kept_is_not_taken_anew_and_can_be_given_back() -> None:
    shown = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    alone, kept, given_back = map(int, shown.stdout.split())
    assert alone > 5000 and kept < 100 and given_back >= 85  # 90 MiB are 23,000 pages of 4 KiB
