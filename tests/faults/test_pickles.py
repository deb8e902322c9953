"""Code in a pickle, of every protocol and in every place where one can lie, is never run: its only effect would be a file."""

import hashlib
import io
import json
import os
import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.faults.mutations import outcome_of
from tests.faults.targets import command


class Armed:
    """Its pickle makes a file when it is executed: harmless, and seen."""

    def __init__(self, mark: Path, how: str = "reduce") -> None:
        self.mark, self.how = mark, how

    def __reduce__(self) -> Any:
        if self.how == "eval":
            return eval, (f"open({str(self.mark)!r}, 'w')",)
        return (open, (str(self.mark), "w")) if self.how == "reduce" else (os.mkdir, (str(self.mark),))


def kinds(mark: Path) -> Iterator[tuple[str, bytes]]:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        yield f"protocol {protocol}", pickle.dumps({"state_dict": Armed(mark)}, protocol=protocol)
    for how in ("eval", "mkdir"):
        yield how, pickle.dumps([Armed(mark, how)])
    for new in (True, False):
        data = io.BytesIO()
        torch.save({"w": torch.ones(2), "x": Armed(mark)}, data, _use_new_zipfile_serialization=new)
        yield f"torch, {'zip' if new else 'legacy'}", data.getvalue()
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("other/data.pkl", pickle.dumps(Armed(mark)))
    yield "zip by hand", archive.getvalue()
    yield "text before it", b"hello\n" + pickle.dumps(Armed(mark))


NAMES = [name for name, _ in kinds(Path("x"))]


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LORALOOM_HOME", str(tmp_path / "home"))
    return tmp_path / "executed"


def test_these_pickles_are_armed(mark: Path) -> None:
    pickle.loads(dict(kinds(mark))["protocol 2"])
    assert mark.exists()


@pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name == "protocol 2" else pytest.mark.slow) for name in NAMES])
def test_no_command_runs_it(name: str, mark: Path, tmp_path: Path) -> None:
    data = dict(kinds(mark))[name]
    folder = tmp_path / "models"
    folder.mkdir()
    for ending in ("ckpt", "pt", "bin", "pth", "pkl", "safetensors", "gguf", "png", "json"):
        file = folder / f"x.{ending}"
        file.write_bytes(data)
        for words in (("registry", "show"), ("registry", "add"), ("lora", "inspect"), ("reproduce",), ("registry", "import-notes")):
            outcome, shown = outcome_of(command(*words, file))
            assert outcome == "refused", (ending, words, outcome, shown)
    assert outcome_of(command("registry", "scan", folder, "--hash"))[0] == "done"
    assert not mark.exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_conversion_leaves_it_out_or_refuses(name: str, mark: Path, tmp_path: Path) -> None:
    file = tmp_path / "x.pt"
    file.write_bytes(dict(kinds(mark))[name])
    outcome, shown = outcome_of(command("registry", "convert", file, "--to", "safetensors", "--output", tmp_path / "o.safetensors"))
    assert outcome in ("refused", "done"), shown
    assert not mark.exists()


@pytest.mark.parametrize("name", ["protocol 2", "torch, zip", "torch, legacy"])
def test_a_checkpoint_of_a_run_with_the_right_hash_is_damaged_in_our_words(name: str, mark: Path, tmp_path: Path) -> None:
    from train.loop import checkpoint

    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    place = checkpoint.save(tmp_path / "run", 3, write_adapter=lambda path: path.write_bytes(b"x"), training={}, history={})
    (place / checkpoint.TRAINING).write_bytes(dict(kinds(mark))[name])
    state = place / checkpoint.STATE
    values = json.loads(state.read_text())
    values["files"][checkpoint.TRAINING] = hashlib.sha256((place / checkpoint.TRAINING).read_bytes()).hexdigest()
    state.write_text(json.dumps(values))
    with pytest.raises(checkpoint.Damaged, match="asks for code to be run, or is no file of tensors") as caught:
        checkpoint.read(place)
    assert "weights_only" not in str(caught.value) and not mark.exists()
