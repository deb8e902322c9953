"""Names and messages use the words of the field: those that were replaced do not come back."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.test_house import ALL_PYTHON, SOURCES, named, tree_of

# Parts of a name, or a word of a message, and what the field writes instead.
WORDS = {
    "told": "reported, declared, overridden",
    "hear": "apply, read, receive",
    "wear": "set_adapters, active",
    "worn": "active",
    "speaks": "is_active",
    "theirs": "reference, original, diffusers",
}
# Names as a whole, and what replaced them.
NAMES = {
    "Asked": "TrackedMetadata",
    "AdapterWay": "AdapterConversion",
    "Brought": "Download",
    "Ground": "InpaintBackground",
    "Halves": "TrainSplit",
    "Judge": "OverrideChecker",
    "KNOWN": "DETECT_ONLY",
    "Known": "Signature",
    "LOOKS": "SIGNATURE",
    "Landing": "TargetSlice",
    "Learner": "TrainState",
    "Look": "ModelHeader",
    "NotingLook": "TrackedHeader",
    "Retained": "Retention",
    "SmallKind": "ComponentKind",
    "Traits": "TableFacts",
    "Wish": "ConvertRequest, StopRequest",
    "base_alone": "adapter_disabled",
    "bring": "download",
    "bringing": "downloading",
    "brought": "downloaded",
    "complete_as_it_is": "identity_conditioning",
    "encode_nothing": "encode_unconditional",
    "encode_pictures": "encode_latents",
    "go_on": "resume",
    "home_of": "match",
    "in_form_of": "match_layout",
    "keep_few_activations": "enable_gradient_checkpointing",
    "look_again": "refresh_record",
    "ours": "actual, own",
    "settle_missing": "mark_missing",
    "traits_of": "table_facts",
    "twin_of": "hardlink_of",
    "units_of": "adapter_layers",
    "write_seen": "upsert",
}
MODULES = {
    "fresh": "refresh",
    "forms": "relayout",
    "halves": "split",
    "hydra_jobs": "hydra/jobs",
    "judge": "hydra/overrides",
    "known": "other_families",
    "looks": "signature",
    "mapped": "mmap_files",
    "own_files": "managed_files",
    "settle": "scan_write",
    "told": "overrides",
    "units": "adapter_layers",
    "work": "execute",
}
# Phrases of help, errors and other texts that a person reads.
PHRASES = {
    r"picture": "image",
    r"first code": "original implementation",
    r"plain pipeline": "the stock diffusers pipeline",
    r"learned words?": "textual inversion embedding",
    r"does not count": "is ignored: overridden by",
    r"brought": "downloaded",
    r"learning rate at its highest": "peak learning rate",
    r"forward passes a step": "gradient accumulation steps",
    **WORDS,
}
# Texts that are exactly these: stable keys and options, and words of other projects.
ALLOWED_STRINGS = {
    "picture": "the key of a control and of result.json, and the option --picture",
    "--picture": "the older name of --image",
    "pictures": "a key of result.json",
    "heldout_pictures": "a key of result.json",
    "Whole picture": "a value of A1111's infotext",
    "told": "the source of an override, as records hold it",
    "to wear": "a word of prompts",
}
RETIRED_IN_NAMES = re.compile("|".join(WORDS))
RETIRED_IN_TEXT = re.compile(rf"(?i)\b({'|'.join(PHRASES)})s?\b")


def identifiers(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Names that a file gives or uses: functions, classes, arguments, attributes, variables, imports; each with its line."""
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name) | ast.Name(id=name):
                yield line, name
            case ast.arg(arg=name) | ast.keyword(arg=str(name)) | ast.Attribute(attr=name):
                yield line, name
            case ast.alias(name=name, asname=other):
                yield line, (other or name).rpartition(".")[2]


def texts(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """String constants but for docstrings, parts of f-strings included; each with its line."""
    first = {id(node.body[0].value) for node in ast.walk(tree) if is_documented(node)}  # type: ignore[attr-defined]
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in first:
            yield node.lineno, node.value


def is_documented(node: ast.AST) -> bool:
    if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return False
    return bool(node.body) and isinstance(node.body[0], ast.Expr) and isinstance(node.body[0].value, ast.Constant)


@cache
def retired(path: Path) -> list[str]:
    """What a file holds of retired names and words, as `line: found -> write this`."""
    found = []
    for line, name in identifiers(tree_of(path)):
        if name in NAMES:
            found.append(f"{line}: {name} -> {NAMES[name]}")
        elif part := RETIRED_IN_NAMES.search(name):
            found.append(f"{line}: {name} -> {WORDS[part[0]]}")
    if path in SOURCES and path.name != "captions.py":  # captions of the embedded base may hold any word
        for line, text in texts(tree_of(path)):
            if text not in ALLOWED_STRINGS and (hit := RETIRED_IN_TEXT.search(text)):
                found.append(f"{line}: {text[max(0, hit.start() - 20) : hit.end() + 20]!r} -> {better(hit[1])}")
    if path in SOURCES and path.stem in MODULES:
        found.append(f"{path.name} -> {MODULES[path.stem]}")
    return found


def better(word: str) -> str:
    return next(good for pattern, good in PHRASES.items() if re.fullmatch(pattern, word.lower()))


@pytest.mark.parametrize("path", [path for path in ALL_PYTHON if path != Path(__file__)], ids=named)
def test_names_and_messages_are_the_fields(path: Path) -> None:
    assert retired(path) == []
