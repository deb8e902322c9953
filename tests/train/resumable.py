"""A run in a process of its own, for tests that kill it: python -m tests.train.resumable HOME SETTINGS.yaml [RUN_FOLDER]."""

import sys
from pathlib import Path

from registry.errors import LoomError
from registry.store import Store
from train import run
from train.config import read_yaml


def main(home: str, settings: str, folder: str | None = None) -> int:
    store = Store(Path(home))
    try:
        if folder:
            outcome = run.resume(Path(folder), {}, store, out=say)
        else:
            outcome = run.run(read_yaml(Path(settings)), store, out=say)
    except LoomError as error:
        say(str(error))
        return error.exit_code
    say(f"finished {outcome.folder}")
    return 0


def say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
