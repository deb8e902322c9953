"""What a sweep of training runs lists at its end."""

import json
from pathlib import Path
from typing import Any

from loraloom.commands.train import job


def swept(place: Path, number: int, stopped: dict[str, Any] | None, *, exit_code: int = 0) -> dict[str, Any]:
    """A run of a sweep, as its result.json has it."""
    folder = place / str(number)
    folder.mkdir()
    (folder / "result.json").write_text(json.dumps({"steps": 400, "stopped_early": stopped}))
    return {"number": number, "overrides": [f"seed={number}"], "folder": str(folder), "exit_code": exit_code}


def test_runs_that_stopped_early_are_listed(tmp_path: Path) -> None:
    stopped = {"step": 400, "of": 1000, "reason": "3 held-out measurements in a row were not better"}
    runs = [swept(tmp_path, 0, None), swept(tmp_path, 1, stopped), swept(tmp_path, 2, stopped, exit_code=1)]
    runs.append({"number": 3, "overrides": [], "folder": None, "exit_code": 2})
    assert list(job().summary(runs)) == ["run 1 stopped early after step 400 of 1000: 3 held-out measurements in a row were not better"]
