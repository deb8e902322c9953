"""The Studio's routes as an aiohttp application, served on 127.0.0.1 until Ctrl-C."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from aiohttp import web

from loraloom.console import system_refusal
from loraloom.studio.context import Studio
from loraloom.studio.events import NAMED, Events
from loraloom.studio.guard import ADDRESS, HEADERS, Guard
from loraloom.studio.places import MEDIA
from loraloom.studio.routes import Ask, Route, Routes, Sent, SentFile, sections
from loraloom.version import __version__
from registry.errors import Faults, LoomError, NotFound, Refused
from registry.plain_values import from_json
from registry.printable import json_printable, one_line
from train.data.images import is_image

LONGEST_LINE = 1 << 16  # bytes of a request's address: a path of 4,096 bytes has three times as many there
LARGEST = 1 << 30  # bytes of a body that any route takes; each route has its own limit
THREADS = 8
OWN = Path(__file__).resolve().parent
REPORTS = OWN.parents[1] / "infer" / "output" / "templates"  # the viewer and the look are those of the reports
KINDS = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}

NOTHING = "There is nothing here."

log = logging.getLogger(__name__)

ROUTES = Routes(name="", title="", order=0)  # the shell's own


@ROUTES.read("studio")
def about(studio: Studio, _ask: Ask) -> object:
    """What the page's shell shows: version, folder, roots, whether it may write, its sections."""
    return {
        "version": __version__,
        "folder": str(studio.folder),
        "roots": [str(root) for root in studio.roots],
        "home": str(studio.home),
        "read_only": studio.read_only,
        "sections": [{"name": one.name, "title": one.title} for one in sections()],
    }


@ROUTES.read("image")
def image(studio: Studio, ask: Ask) -> object:
    """An image file: `path`, and a thumbnail of about `side` pixels where that is given. `v` in the address makes it cacheable."""
    path = studio.places.readable(ask.text("path"))
    side = ask.number("side", 0, high=4096)
    if not path.is_file() or (path.suffix.lower() not in MEDIA and not (side and is_image(path))):
        raise Refused(f"{path.name}: this is no image that a page shows ({', '.join(MEDIA)}).")
    lasting = ask.optional("v") is not None
    if side == 0:
        return SentFile(path, MEDIA[path.suffix.lower()], lasting=lasting)
    return Sent(*studio.places.thumbnail(path, side), lasting=lasting)


class Site:
    """What is served under /<token>/; everything else is 404, whatever it is."""

    def __init__(self, studio: Studio, guard: Guard, tables: Sequence[Routes]) -> None:
        self._studio, self._guard = studio, guard
        self._routes = {path: route for table in tables for path, route in table.table.items()}
        self._events = Events(studio, {name: snapshot for table in tables for name, snapshot in table.topics.items()})
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix=f"{NAMED}-answer")

    def application(self) -> web.Application:
        """The routes as an application of aiohttp."""
        app = web.Application(middlewares=[self._guarded], client_max_size=LARGEST)
        app.router.add_get("/{token}/", self._page)
        app.router.add_get("/{token}/events", self._events.stream)
        app.router.add_get("/{token}/app/{path:.+}", self._static)
        app.router.add_route("*", "/{token}/api/{path:.+}", self._api)
        app.on_response_prepare.append(_secure)
        app.on_shutdown.append(self._end)
        return app

    @web.middleware
    async def _guarded(self, request: web.Request, handler: Callable[[web.Request], Any]) -> web.StreamResponse:
        token = request.path.removeprefix("/").partition("/")[0]
        if not self._guard.admits(request, token):
            return _refusal(404, NOTHING)
        try:
            response: web.StreamResponse = await handler(request)
        except web.HTTPException as error:
            return _refusal(error.status, NOTHING if error.status == 404 else one_line(error.reason))
        return response

    async def _api(self, request: web.Request) -> web.StreamResponse:
        route = self._routes.get(request.match_info["path"])
        if route is None or request.method != ("GET" if route.kind == "read" else "POST"):
            return _refusal(404, NOTHING)
        if route.kind == "write" and self._studio.read_only:
            return _refusal(403, "This Studio is read-only. Start it without --read-only to change something.")
        ask = await _ask(request, route)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, _answered, self._studio, route, ask, request.path)

    async def _static(self, request: web.Request) -> web.StreamResponse:
        file = _page_file(request.match_info["path"])
        if file is None:
            return _refusal(404, NOTHING)
        return web.Response(body=file.read_bytes(), headers={"Content-Type": KINDS[file.suffix], "Cache-Control": "no-cache"})

    async def _page(self, _request: web.Request) -> web.StreamResponse:
        body = (OWN / "page" / "studio.html").read_bytes()
        return web.Response(body=body, headers={"Content-Type": "text/html; charset=utf-8", "Cache-Control": "no-store"})

    async def _end(self, _app: web.Application) -> None:
        await self._events.close()
        self._threads.shutdown(wait=False, cancel_futures=True)


async def _secure(_request: web.Request, response: web.StreamResponse) -> None:
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers["Server"] = "loraloom"


async def _ask(request: web.Request, route: Route) -> Ask:
    query = dict(request.query)
    if route.kind == "read":
        return Ask(query)
    length = request.content_length
    if length is None or length > route.most:
        raise web.HTTPRequestEntityTooLarge(max_size=route.most, actual_size=length or 0)
    try:
        body = await request.read()
    except (web.RequestPayloadError, ConnectionError) as error:  # a page that was closed while it sent
        raise web.HTTPBadRequest(reason="The body did not arrive whole.") from error
    if request.content_type == "application/octet-stream" and route.kind == "upload":
        return Ask(query, body)
    if request.content_type != "application/json":
        raise web.HTTPUnsupportedMediaType(reason="The body is JSON: Content-Type application/json.")
    try:
        value = from_json(body)
    except ValueError:
        raise web.HTTPBadRequest(reason="The body is no JSON.") from None
    if not isinstance(value, dict):
        raise web.HTTPBadRequest(reason="The body is a JSON object.")
    return Ask(value)


def _answered(studio: Studio, route: Route, ask: Ask, path: str) -> web.StreamResponse:
    """The answer of a route, in its thread; every way to fail has a message."""
    try:
        value = route.answer(studio, ask)
    except Faults as error:
        return _refusal(400, str(error), faults=error.faults)
    except NotFound as error:
        return _refusal(404, str(error))
    except Refused as error:
        return _refusal(400, str(error))
    except LoomError as error:
        return _refusal(500, str(error))
    except Exception as error:
        if (refusal := system_refusal(error)) is not None:
            return _refusal(500, refusal)
        log.exception("the answer to %s", path.partition("/api/")[2])
        return _refusal(
            500, f"{type(error).__name__}: {error}. This is a fault of loraloom itself; the terminal of the Studio shows where."
        )
    if isinstance(value, SentFile):
        return web.FileResponse(value.path, headers=_kept(value.kind, value.lasting))
    if isinstance(value, Sent):
        own = {"Content-Security-Policy": value.policy} if value.policy else {}
        return web.Response(body=value.data, headers=_kept(value.kind, value.lasting) | own)
    return _json(200, value)


def _kept(kind: str, lasting: bool) -> dict[str, str]:
    return {"Content-Type": kind, "Cache-Control": "private, max-age=31536000, immutable" if lasting else "no-cache"}


def _json(status: int, value: object) -> web.Response:
    text = json_printable(json.dumps(value, ensure_ascii=True, default=str, separators=(",", ":")))
    return web.Response(status=status, body=text.encode(), headers={"Content-Type": "application/json", "Cache-Control": "no-store"})


def _refusal(status: int, message: str, *, faults: Sequence[str] = ()) -> web.Response:
    return _json(status, {"error": message, "faults": list(faults)})


def _page_file(path: str) -> Path | None:
    """A file of the page: shell.js of the shell, runs/index.js of a section, report/zoom.js of the reports; None for any other."""
    first, _, rest = path.partition("/")
    if not rest:
        root, rest = OWN / "page", first
    elif first == "report":
        root = REPORTS
    else:
        root = OWN / first / "page"
    try:
        file = (root / rest).resolve()
        return file if file.suffix in KINDS and file.is_relative_to(root) and file.is_file() else None
    except (OSError, ValueError):  # a name that no file can have
        return None


def listening(port: int) -> socket.socket:
    """A socket on 127.0.0.1; `port` 0 is a free one. Raises Refused."""
    found = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((ADDRESS, port))
    except OSError as error:
        found.close()
        raise Refused(f"--port {port}: {error.strerror}. Give another, or none for a free one.") from error
    return found


async def serve(
    studio: Studio, guard: Guard, place: socket.socket, ready: Callable[[], None], *, tables: Sequence[Routes] | None = None
) -> None:
    """Answer by the sections, or by these tables, until SIGINT, SIGTERM or SIGHUP; `ready` is called when it does.

    Signals end it in the main thread alone.
    """
    runner = web.AppRunner(
        Site(studio, guard, [ROUTES, *(sections() if tables is None else tables)]).application(),
        access_log=None,
        shutdown_timeout=2.0,
        max_line_size=LONGEST_LINE,
        auto_decompress=False,
    )
    await runner.setup()
    await web.SockSite(runner, place).start()
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        with suppress(AttributeError, RuntimeError, ValueError):  # Windows, or a thread of a test
            loop.add_signal_handler(getattr(signal, name), ended.set)
    ready()
    try:
        await ended.wait()
    finally:
        await runner.cleanup()
