"""The table of docs/adapters.md: every kind of adapter, made by the library itself and compared with the library's own merge.

    python -m bench.adapters.table [WORD ...]      prints the rows whose group or title holds a word; without one, all of docs/adapters.md

Needs lycoris-lora 4.1.3 beside the project's own requirements; it asks for packages that are not used here, so install it without them:
    pip install --no-deps --target FOLDER lycoris_lora==4.1.3 einops==0.8.2 toml==0.10.2      and PYTHONPATH=FOLDER:. for the command above
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from bench.adapters import dialect_cases, lycoris_cases, peft_cases
from bench.adapters.measure import COLUMNS, row

PAGE = Path(__file__).parents[2] / "docs" / "adapters.md"
GROUPS = {
    f"peft {version('peft')}": peft_cases.cases,
    f"LyCORIS {version('lycoris_lora')}": lycoris_cases.cases,
    "Dialects": dialect_cases.cases,
}
BEGIN, END = "<!-- the table: python -m bench.adapters.table -->", "<!-- end of the table -->"


def rows(words: list[str]) -> Iterator[str]:
    """The table's lines, group by group."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for group, cases in GROUPS.items():
            yield f"\n| {group} | {' | '.join(COLUMNS)} |\n|---|{'---|' * len(COLUMNS)}"
            for number, (title, make) in enumerate(cases().items()):
                if not words or any(word.lower() in f"{group} {title}".lower() for word in words):
                    yield row(title, make, place, place / f"{group[0]}{number}")


def main(words: list[str]) -> None:
    lines = []
    for line in rows(words):
        print(line, flush=True)
        lines.append(line)
    if not words:
        page = PAGE.read_text(encoding="utf-8")
        table = f"{BEGIN}\n" + "\n".join(lines) + f"\n\n{END}"
        PAGE.write_text(re.sub(f"{re.escape(BEGIN)}.*{re.escape(END)}", lambda _found: table, page, flags=re.DOTALL), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
