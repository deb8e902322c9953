"""The examples of docs/api.md, run as they are written."""

import ast
from pathlib import Path

import pytest

import loraloom
from registry.store import Store

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
FAST = "Find and inspect"


def examples(section: str | None = None) -> str:
    """The Python of a section's blocks in their order, on the page's own lines; of all sections when none is named."""
    lines, inside, heading = [], False, ""
    for line in PAGE.splitlines():
        heading = line.removeprefix("## ") if line.startswith("## ") and not inside else heading
        if line.startswith("```"):
            inside = line == "```python"
            lines.append("")
        else:
            lines.append(line if inside and section in (None, heading) else "")
    return "\n".join(lines)


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: empty but for datasets/; the home is its own."""
    (tmp_path / "datasets").symlink_to(ROOT / "datasets")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LORALOOM_HOME", str(tmp_path / "home"))
    return tmp_path


def test_every_public_name_has_an_example() -> None:
    used = {node.id for node in ast.walk(ast.parse(examples())) if isinstance(node, ast.Name)}
    assert set(loraloom.__all__) - {"__version__"} <= used


def test_the_examples_that_find_and_inspect_run(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(examples(FAST), "docs/api.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "Did you mean 'pocket'?" in printed
    assert "torch.Size([1, 4, 16, 16])" in printed


@pytest.mark.slow
def test_all_examples_run(checkout: Path) -> None:
    names: dict[str, object] = {}
    exec(compile(examples(), "docs/api.md", "exec"), names)
    store = Store()
    for name in ("ink", "pocket-ink", "mix", "mean", "small", "back", "small-kohya", "pocket-ink-file"):
        assert store.find(name).family == "sd1"
    mixed, again, grid = names["mixed"], names["again"], names["grid"]
    assert mixed.result["tensors_sha256"] == again.result["tensors_sha256"]  # type: ignore[attr-defined]
    assert grid.result["rendered"] == 6  # type: ignore[attr-defined]
