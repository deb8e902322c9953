"""mypy holds every function of a family against its Protocol, where the Family is declared: mypy itself is run on toy families."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOY = (ROOT / "tests" / "toy_family.py.txt").read_text(encoding="utf-8")
FUNCTIONS = (
    "load",
    "encode_prompts",
    "encode_unconditional",
    "count_tokens",
    "encode_images",
    "decode",
    "complete",
    "predict",
    "set_timesteps",
    "lora_state",
)
# without the large libraries, whose classes are Any then: seconds instead of minutes
CONFIG = """[mypy]
explicit_package_bases = true
mypy_path = {root}
cache_dir = {root}/.mypy_cache/toys

[mypy-torch.*,diffusers.*,transformers.*,safetensors.*,numpy.*,yaml.*,PIL.*]
follow_imports = skip
ignore_missing_imports = true
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """mypy's lines by file: the toy family as it is, and one for each function with a parameter that nobody gives."""
    folder = tmp_path_factory.mktemp("toys")
    (folder / "mypy.ini").write_text(CONFIG.format(root=ROOT), encoding="utf-8")
    (folder / "toy_right.py").write_text(TOY, encoding="utf-8")
    for name in FUNCTIONS:
        wrong, found = re.subn(rf"^def {name}\(", f"def {name}(surplus: int, ", TOY, flags=re.MULTILINE)
        assert found == 1, name
        (folder / f"toy_{name}.py").write_text(wrong, encoding="utf-8")
    child = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", "mypy.ini", *(path.name for path in sorted(folder.glob("*.py")))],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == 1 and not child.stderr, child.stdout + child.stderr
    lines: dict[str, str] = {}
    for line in child.stdout.splitlines():
        stem = line.partition(".py")[0]
        lines[stem] = lines.get(stem, "") + line + "\n"
    return lines


def test_a_family_with_the_right_functions_passes(answers: dict[str, str]) -> None:
    assert "toy_right" not in answers


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_with_wrong_parameters_is_an_error_where_the_family_is_declared(answers: dict[str, str], name: str) -> None:
    line = TOY.splitlines().index(f"        {name}={name},") + 1
    assert f'toy_{name}.py:{line}: error: Argument "{name}" to "Family" has incompatible type' in answers[f"toy_{name}"]
