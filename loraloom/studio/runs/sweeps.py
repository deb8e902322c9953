"""The folders of --multirun below `runs/sweeps/`: their runs, and the best of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from loraloom.studio.runs.folders import OUT, SWEEPS
from registry.errors import BadFile
from registry.plain_values import from_json

RESULT = "result.json"


def sweep_folders(roots: Sequence[Path]) -> list[Path]:
    """The folders of sweeps, the newest first."""
    found = []
    for root in roots:
        place = root / OUT / SWEEPS
        try:
            found += [entry for entry in place.iterdir() if (entry / "runs").is_dir()]
        except OSError:
            continue
    return sorted(found, key=lambda one: one.name.partition("-")[2], reverse=True)


def sweeps(roots: Sequence[Path], *, offset: int, limit: int) -> dict[str, Any]:
    """A page of the sweeps with how many runs each has."""
    folders = sweep_folders(roots)
    rows = []
    for folder in folders[offset : offset + limit]:
        runs = len([entry for entry in (folder / "runs").iterdir() if entry.suffix == ".json"])
        rows.append({"path": str(folder), "name": folder.name, "ended": (folder / RESULT).is_file(), "runs": runs})
    return {"rows": rows, "total": len(folders)}


def sweep(folder: Path) -> dict[str, Any]:
    """A sweep's runs, of one that goes on those that have ended; `best` is the number of the best. Raises BadFile."""
    result = _object(folder / RESULT) if (folder / RESULT).is_file() else None
    runs = (result or {}).get("runs") if result else [_object(path) for path in sorted((folder / "runs").glob("*.json"))]
    rows = [row for row in runs if isinstance(row, dict)] if isinstance(runs, list) else []
    best, summary = (result or {}).get("best"), (result or {}).get("summary")
    return {
        "path": str(folder),
        "name": folder.name,
        "ended": result is not None,
        "settings": _settings(rows),
        "runs": [_row(row) for row in rows],
        "best": best.get("number") if isinstance(best, dict) else None,
        "summary": [str(line) for line in summary] if isinstance(summary, list) else [],
    }


def _settings(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The settings that are not the same in all runs."""
    settings = [row["settings"] for row in rows if isinstance(row.get("settings"), dict)]
    names = dict.fromkeys(name for one in settings for name in one)
    return [name for name in names if len({repr(one.get(name)) for one in settings}) > 1 or len(settings) == 1]


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    settings = row.get("settings")
    return {
        "number": row.get("number"),
        "settings": settings if isinstance(settings, dict) else {},
        "folder": row.get("folder"),
        "reference": row.get("reference"),
        "value": row.get("value"),
        "exit_code": row.get("exit_code"),
        "error": row.get("error"),
    }


def _object(path: Path) -> Mapping[str, Any]:
    try:
        value = from_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise BadFile(path, "damaged", f"it cannot be read ({error}). Remove it, or copy it again.") from error
    if not isinstance(value, dict):
        raise BadFile(path, "damaged", "it does not hold a JSON object. Remove it, or copy it again.")
    return value
