"""Where results stand, and how they come there only when they are proven."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from registry.formats.atomic_file import TEMPORARY, sync_folder


@contextmanager
def proven_file(final: Path) -> Iterator[Path]:
    """A path beside `final` to write to and to read back; it becomes `final` when the block ends well and is removed when it does not."""
    temporary = final.with_name(f"{TEMPORARY}{secrets.token_hex(8)}{final.suffix}")
    try:
        yield temporary
        os.replace(temporary, final)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(final.parent)
