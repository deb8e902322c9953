"""Who may ask the Studio: whoever has the token of the address, under the address's own Host, from no page of another site."""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass, field

from aiohttp import web

ADDRESS = "127.0.0.1"
NAMES = (ADDRESS, "localhost")
EVERYWHERE = "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"  # of pages with a policy of their own, too
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; connect-src 'self'; "
    f"frame-src 'self'; worker-src 'self'; {EVERYWHERE}"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True)
class Guard:
    """The token of one Studio."""

    token: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)

    def admits(self, request: web.Request, token: str) -> bool:
        """Whether a request may be answered at all. What has a body, or changes something, must come from the page's own origin."""
        hosts = request.headers.getall("Host", [])
        if len(hosts) != 1 or not _is_own(hosts[0]):
            return False
        if not hmac.compare_digest(token.encode("utf-8", "surrogateescape"), self.token.encode()):
            return False
        origins = request.headers.getall("Origin", [])
        if origins and origins != [f"http://{hosts[0]}"]:
            return False
        if request.method not in ("GET", "HEAD") and not origins:
            return False
        return request.headers.get("Sec-Fetch-Site", "none") in ("none", "same-origin")


def _is_own(host: str) -> bool:
    """Whether a Host header names this machine and a port: an SSH tunnel may have another port than ours."""
    name, colon, port = host.rpartition(":")
    return name in NAMES and bool(colon) and port.isascii() and port.isdigit() and len(port) <= 5
