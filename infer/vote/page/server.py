"""The local page: an HTTP server on 127.0.0.1 that answers nobody without the token in its address.

The standard library's server is enough for a few people at one machine, and adds no dependency. Host and Origin are checked, so that a
page of another site, or a name that is pointed at this machine, reaches nothing.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from infer.vote.page.images import bare_image
from infer.vote.page.session import Rejected, Session
from registry.errors import LoomError
from registry.plain_values import from_json
from registry.printable import one_line, script_json

ADDRESS = "127.0.0.1"
LARGEST = 4096  # bytes of a request's body
WAIT = 300  # seconds for a request to arrive
POLICY = (
    "default-src 'none'; img-src 'self' data:; connect-src 'self'; style-src 'unsafe-inline'; script-src 'unsafe-inline';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class VotingServer(ThreadingHTTPServer):
    """Serves a Session under `address`. `port` 0 is a free one."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, session: Session, page: str, *, port: int = 0) -> None:
        self.session, self.page, self.token = session, page.encode(), secrets.token_urlsafe(24)
        super().__init__((ADDRESS, port), Requests)
        self.hosts = {f"{name}:{self.server_port}" for name in (ADDRESS, "localhost")}

    @property
    def address(self) -> str:
        return f"http://{ADDRESS}:{self.server_port}/{self.token}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that broke off is nothing to report."""


class Requests(BaseHTTPRequestHandler):
    """One connection. Everything outside the token's path is 404, whatever it is."""

    server: VotingServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "loraloom", ""
    timeout = WAIT
    wbufsize = 1 << 16  # head and body in one packet: two wait for one another (Nagle's algorithm, delayed acknowledgements)
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        path = self._path()
        if path == "":
            self._send(200, "text/html; charset=utf-8", self.server.page)
        elif path is not None and path.startswith("image/") and (file := self.server.session.images.get(path.removeprefix("image/"))):
            try:
                self._send(200, "image/png", bare_image(file, self.server.session.boxes.get(path.removeprefix("image/"))))
            except (LoomError, OSError):
                self._refuse(404, "This image is no longer there.")
        else:
            self._refuse(404, "There is nothing here.")

    def do_POST(self) -> None:
        body = self._body()
        path = self._path()
        if body is None:
            return
        if path not in ANSWERS:
            self._refuse(404, "There is nothing here.")
            return
        try:
            keys, answer = ANSWERS[path]
            self._answer(200, answer(self.server.session, *self._values(body, keys)))
        except Rejected as error:
            self._refuse(error.status, str(error))
        except (LoomError, OSError) as error:  # the disk refused it: the vote is not kept, and the page says so
            self._refuse(500, one_line(error))

    def _values(self, body: bytes, keys: tuple[str, ...]) -> list[Any]:
        if self.headers.get_content_type() != "application/json":
            raise Rejected(415, "The body is JSON: Content-Type application/json.")
        try:
            value = from_json(body)
        except ValueError:
            raise Rejected(400, "The body is no JSON.") from None
        if not isinstance(value, dict) or value.keys() != set(keys):
            raise Rejected(400, f"The body is an object with {', '.join(keys)}.")
        return [value[key] for key in keys]

    def _path(self) -> str | None:
        """What follows the token; None for whoever may not ask."""
        origin, site = self.headers.get("Origin"), self.headers.get("Sec-Fetch-Site", "none")
        if self.headers.get("Host") not in self.server.hosts or len(self.headers.get_all("Host", [])) != 1:
            return None
        if origin is not None and origin not in {f"http://{host}" for host in self.server.hosts}:
            return None
        if site not in ("none", "same-origin"):
            return None
        first, _, rest = self.path.removeprefix("/").partition("/")
        return rest if hmac.compare_digest(first.encode(), self.server.token.encode()) and "/" in self.path[1:] else None

    def _body(self) -> bytes | None:
        """The body; None when it was refused, and the connection is closed since its end is not known."""
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()) or int(length) > LARGEST or self.headers.get("Transfer-Encoding"):
            self.close_connection = True
            self._refuse(413, f"A body has a Content-Length of at most {LARGEST} bytes.")
            return None
        return self.rfile.read(int(length))

    def _refuse(self, status: int, reason: str) -> None:
        self._answer(status, {"error": reason})

    def _answer(self, status: int, value: Any) -> None:
        self._send(status, "application/json", script_json(value).encode())

    def _send(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        headers = {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "Cache-Control": "no-store",
            "Content-Security-Policy": POLICY,
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
        }
        for name, text in headers.items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the library refuses by itself, in our form."""
        self.close_connection = True
        self._refuse(code, "This request is not understood.")

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is logged: the address holds the token."""


ANSWERS: dict[str | None, tuple[tuple[str, ...], Callable[..., dict[str, Any]]]] = {
    "start": (("voter",), Session.start),
    "vote": (("voter", "id", "choice", "seconds"), Session.vote),
    "skip": (("voter", "id"), Session.skip),
    "undo": (("voter",), Session.undo),
    "more": (("voter",), Session.more),
}
