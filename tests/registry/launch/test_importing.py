from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest

from registry.launch.importing import importing


def test_nothing_is_collected_while_libraries_are_imported() -> None:
    with importing():
        assert not gc.isenabled()
        with importing():  # a family's loader is called inside others
            pass
        assert not gc.isenabled()
    assert gc.isenabled()


def test_collecting_begins_again_behind_a_failed_import() -> None:
    with pytest.raises(ModuleNotFoundError), importing():
        import no_such_module  # type: ignore[import-not-found]  # noqa: F401
    assert gc.isenabled()


def test_nothing_is_set_aside_in_a_process_of_others() -> None:
    before = gc.get_freeze_count()
    with importing():
        for number in range(200):
            sys.modules[f"imported_{number}"] = sys
    for number in range(200):
        del sys.modules[f"imported_{number}"]
    assert gc.get_freeze_count() == before


@pytest.mark.slow
def test_a_command_sets_aside_what_its_imports_made_and_nothing_where_all_is_imported() -> None:
    code = """
import gc
from registry.launch.importing import importing, process_of_a_command
process_of_a_command()
with importing():
    import sqlalchemy.orm, numpy, asyncio, email.mime.text
first = gc.get_freeze_count()
with importing():
    import sqlalchemy.orm
print(first, gc.get_freeze_count() - first, gc.isenabled())
"""
    first, more, enabled = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert int(first) > 10_000 and int(more) <= 0 and enabled == "True"


def test_a_command_leaves_the_index_whole_in_its_one_file(tmp_path: Path) -> None:
    """A connection that the collector does not find is closed all the same: SQLite's log is in the file, and gone."""
    command = [sys.executable, "-m", "loraloom", "registry", "list"]
    subprocess.run(command, env={**os.environ, "LORALOOM_HOME": str(tmp_path / "home")}, check=True, capture_output=True)
    assert [file.name for file in (tmp_path / "home").iterdir()] == ["index.sqlite"]
