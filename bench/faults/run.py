"""The long form of tests/faults: many damaged inputs and many kills, with their counts.

python bench/faults/run.py FOLDER --mutations 5000 --kills 15 --seed 1 [--only NAME ...]
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.faults import kills
from tests.faults.mutations import run
from tests.faults.targets import TARGETS


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--mutations", type=int, default=0, help="of each target")
    parser.add_argument("--kills", type=int, default=0, help="of each job")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", nargs="*", default=[], help="targets or jobs; default: all")
    given = parser.parse_args()
    faults: list[str] = []
    for name in (name for name in TARGETS if given.mutations and (not given.only or name in given.only)):
        began = time.monotonic()
        with TARGETS[name](given.folder / name.replace("/", "_")) as target:
            tally = run(target, given.mutations, seed=given.seed)
        counts = ", ".join(f"{count} {outcome}" for outcome, count in sorted(tally.outcomes.items()))
        print(f"{name}: {counts}; {time.monotonic() - began:.0f} s", flush=True)
        faults += tally.faults
    for name in (name for name in kills.CASES if given.kills and (not given.only or name in given.only)):
        began = time.monotonic()
        found = kills.run(name, given.folder / name, given.kills, seed=given.seed)
        print(f"{name}: {given.kills} kills, {len(found)} faults; {time.monotonic() - began:.0f} s", flush=True)
        faults += found
    print("\n".join(faults) or "no faults")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
