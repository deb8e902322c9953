"""Paths on this machine: the home of the index and caches, and the embedded models."""

import os
from pathlib import Path


def expanded(path: Path | str) -> Path:
    """The path with `~` as a home folder; that of a user whom the system does not know stays as it is."""
    try:
        return Path(os.path.expanduser(path))
    except ValueError:  # a NUL byte, which no user's name has
        return Path(path)


def home_dir() -> Path:
    """Index, blobs and caches: $LORALOOM_HOME, else the platform's data directory."""
    given = os.environ.get("LORALOOM_HOME")
    if given:
        return expanded(given).absolute()
    from platformdirs import user_data_path

    return Path(user_data_path("loraloom", appauthor=False))


def index_place(home: Path) -> Path | str:
    """The index: $LORALOOM_INDEX (a PostgreSQL URL for a team, or a file), else a file in the home."""
    given = os.environ.get("LORALOOM_INDEX")
    if not given:
        return home / "index.sqlite"
    return given if "://" in given else expanded(given).absolute()


def pocket_dir() -> Path:
    """The embedded base model: $LORALOOM_POCKET, else the folder beside this file."""
    given = os.environ.get("LORALOOM_POCKET")
    return expanded(given).absolute() if given else Path(__file__).resolve().parent / "pocket"


def pocket_lines_dir() -> Path:
    """The embedded base's ControlNet: the folder `pocket_lines` beside the base it steers."""
    return pocket_dir().with_name("pocket_lines")


def pocket_clip_dir() -> Path:
    """The CLIP of the embedded base: a folder of transformers beside this file."""
    return Path(__file__).resolve().parent / "pocket_clip"


def clip_bpe_dir() -> Path:
    """CLIP's full BPE table as vocab.json and merges.txt (49408 tokens), for single-file checkpoints."""
    return Path(__file__).resolve().parent / "clip_bpe"
