"""Doctor tells what is there, and survives what is not."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from loraloom.cli import main
from loraloom.commands import doctor

ROOT = Path(__file__).resolve().parents[2]


def test_doctor_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    main(["doctor", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert {"loraloom", "python", "devices", "packages", "extras", "home", "problems"} <= set(found)
    assert found["devices"][0]["device"] == "cpu"
    assert found["home"]["path"] == os.environ["LORALOOM_HOME"]
    assert all(one["ok"] for one in found["packages"])


def test_an_index_that_cannot_be_reached_is_a_problem(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    main(["doctor", "--json"])
    assert json.loads(capsys.readouterr().out)["index"]["place"] == os.path.join(os.environ["LORALOOM_HOME"], "index.sqlite")
    monkeypatch.setenv("LORALOOM_INDEX", "postgresql://anna:secret@127.0.0.1:1/models")
    assert main(["doctor", "--json"]) == 1
    page = capsys.readouterr().out
    found = json.loads(page)
    assert found["index"]["problem"] in found["problems"] and "cannot be used" in found["index"]["problem"] and "secret" not in page


def test_doctor_for_a_person(capsys: pytest.CaptureFixture[str]) -> None:
    main(["doctor"])
    page = capsys.readouterr().out
    assert "torch " in page
    assert os.environ["LORALOOM_HOME"] in page


def test_what_is_missing_is_reported_with_the_line_that_adds_it(tmp_path: Path) -> None:
    """Python without any site-packages: not one of our dependencies is there."""
    environment = {"PYTHONPATH": str(ROOT), "LORALOOM_HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    command = [sys.executable, "-S", "-m", "loraloom", "doctor"]
    child = subprocess.run([*command, "--json"], capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
    found = json.loads(child.stdout)
    assert child.returncode == 1
    assert "hydra-core is missing: >=1.3.2,<1.4 is needed; pip install 'hydra-core>=1.3.2,<1.4'" in found["problems"]
    assert any("torch cannot be imported" in problem for problem in found["problems"])
    tensorboard = next(extra for extra in found["extras"] if extra["name"] == "tensorboard")
    assert (tensorboard["installed"], tensorboard["pip"]) == (False, "pip install 'tensorboard>=2.18'")
    del environment["LORALOOM_HOME"]
    child = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
    assert "Traceback" not in child.stderr
    assert "MISSING" in child.stdout


def test_a_version_outside_the_range_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_requirements", lambda: (["hydra-core>=99"], {"x": ["rich<1", "pillow"]}))
    found = doctor.examine()
    assert [one["ok"] for one in found["packages"]] == [False]
    assert found["extras"][0]["pip"] == "pip install 'rich<1'"


def test_the_installed_package_tells_what_the_checkout_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["torch>=2.4", 'tensorboard>=2.18; extra == "tensorboard"', "psycopg[binary]>=3.2; extra == 'postgres'"]
    monkeypatch.setattr("importlib.metadata.requires", lambda _name: lines)
    monkeypatch.setattr(doctor, "__file__", "/site-packages/loraloom/commands/doctor.py")
    assert doctor._requirements() == (["torch>=2.4"], {"tensorboard": ["tensorboard>=2.18"], "postgres": ["psycopg[binary]>=3.2"]})
