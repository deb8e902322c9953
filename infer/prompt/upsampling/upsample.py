"""Upsampling of prompts: how a setting names it, and the texts that come of it, kept in the home so that each is made once."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infer.prompt.dialect import A1111, COMFY, PLAIN, pieces_of, read_prompt
from infer.prompt.marks import escape
from infer.prompt.schedule import composed
from infer.prompt.upsampling import rules
from registry.errors import Refused, WriteFailed
from registry.files.write_failure import make_folder
from registry.formats.atomic_file import write_json
from registry.formats.hashing import folder_sha256
from registry.formats.model_folder import folder_files
from registry.home import expanded
from registry.printable import counted

if TYPE_CHECKING:
    from infer.prompt.upsampling.language_model import LanguageModel

RULES: Mapping[str, Callable[[str], str]] = {"concrete": rules.concrete, "detailed": rules.detailed}
TOKENS, MOST_TOKENS = 77, 1024
EXPECTED = (
    "Expected concrete, detailed, the folder of a language model, or {model: FOLDER, instruction: 'Rewrite ...', tokens: 77};"
    " null is as typed."
)


@dataclass(frozen=True, kw_only=True)
class Upsample:
    """How a prompt is made more exact. `model` is the name of rules, or a folder; the others are a language model's."""

    model: str
    instruction: str | None = None  # None: the one of its kind
    tokens: int = TOKENS  # new ones, at most

    def __str__(self) -> str:
        extra = [f"{counted(self.tokens, 'token')}"] if self.tokens != TOKENS else []
        extra += [self.instruction] if self.instruction is not None else []
        return f"{self.model} ({', '.join(extra)})" if extra else self.model


def read_upsample(value: object) -> Upsample | None:
    """The upsampling of a name, a folder or a record; None of None and "none". Raises Refused."""
    if value is None or isinstance(value, Upsample):
        return value
    if isinstance(value, str) and value.strip():
        return None if value.strip().lower() == "none" else Upsample(model=value.strip())
    if isinstance(value, Mapping) and isinstance(value.get("model"), str) and not set(value) - {"model", "instruction", "tokens"}:
        return _of_record(value)
    raise Refused(f"{value!r} is no upsampling of prompts. {EXPECTED}")


def _of_record(value: Mapping[str, Any]) -> Upsample:
    instruction, tokens = value.get("instruction"), value.get("tokens", TOKENS)
    if not (instruction is None or (isinstance(instruction, str) and instruction.strip())):
        raise Refused(f"instruction is {instruction!r}. Expected the text that the language model follows.")
    if type(tokens) is not int or not 1 <= tokens <= MOST_TOKENS:
        raise Refused(f"tokens is {tokens!r}. Expected 1 to {MOST_TOKENS}: the tokens that the language model may write.")
    found = Upsample(model=value["model"].strip(), instruction=instruction, tokens=tokens)
    if found.model in RULES and found != Upsample(model=found.model):
        raise Refused(f"instruction and tokens are a language model's, and {found.model} is rules. Leave them out.")
    return found


def spell_upsample(value: Upsample | None) -> str:
    """As an axis has it: "none", "detailed", the folder as it was given with what differs from the defaults."""
    return "none" if value is None else str(value)


class Upsampler:
    """The texts of upsampled prompts. A language model is loaded at the first text that is not in `folder`.

    `digest(path)` is the sha256 of a file; `device` where a model runs.
    """

    def __init__(self, folder: Path, digest: Callable[[Path], str]) -> None:
        self._folder = folder
        self._digest = digest
        self._digests: dict[Path, str] = {}
        self._faults: dict[Path, list[str]] = {}
        self._loaded: tuple[Path, LanguageModel] | None = None

    def check(self, how: Upsample, prompt: str, dialect: str) -> None:
        """Refuse what cannot be upsampled; loads nothing."""
        if how.model in RULES:
            if dialect in A1111 and len(composed(prompt)) > 1 and how.model == "detailed":
                raise Refused(f"upsample=detailed adds to the end of a prompt, and {prompt!r} is joined by AND. Use upsample=concrete.")
            return
        path = _place(how)
        if path not in self._faults:
            self._faults[path] = _faults(path)
        if self._faults[path]:
            raise Refused(f"upsample: {'; '.join(self._faults[path])}.")
        if dialect != PLAIN and _has_marks(prompt, dialect):
            raise Refused(
                f"upsample={how} is a language model, which would rewrite the marks of {dialect} in {prompt!r}."
                " Use upsample=concrete or detailed, or prompt_dialect=plain."
            )

    def text(self, how: Upsample, prompt: str, dialect: str, *, device: str) -> str:
        """The text in place of a prompt that `check` accepts. Raises Refused where a model cannot be loaded or gives no text."""
        if how.model in RULES:
            return RULES[how.model](prompt)
        kept = self._folder / f"{self._key(how, prompt)}.json"
        text = _kept(kept)
        if text is None:
            text = self._model(_place(how), device)(prompt, instruction=how.instruction, tokens=how.tokens)
            self._keep(kept, {"prompt": prompt, "text": text, **asdict(how)})
        return _escaped(text, dialect)

    def close(self) -> None:
        """Drop the language model."""
        self._loaded = None

    def _keep(self, path: Path, values: Mapping[str, Any]) -> None:
        with contextlib.suppress(WriteFailed):  # a home that takes no file: the text is made again next time
            make_folder(path.parent)
            write_json(path, values)

    def _key(self, how: Upsample, prompt: str) -> str:
        path = _place(how)
        if path not in self._digests:
            self._digests[path] = folder_sha256({file.relative_to(path).as_posix(): self._digest(file) for file in folder_files(path)})
        values = [self._digests[path], how.instruction, how.tokens, prompt]
        return sha256(json.dumps(values, ensure_ascii=False).encode()).hexdigest()

    def _model(self, path: Path, device: str) -> LanguageModel:
        from infer.prompt.upsampling.language_model import LanguageModel

        if self._loaded is None or self._loaded[0] != path:
            self._loaded = None
            self._loaded = (path, LanguageModel(path, device=device))
        return self._loaded[1]


def _place(how: Upsample) -> Path:
    return expanded(how.model).absolute()


def _faults(path: Path) -> list[str]:
    if not path.is_dir():
        return [f"{path.name} is neither concrete nor detailed, and there is no folder {path}. {EXPECTED.rstrip('.')}"]
    from infer.prompt.upsampling.language_model import faults_of_language_model

    return faults_of_language_model(path)


def _has_marks(prompt: str, dialect: str) -> bool:
    parts = read_prompt(prompt, dialect, steps=1)
    pieces = [piece for part in parts for timed in part.texts for piece in pieces_of(timed.text, dialect)]
    return len(parts) > 1 or "".join(piece.text for piece in pieces) != prompt or any(piece.weight != 1.0 for piece in pieces)


def _escaped(text: str, dialect: str) -> str:
    """A text without marks, so that the dialect reads its letters."""
    if dialect == COMFY:  # it has no meaning for brackets
        return text.replace("\\", "\\\\").replace("(", "\\(").replace(")", "\\)")
    return text if dialect == PLAIN else escape(text)


def _kept(path: Path) -> str | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    text = found.get("text") if isinstance(found, dict) else None
    return text if isinstance(text, str) else None
