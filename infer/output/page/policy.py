"""What the one script of a page is allowed by: its hash, so that no other script runs in the page, whatever is put into it."""

from __future__ import annotations

import base64
from hashlib import sha256


def allowed(script: str) -> str:
    """The source of a Content-Security-Policy for a script that stands in a page between two line ends."""
    digest = base64.b64encode(sha256(f"\n{script}\n".encode()).digest()).decode()
    return f"'sha256-{digest}'"
