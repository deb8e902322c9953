"""scores.html: plots on a common scale, and whatever a person wrote is text."""

import re
from pathlib import Path
from typing import Any

from infer.score.page import score_page, write_score_page

HOSTILE = "<img src=x onerror=alert(1)>\u202e\n</style><script>"


def section(value: str = "1") -> dict[str, Any]:
    common = {"score": "contrast", "axis": "weight", "first": "0", "pairs": 12, "groups": 6, "over": "prompt"}
    definition = {"name": "contrast", "score": "contrast", "unit": "0", "better": None}
    return {
        "definitions": [{**definition, "definition": f"Of {value}.", "options": {}, "model": None}],
        "means": {"contrast": 12.5},
        "differences": [
            {**common, "value": value, "mean": 5.0, "low": 2.5, "high": 10.0, "verdict": "higher"},
            {**common, "value": "2", "mean": -1.0, "low": None, "high": None, "verdict": "cannot tell", "over": None},
        ],
        "notes": [value],
    }


def test_intervals_are_drawn_on_one_scale() -> None:
    """10 is the farthest end, at 97 %; 5 is half of the way from 50."""
    page = score_page("a grid", section())
    assert re.findall(r'x1="([\d.]+)%" x2="([\d.]+)%"', page)[1] == ("61.75", "97.0")
    assert re.findall(r'cx="([\d.]+)%"', page) == ["73.5", "45.3"]
    assert "+2.5 to +10" in page and "6 prompts" in page and "12.5" in page


def test_what_a_person_wrote_is_text(tmp_path: Path) -> None:
    write_score_page(tmp_path / "scores.html", HOSTILE, section(HOSTILE))
    page = (tmp_path / "scores.html").read_text(encoding="utf-8")
    assert "<img" not in page and "<script" not in page and "\u202e" not in page and page.count("&lt;img src=x") == 5
    assert "default-src 'none'" in page and "http://" not in page and "https://" not in page


def test_a_grid_of_prompts_and_seeds_has_no_plots() -> None:
    assert "varies nothing but prompts and seeds" in score_page("g", {**section(), "differences": []})
