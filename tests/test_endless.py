"""What a test that does not end waits for is ended, and says where it was."""

import os
import subprocess
import sys

from tests.endless import started_by
from tests.patience import PATIENCE

CHILD = "import time\ndef wait_for_ever():\n    print('up', flush=True)\n    time.sleep(600)\nwait_for_ever()"


def test_a_process_that_is_waited_for_too_long_says_where_it_is() -> None:
    program = f"""
import subprocess, sys
from tests.endless import limited
with limited(0.5):
    child = subprocess.run([sys.executable, "-c", {CHILD!r}], stderr=subprocess.PIPE, text=True)
print(child.returncode, child.stderr)
"""
    said = subprocess.check_output(
        [sys.executable, "-c", program], text=True, timeout=PATIENCE, env=os.environ | {"PYTHONPATH": os.getcwd()}
    )
    assert said.startswith("up\n-6 ") and "wait_for_ever" in said


def test_what_a_process_has_started_is_found_at_every_depth() -> None:
    program = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {CHILD!r}])"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None and child.stdout.readline() == "up\n"
        (below,) = started_by(child.pid)
        assert started_by(below) == []
        child.kill()
        subprocess.run(["kill", str(below)], check=True)
