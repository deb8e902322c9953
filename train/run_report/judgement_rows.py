"""judgement.json of a run as a table for a person."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from registry.images.image_hash import BITS
from registry.typed_values import is_of
from train.run_report.model_tables import is_measured

COLUMNS = ("step", "style distance", "against the base", "drift", "nearest training image", "against the base", "copies", "held-out loss")
NUMBER = float | None
INTERVAL = {"value": float, "low": NUMBER, "high": NUMBER}
BASE = {"style_distance": float, "nearest": float, "heldout_loss": NUMBER}
ROW = {"step": int, "style_distance": float, "nearest": float, "copies": int, "copying": bool, "heldout_loss": NUMBER}


def is_judgement(value: Mapping[str, Any]) -> bool:
    """Whether this is what judgement.json holds, as far as it is shown."""
    whole = {"sentence": str, "steps": list[int], "images": int, "base": dict[str, Any], "checkpoints": list[dict[str, Any]]}
    if not _has(value, whole) or not _has(value["base"], BASE):
        return False
    return is_measured(value) and all(
        _has(row, ROW)
        and all(_has(row.get(name), INTERVAL) for name in ("style_to_base", "nearest_to_base"))
        and (row.get("drift") is None or _has(row["drift"], INTERVAL))
        for row in value["checkpoints"]
    )


def _has(value: Any, types: Mapping[str, Any]) -> bool:
    return isinstance(value, Mapping) and all(is_of(value.get(name), kind) for name, kind in types.items())


def judgement_rows(value: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """(columns, rows) of what judgement.json holds, as a person reads them."""
    base = value["base"]
    near = f"{base['nearest'] * BITS:.1f} of {BITS} bits"
    rows = [["base", f"{base['style_distance']:.2f}", "", "0", near, "", "", _loss(base["heldout_loss"])]]
    for row in value["checkpoints"]:
        copies = f"{row['copies']} of {value['images']}{', copying' if row['copying'] else ''}"
        rows.append(
            [
                str(row["step"]),
                f"{row['style_distance']:.2f}",
                _span(row["style_to_base"]),
                "" if row["drift"] is None else f"{row['drift']['value']:.2f}{_ends(row['drift'], '.2f')}",
                f"{row['nearest'] * BITS:.1f} of {BITS} bits",
                _span(row["nearest_to_base"]),
                copies,
                _loss(row["heldout_loss"]),
            ]
        )
    return list(COLUMNS), rows


def _span(interval: Mapping[str, Any]) -> str:
    return f"{interval['value']:+.2f}{_ends(interval, '+.2f')}"


def _ends(interval: Mapping[str, Any], form: str) -> str:
    low, high = interval["low"], interval["high"]
    return " (cannot tell)" if low is None or high is None else f" ({low:{form}} to {high:{form}})"


def _loss(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
