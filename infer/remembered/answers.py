"""Answers to what a plan asks of a base, kept in the home by the base's content.

Such an answer (how many denoiser calls a sampler makes, whether an adapter fits) costs little once torch and diffusers are imported
and the empty model is built, which cost seconds. Answers are kept as long as the code that found them is the same: the files of two of
our packages, Python, and the libraries it asks. Refusals are not kept: they are found anew each time.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from registry.errors import LoomError
from registry.formats.atomic_file import write_text
from registry.launch.own_code import code_digest

LOG = logging.getLogger(__name__)
T = TypeVar("T")

LIBRARIES = ("torch", "diffusers", "transformers", "tokenizers", "peft", "safetensors", "numpy")
MOST = 20_000  # answers of a base; the oldest are dropped beyond

Plain = str | int | float | bool | list[Any] | dict[str, Any] | None


class Answers:
    """The answers on one base, in a JSON file of its own. A file of other code, or one that cannot be read, counts as none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._answers = _read(path)
        self._asked: set[str] = set()
        self._changed = False

    def ask(self, question: Sequence[Plain], find: Callable[[], T], *, keep: Callable[[T], bool] = lambda answer: True) -> T:
        """The kept answer, or that of `find`: plain values alone, kept where `keep` says so. What `find` raises is raised."""
        key = json.dumps(question)
        if key not in self._answers:
            answer = find()
            if not keep(answer):
                return answer
            self._answers[key] = answer
            self._changed = True
        self._asked.add(key)
        return self._answers[key]  # type: ignore[no-any-return]  # what `find` gave, through JSON

    def save(self) -> None:
        """Write what is new, beside what another process wrote meanwhile. A home that takes no file keeps nothing, and nothing fails."""
        if not self._changed:
            return
        merged = {key: answer for key, answer in (_read(self.path) | self._answers).items() if key not in self._asked}
        merged |= {key: self._answers[key] for key in self._answers if key in self._asked}  # the last asked are the last dropped
        newest = dict(list(merged.items())[-MOST:])
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_text(self.path, json.dumps({"made_with": made_with_code(), "answers": newest}))
        except (OSError, LoomError) as error:
            LOG.debug("What the plan found out of a base is not kept: %s", error)
        self._changed = False


def _read(path: Path) -> dict[str, Any]:
    try:
        kept = json.loads(path.read_bytes())
        if kept["made_with"] == made_with_code():
            return dict(kept["answers"])
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, TypeError) as error:
        LOG.debug("%s is not read: %s", path, error)
    return {}


@cache
def made_with_code() -> str:
    """A digest of what answers follow from besides the base: Python, the libraries' versions, and our own files."""
    import infer
    import registry

    return code_digest([Path(str(package.__file__)).parent for package in (registry, infer)], LIBRARIES)
