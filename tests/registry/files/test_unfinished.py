"""Temporary files that name their output, one writer an output, and what killed processes leave."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from registry.errors import Refused
from registry.files.unfinished import is_being_written, leftovers, only_writer, remove_leftovers
from registry.formats.atomic_file import atomic_file, atomic_folder, proven_file

HALF = """
import os, signal, sys
from pathlib import Path
from registry.formats.atomic_file import atomic_file, atomic_folder, proven_file
from registry.files.unfinished import only_writer
output = Path(sys.argv[1])
with only_writer(output):
    {how}
    print("half", flush=True)
    sys.stdin.read()
"""
FILE = "held = atomic_file(output); file = held.__enter__(); file.write(b'half'); file.flush()"
FOLDER = "held = atomic_folder(output); (held.__enter__() / 'a').write_text('half')"
PROVEN = "held = proven_file(output); held.__enter__().write_text('half')"


def started(how: str, output: Path) -> "subprocess.Popen[bytes]":
    """A process that has written half of an output."""
    process = subprocess.Popen(
        [sys.executable, "-c", HALF.format(how=how), str(output)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=os.getcwd()
    )
    assert process.stdout is not None and process.stdout.readline() == b"half\n"
    return process


@pytest.mark.parametrize("how", [FILE, FOLDER, PROVEN])
def test_an_output_has_one_writer_and_a_killed_one_leaves_what_the_next_removes(how: str, tmp_path: Path) -> None:
    output = tmp_path / "m.safetensors"
    with started(how, output) as process:
        (half,) = (path for path in tmp_path.iterdir() if not path.name.endswith("-lock"))
        assert half.name.startswith(".tmp-m.safetensors-")
        assert is_being_written(output) and leftovers(tmp_path) == []
        with pytest.raises(Refused, match=r"m\.safetensors is being written by another process"), only_writer(output):
            pass
        remove_leftovers(output)
        assert half.exists()
        process.send_signal(signal.SIGKILL)
    assert not is_being_written(output) and half in leftovers(tmp_path)
    with only_writer(tmp_path / "m"), only_writer(tmp_path / "other.safetensors"):
        assert half.exists()  # another output's
    with only_writer(output):
        assert not half.exists()
        with atomic_file(output) as file:
            file.write(b"whole")
    assert [path.name for path in tmp_path.iterdir()] == ["m.safetensors"]


def test_an_output_that_came_to_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.safetensors").write_text("another's")
    with pytest.raises(Refused, match="another process has written it since"), only_writer(tmp_path / "m.safetensors"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["m.safetensors"]


def test_a_long_name_still_fits_and_two_of_them_differ(tmp_path: Path) -> None:
    names = ["ä" * 110 + ending for ending in ("a.safetensors", "b.safetensors")]  # 233 bytes
    for name in names:
        with only_writer(tmp_path / name), proven_file(tmp_path / name) as temporary:
            temporary.write_text(name)
    with atomic_folder(tmp_path / ("x" * 255)):
        assert len({path.name for path in tmp_path.iterdir()}) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*names, "x" * 255])


def test_a_link_among_leftovers_is_left_alone(tmp_path: Path) -> None:
    mine = tmp_path / "mine.txt"
    mine.write_text("mine")
    link = tmp_path / ".tmp-m.safetensors-0123456789abcdef"
    link.symlink_to(mine)
    remove_leftovers(tmp_path / "m.safetensors")
    assert link.is_symlink() and mine.read_text() == "mine"
