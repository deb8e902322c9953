"""Scores kept in the home by content: a file a definition, a line an image. What is kept is not computed again.

`<home>/scores/<name>-<sha256 of the definition>.json`. A file that cannot be read counts as none.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from infer.score.scorer import Found, Plain, Scorer, Subject
from registry.errors import LoomError
from registry.formats.atomic_file import write_text
from registry.plain_values import from_json

LOG = logging.getLogger(__name__)
VERSION = 1  # counts up when a score's own code gives other numbers
MOST = 1_000_000  # numbers of a definition; the oldest are dropped beyond


class KeptScores:
    """The numbers of one definition."""

    def __init__(self, home: Path, scorer: Scorer) -> None:
        identity = json.dumps([VERSION, scorer.kind, dict(scorer.identity), dict(scorer.model or {}).get("sha256")], sort_keys=True)
        self.path = home / "scores" / f"{scorer.kind}-{sha256(identity.encode()).hexdigest()[:32]}.json"
        self._identity = identity
        self._values = _read(self.path, identity) if scorer.kept else {}
        self._new: dict[str, list[Any]] = {}
        self._keeps = scorer.kept

    def get(self, subject: Subject, inputs: Mapping[str, Plain]) -> Found | None:
        """The number that is kept for an image."""
        value = self._values.get(_key(subject, inputs))
        return None if value is None else Found(float(value[0]), str(value[1]))

    def add(self, subject: Subject, inputs: Mapping[str, Plain], found: Found) -> None:
        """Keep a number, until `save` writes it."""
        if self._keeps:
            self._values[_key(subject, inputs)] = self._new[_key(subject, inputs)] = [found.value, found.text]

    def save(self) -> None:
        """Write what is new beside what another process wrote meanwhile. A home that takes no file keeps nothing, and nothing fails."""
        if not self._new:
            return
        values = list((_read(self.path, self._identity) | self._new).items())[-MOST:]
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_text(self.path, json.dumps({"identity": self._identity, "values": dict(values)}, ensure_ascii=False))
        except (OSError, LoomError) as error:
            LOG.debug("Scores are not kept: %s", error)
        self._new = {}


def _key(subject: Subject, inputs: Mapping[str, Plain]) -> str:
    return sha256(json.dumps([subject.sha256, dict(inputs)], sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()


def _read(path: Path, identity: str) -> dict[str, Any]:
    try:
        kept = from_json(path.read_bytes())
        if kept["identity"] == identity:
            return {key: value for key, value in kept["values"].items() if _is_value(value)}
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        LOG.debug("%s is not read: %s", path, error)
    return {}


def _is_value(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], (int, float)) and isinstance(value[1], str)
