"""An HTTP server on this machine that gives files as the web does, and repositories as the hub's endpoints do."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.patience import PATIENCE

COMMIT = "c" * 40


@dataclass
class Server:
    """What is served, and what was asked for."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)  # path -> content
    repos: dict[str, dict[str, bytes]] = field(default_factory=dict)  # owner/repo -> file -> content
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)  # method, path, Range
    status: dict[str, int] = field(default_factory=dict)  # path -> the error it answers
    redirects: dict[str, str] = field(default_factory=dict)
    cut: dict[str, list[int]] = field(default_factory=dict)  # path -> bytes after which a connection breaks, one an answer
    hold: dict[str, threading.Event] = field(default_factory=dict)  # path -> what an answer waits for in its middle
    ranges: bool = True
    etags: dict[str, str] = field(default_factory=dict)
    expected_sha256: dict[str, str] = field(default_factory=dict)  # file -> the hash the hub tells of it, where it lies


class Handler(BaseHTTPRequestHandler):
    """Answers as the Server says that its class was made with."""

    state: Server

    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        self.state.asked.append((self.command, path, self.headers.get("Range")))
        if path in self.state.status:
            self._plain(self.state.status[path], b"no")
        elif path in self.state.redirects:
            self._plain(302, b"", {"Location": self.state.redirects[path]})
        elif path.startswith("/api/models/"):
            self._info(path.removeprefix("/api/models/"))
        elif "/resolve/" in path:
            self._resolve(path, with_body)
        elif path in self.state.files:
            etag = self.state.etags.get(path, f'"{hashlib.md5(self.state.files[path]).hexdigest()}"')
            self._file(path, self.state.files[path], with_body, {"ETag": etag})
        else:
            self._plain(404 if path != "/" else 200, b"")

    def _plain(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _info(self, rest: str) -> None:
        repo, _, revision = rest.partition("/revision/")
        files = self.state.repos.get(repo)
        if files is None:
            self._plain(404, b"{}", {"X-Error-Code": "RepoNotFound"})
            return
        if revision not in ("", "main", COMMIT):
            self._plain(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            return
        siblings = [_sibling(name, data, self.state) for name, data in files.items()]
        body = {"id": repo, "modelId": repo, "sha": COMMIT, "siblings": siblings, "cardData": {"license": "openrail"}, "tags": []}
        self._plain(200, json.dumps(body).encode(), {"Content-Type": "application/json"})

    def _resolve(self, path: str, with_body: bool) -> None:
        repo, _, rest = path.removeprefix("/").partition("/resolve/")
        name = rest.partition("/")[2]
        data = self.state.repos.get(repo, {}).get(name)
        if data is None:
            self._plain(
                404, b"", {"X-Error-Code": "EntryNotFound" if repo in self.state.repos else "RepoNotFound", "X-Repo-Commit": COMMIT}
            )
            return
        self._file(path, data, with_body, {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": COMMIT})

    def _file(self, path: str, data: bytes, with_body: bool, headers: dict[str, str]) -> None:
        begin, wanted = 0, self.headers.get("Range")
        fresh = self.headers.get("If-Range") in (None, headers["ETag"])
        if wanted and self.state.ranges and fresh:
            begin = int(wanted.removeprefix("bytes=").partition("-")[0])
            if begin >= len(data):
                self._plain(416, b"")
                return
            headers |= {"Content-Range": f"bytes {begin}-{len(data) - 1}/{len(data)}"}
        self.send_response(206 if "Content-Range" in headers else 200)
        for key, value in {**headers, "Content-Length": str(len(data) - begin)}.items():
            self.send_header(key, value)
        self.end_headers()
        if not with_body:
            return
        cuts = self.state.cut.get(path, [])
        end = begin + cuts.pop(0) if cuts else len(data)
        middle = (begin + end) // 2
        self.wfile.write(data[begin:middle])
        if path in self.state.hold:
            self.state.hold[path].wait(PATIENCE)
        self.wfile.write(data[middle:end])
        if end < len(data):
            self.close_connection = True


@contextmanager
def serving() -> Iterator[Server]:
    """A running Server."""
    state = Server()

    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Serving", (Handler,), {"state": state}))
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _sibling(name: str, data: bytes, state: Server) -> dict[str, Any]:
    reported: dict[str, Any] = {"rfilename": name, "size": len(data), "blobId": hashlib.sha1(data).hexdigest()}
    if name.endswith(".safetensors"):
        sha256 = state.expected_sha256.get(name, hashlib.sha256(data).hexdigest())
        reported["lfs"] = {"sha256": sha256, "size": len(data), "pointerSize": 134}
    return reported
