"""What the search of memory=... costs beside the traces of a plan without it: CPU seconds, on the meta device.

    OMP_NUM_THREADS=1 python -m bench.memory.search [BUILD ...] [--cards 8 12]

A plan without `memory` traces five stages of one set of settings. A search traces the step of as many as it has to compare: two where
gradient checkpointing is turned on, since the plan says what the next cheaper choice takes too. Every answer is made from nothing, and is
held against bench/memory/figures.json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.memory.cards import MAIN_MEMORY, read_figures
from bench.memory.table import CONFIG, answer, model_of
from registry.budget.peak import Trace
from train.plan import traces
from train.plan.traces import Traces


def main(titles: list[str], cards: list[int]) -> None:
    made: Counter[str] = Counter()
    traces.is_known = lambda *_: False  # none from the home, and none kept there
    kept = Traces._kept

    def counted(self: Traces, kind: str, settings: list[Any], make: Callable[[], Trace]) -> Trace:
        def making() -> Trace:
            made[kind] += 1
            return make()

        return kept(self, kind, settings, making)

    Traces._kept = counted  # type: ignore[method-assign]
    print("| model | plan without, CPU s | GB | with memory, CPU s | of it | traces | the answer |\n|" + "---|" * 7, flush=True)
    for title in titles:
        with tempfile.TemporaryDirectory() as place:
            model = model_of(title, Path(place))
            begun = time.process_time()
            model.peaks(CONFIG)
            plain = time.process_time() - begun
            for card in cards:
                traces.TRACED.clear()
                made.clear()
                begun = time.process_time()
                found = json.loads(json.dumps(answer(model, int(card * 1e9), MAIN_MEMORY)))
                seconds = time.process_time() - begun
                same = "as in the table" if found == read_figures()[title]["cards"][str(card)] else "another than in the table"
                counts = ", ".join(f"{count} {kind}" for kind, count in sorted(made.items()))
                print(f"| {title} | {plain:.1f} | {card} | {seconds:.1f} | {seconds / plain:.2f} | {counts} | {same} |", flush=True)


if __name__ == "__main__":
    reader = argparse.ArgumentParser()
    reader.add_argument("titles", nargs="*", default=["SD 1.5", "SDXL"])
    reader.add_argument("--cards", type=int, nargs="+", default=[8, 12])
    given = reader.parse_args()
    main(given.titles, given.cards)
