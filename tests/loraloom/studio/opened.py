"""A Studio that is served in a thread of a test, and what asks it."""

import asyncio
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from loraloom.studio.context import Studio
from loraloom.studio.guard import Guard
from loraloom.studio.routes import Routes
from loraloom.studio.server import listening, serve
from registry.home import home_dir
from tests.patience import PATIENCE

ROOT = Path(__file__).resolve().parents[3]


class Served:
    """A running Studio. `get` and `post` are what its own page would send, and give (status, value)."""

    def __init__(self, studio: Studio, port: int, token: str) -> None:
        self.studio, self.port, self.token = studio, port, token
        self.host = f"127.0.0.1:{port}"
        self.address = f"http://{self.host}/{token}/"

    def raw(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """One request exactly as given; `path` is the whole path."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request(method, path, body, dict(headers or {}))
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()

    def get(self, route: str, /, **values: object) -> tuple[int, Any]:
        """GET api/<route>."""
        status, _, body = self.raw("GET", f"/{self.token}/api/{quote(route)}?{urlencode(values)}")
        return status, json.loads(body)

    def post(self, route: str, /, **values: object) -> tuple[int, Any]:
        """POST api/<route> with a JSON object, from the page's origin."""
        headers = {"Content-Type": "application/json", "Origin": f"http://{self.host}"}
        status, _, body = self.raw("POST", f"/{self.token}/api/{quote(route)}", json.dumps(values).encode(), headers)
        return status, json.loads(body)

    def upload(self, route: str, data: bytes, /, **values: object) -> tuple[int, Any]:
        """POST api/<route> with the bytes of a file."""
        headers = {"Content-Type": "application/octet-stream", "Origin": f"http://{self.host}"}
        status, _, body = self.raw("POST", f"/{self.token}/api/{quote(route)}?{urlencode(values)}", data, headers)
        return status, json.loads(body)


@contextmanager
def serving(
    folder: Path,
    *,
    home: Path | None = None,
    roots: tuple[Path, ...] = (),
    read_only: bool = False,
    tables: Sequence[Routes] | None = None,
    port: int = 0,
) -> Iterator[Served]:
    """A Studio whose working folder this is, until the block ends."""
    studio = Studio(folder=folder, roots=[folder, *roots], read_only=read_only, home=home_dir() if home is None else home)
    guard, place = Guard(), listening(port)
    ready = threading.Event()
    tasks: list[asyncio.Task[None]] = []
    loop = asyncio.new_event_loop()

    def work() -> None:
        asyncio.set_event_loop(loop)
        tasks.append(loop.create_task(serve(studio, guard, place, ready.set, tables=tables)))
        try:
            loop.run_until_complete(tasks[0])
        except asyncio.CancelledError:
            pass
        finally:
            loop.close()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        assert ready.wait(PATIENCE)
        yield Served(studio, place.getsockname()[1], guard.token)
    finally:
        loop.call_soon_threadsafe(tasks[0].cancel)
        thread.join(PATIENCE)
