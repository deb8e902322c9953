"""The data in a report's HTML: what its viewer shows, and where other files are put into it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from registry.errors import BadFile
from registry.plain_values import from_json

DATA = re.compile(r'(<script id="data" type="application/json">)(.*?)(</script>)', re.DOTALL)  # no text in it can hold the end


def read_page(report: Path) -> tuple[str, dict[str, Any]]:
    """The text of a report, and its data. Raises BadFile where it is missing or no report of this version."""
    if not report.is_file():
        raise BadFile(report, "missing", "is missing: a grid's folder has its report. Start the grid again: nothing is drawn twice.")
    try:
        text = report.read_text(encoding="utf-8")
        found = DATA.search(text)
        data = from_json((found[2] if found else "").encode())
        rows = data["images"]
        good = data["grid"] == "1" and type(data["live"]) is bool and data["kind"] in ("", "png", "webp")
        good = good and isinstance(data.get("explained", {}), dict)
        if not good or not isinstance(rows, Sequence) or not all(isinstance(row, list) and isinstance(row[0], str) for row in rows):
            raise ValueError("its data has another form")
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise no_report(report) from error
    return text, dict(data)


def no_report(report: Path) -> BadFile:
    """The error for a page that is none, or of another version."""
    return BadFile(report, "no-report", "is no report of a grid of this version. Start the grid again: nothing is drawn twice.")
