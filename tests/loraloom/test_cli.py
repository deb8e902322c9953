"""The command line as a person meets it."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from loraloom import __version__
from loraloom.cli import Parser, find_commands, main, take_switch
from registry.errors import Refused
from tests.patience import PATIENCE

LORALOOM = [sys.executable, "-m", "loraloom"]


def test_every_command_stands_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    page = capsys.readouterr().out
    for name, module in find_commands().items():
        assert f"  {name}" in page
        assert module.HELP in page
    assert {"doctor", "grid", "train"} <= set(find_commands())


def test_nothing_said_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "commands:" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"loraloom {__version__}\n"


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["trian"], "Did you mean 'train' or 'rank'?"),
        (["steps=3"], "A setting follows its command: loraloom train KEY=VALUE ..."),
        (["zzz"], "There are: "),
        (["--verson"], "unrecognized arguments: --verson"),
        (["doctor", "--jsno"], "Not known here: --jsno. Did you mean '--json'? `loraloom doctor --help` lists what is."),
        (["registry", "scan", ".", "--hsah"], "Did you mean '--hash'? `loraloom registry scan --help` lists what is."),
        (["lora", "diff", "a", "b", "c"], "Not known here: c. `loraloom lora diff --help` lists what is."),
        (["grid", "stpes=5"], "Did you mean 'steps'?"),
        (["train", "++stpes=5"], "Did you mean 'steps'?"),
    ],
)
def test_a_refusal_is_one_paragraph_and_exit_code_2(words: list[str], answer: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    reported = capsys.readouterr()
    assert reported.out == ""
    assert reported.err.startswith("error: ")
    assert answer in reported.err
    assert "Traceback" not in reported.err


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["grid", "--debug", "stpes=5"]) == 2
    assert "Traceback" in capsys.readouterr().err
    assert main(["grid", "stpes=5"]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_switch_is_taken_only_before_a_double_dash() -> None:
    words = ["note", "--debug", "ink", "--", "--debug"]
    assert take_switch(words, "--debug")
    assert words == ["note", "ink", "--", "--debug"]
    assert not take_switch(words, "--debug")


def test_a_mistyped_subcommand_is_answered_with_the_nearest() -> None:
    parser = Parser(prog="loraloom")
    subparsers = parser.add_subparsers(dest="what")
    for name in ("scan", "list", "show"):
        subparsers.add_parser(name)
    with pytest.raises(Refused, match=r"'lst' is not known. Did you mean 'list'\?"):
        parser.parse_args(["lst"])


def test_a_wrong_value_is_answered_by_the_name_of_its_switch() -> None:
    parser = Parser(prog="loraloom")
    parser.add_argument("--kind", choices=["lora", "lokr"], metavar="NAME")
    parser.add_argument("-n", "--count", type=int)
    parser.add_argument("--share", type=float)
    for words, expected in (
        (["--kind", "loar"], "--kind: 'loar' is not known. Did you mean 'lora'"),
        (["--count", "two"], "--count: expected a whole number, got 'two'."),
        (["--share", "half"], "--share: expected a number, got 'half'."),
    ):
        with pytest.raises(Refused, match=re.escape(expected)):
            parser.parse_args(words)


def test_a_name_that_begins_with_a_dash_is_answered_with_how_to_write_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("-set").mkdir()
    for words in (["data", "lint", "-set"], ["rank", "grid", "-set"]):
        assert main(words) == 2
        assert "-set begins with a dash and is read as an option: write ./-set." in capsys.readouterr().err


def test_ctrl_c_is_exit_code_130_without_a_traceback(tmp_path: Path) -> None:
    program = """if True:
        import sys, time
        from loraloom import cli, console
        def wait(words):
            console.answer("up")
            time.sleep(60)
        cli.run = wait
        sys.exit(cli.main([]))
    """
    child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    assert child.stdout is not None
    assert child.stdout.readline() == "up\n"
    child.send_signal(signal.SIGINT)
    _, reported = child.communicate(timeout=PATIENCE)
    assert (child.returncode, reported) == (130, "interrupted\n")


def test_a_reader_that_leaves_is_no_traceback(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    child = subprocess.run([*LORALOOM, "--help"], stdout=write, stderr=subprocess.PIPE, text=True, cwd=tmp_path, check=False)
    os.close(write)
    assert child.stderr == ""


def test_a_stray_train_in_the_working_directory_is_reported(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("")
    child = subprocess.run([*LORALOOM, "--help"], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert child.returncode == 1
    assert f"Package 'train' resolves to {tmp_path / 'train.py'}" in child.stderr
    assert "leave its folder or remove it" in child.stderr


def test_a_fault_of_settings_that_the_plan_finds_too_is_named_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "objective.name=dpo"]) == 2
    assert capsys.readouterr().err.count("data.preferences is needed") == 1
    assert main(["train", "data.sets=[{path: a},{path: a}]"]) == 2
    assert "data.sets must name each path once" in (err := capsys.readouterr().err) and "data.path is needed" not in err
