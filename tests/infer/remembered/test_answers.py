"""Answers on a base: kept between plans while the code is the same, and never a refusal."""

import json
from importlib import metadata
from pathlib import Path

import pytest

from infer.remembered import answers
from infer.remembered.answers import MOST, Answers, made_with_code
from registry.errors import Refused


def never() -> int:
    raise AssertionError("asked again")


def test_an_answer_is_found_once_and_kept(tmp_path: Path) -> None:
    first = Answers(tmp_path / "plans" / "base.json")
    assert first.ask(["calls", None, 2], lambda: 7) == 7
    assert first.ask(["calls", None, 2], never) == 7
    first.save()
    assert Answers(first.path).ask(["calls", None, 2], never) == 7
    assert Answers(first.path).ask(["calls", None, 3], lambda: 8) == 8  # not saved: the file has the first alone
    assert list(json.loads(first.path.read_text())["answers"]) == ['["calls", null, 2]']


def test_what_is_refused_or_not_worth_keeping_is_asked_again(tmp_path: Path) -> None:
    here = Answers(tmp_path / "base.json")
    with pytest.raises(Refused):
        here.ask(["fit"], lambda: (_ for _ in ()).throw(Refused("It does not fit.")))
    assert here.ask(["fit"], lambda: ["a fault"], keep=lambda faults: not faults) == ["a fault"]
    here.save()
    assert not here.path.exists()
    assert here.ask(["fit"], lambda: 0, keep=lambda faults: not faults) == 0
    assert here.ask(["fit"], never) == 0


def test_answers_of_other_code_count_as_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = Answers(tmp_path / "base.json")
    here.ask(["calls"], lambda: 7)
    here.save()
    monkeypatch.setattr(answers, "made_with_code", lambda: "other code")
    assert Answers(here.path).ask(["calls"], lambda: 8) == 8


def test_the_code_is_python_the_libraries_and_the_files_of_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sub").mkdir()
    source = tmp_path / "sub" / "one.py"
    source.write_text("x = 1\n")
    monkeypatch.setattr("infer.__file__", str(tmp_path / "__init__.py"))
    monkeypatch.setattr("registry.__file__", str(tmp_path / "__init__.py"))
    found = [made_with_code.__wrapped__()]
    source.write_text("x = 10\n")
    found.append(made_with_code.__wrapped__())
    monkeypatch.setattr(metadata, "version", lambda name: "0.1")
    found.append(made_with_code.__wrapped__())
    monkeypatch.setattr("sys.version", "4.0")
    found.append(made_with_code.__wrapped__())
    assert len(set(found)) == 4


@pytest.mark.parametrize("content", [b"", b"[]", b'{"made_with": 1}', b'{"answers": ', b"\xff\xfe"])
def test_a_damaged_file_counts_as_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "base.json"
    path.write_bytes(content)
    here = Answers(path)
    assert here.ask(["calls"], lambda: 7) == 7
    here.save()
    assert Answers(path).ask(["calls"], never) == 7


def test_two_processes_keep_both_answers(tmp_path: Path) -> None:
    one, other = Answers(tmp_path / "base.json"), Answers(tmp_path / "base.json")
    one.ask(["a"], lambda: 1)
    other.ask(["b"], lambda: 2)
    one.save()
    other.save()
    both = Answers(one.path)
    assert (both.ask(["a"], never), both.ask(["b"], never)) == (1, 2)


def test_a_home_that_takes_no_file_keeps_nothing(tmp_path: Path) -> None:
    (tmp_path / "plans").write_text("a file where the folder should be")
    here = Answers(tmp_path / "plans" / "base.json")
    assert here.ask(["calls"], lambda: 7) == 7
    here.save()


def test_the_answers_that_were_asked_least_recently_are_dropped(tmp_path: Path) -> None:
    here = Answers(tmp_path / "base.json")
    for index in range(MOST):
        here.ask(["text", index], lambda: None)
    here.save()
    later = Answers(here.path)
    later.ask(["text", 0], never)
    later.ask(["new"], lambda: 1)
    later.save()
    last = Answers(here.path)
    assert last.ask(["text", 0], never) is None and last.ask(["new"], never) == 1
    assert last.ask(["text", 1], lambda: "again") == "again"
    assert last.ask(["text", 2], never) is None
