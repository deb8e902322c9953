"""The wheel: built, installed where nothing of the checkout is near, and used there."""

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from an sdist as an index would have it."""
    out = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)], check=True, capture_output=True)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def elsewhere(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel, that borrows our dependencies but not the checkout."""
    home = tmp_path_factory.mktemp("elsewhere")
    venv.create(home / "venv", with_pip=False)
    site = next((home / "venv").glob("lib/python*/site-packages"))
    subprocess.run([sys.executable, "-m", "pip", "--quiet", "install", "--no-deps", "--target", str(site), str(wheel)], check=True)
    for folder in filter(None, sys.path):  # the packages alone: an editable install's .pth beside them is not read from here
        if Path(folder).name == "site-packages":
            with (site / "borrowed.pth").open("a") as file:
                file.write(f"import sys; sys.path.append({folder!r})\n")
    return home


def loraloom(elsewhere: Path, *words: str, timeout: float = 120) -> "subprocess.CompletedProcess[str]":
    """Run the installed command in an empty folder."""
    python = elsewhere / "venv" / "bin" / "python"
    work = elsewhere / "work"
    work.mkdir(exist_ok=True)
    environment = {**os.environ, "LORALOOM_HOME": str(elsewhere / "home")}
    environment.pop("PYTHONPATH", None)
    command = [str(python), "-m", "loraloom", *words]
    return subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, timeout=timeout, check=False)


def test_data_travels_and_tests_do_not(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"loraloom/conf/train.yaml", "loraloom/conf/lora/attention.yaml", "loraloom/datasets/ink/README.md"} <= names
    assert any(name.startswith("loraloom/datasets/ink/heldout/") for name in names)
    assert {f"{room}/py.typed" for room in ("registry", "infer", "train", "loraloom")} <= names
    assert {"registry/clip_bpe/vocab.json", "registry/clip_bpe/merges.txt"} <= names
    assert not any(name.startswith("train/pocket/") for name in names)  # the embedded base's recipe: for a checkout
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"registry", "infer", "train", "loraloom", "hydra_plugins"}


def test_everything_under_version_control_in_the_packages_travels(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    listed = subprocess.run(
        ["git", "ls-files", "registry", "infer", "train", "loraloom", "hydra_plugins"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert {name for name in listed.stdout.splitlines() if not name.startswith("train/pocket/")} - names == set()


def test_the_command_line_answers(elsewhere: Path) -> None:
    assert "commands:" in loraloom(elsewhere, "--help").stdout


def test_conf_and_sets_are_found_inside_the_package(elsewhere: Path) -> None:
    shown = loraloom(elsewhere, "train", "--cfg", "job", "--resolve", "experiment=ink")
    assert shown.returncode == 0, shown.stderr
    package = next((elsewhere / "venv").glob("lib/python*/site-packages")) / "loraloom"
    assert f"path: {package / 'datasets' / 'ink'}\n" in shown.stdout


def test_a_training_is_planned(elsewhere: Path) -> None:
    planned = loraloom(elsewhere, "train", "experiment=ink", "dry_run=true")
    assert planned.returncode == 0, planned.stderr
    assert "40" in planned.stdout
    assert list((elsewhere / "work").iterdir()) == []


def test_the_demo_runs(elsewhere: Path) -> None:
    ran = loraloom(elsewhere, "demo", "--out", "shown", timeout=1200)
    assert ran.returncode == 0, ran.stderr[-3000:]
    folder = Path(ran.stdout.splitlines()[-1])
    assert (folder / "report.html").is_file()
    assert folder.is_relative_to(elsewhere / "work" / "shown")
