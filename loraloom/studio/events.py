"""Server-sent events: the values of the topics that pages watch, each computed once however many pages watch it."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from aiohttp import web

from loraloom.studio.context import Studio
from loraloom.studio.routes import Snapshot
from registry.errors import LoomError
from registry.printable import json_printable

SECONDS = 1.0  # between two computations of a topic
QUIET = 15.0  # seconds without an event after which a comment keeps the connection open
THREADS = 4
NAMED = "studio"  # how the names of a Studio's threads begin
MOST_TOPICS = 40  # of one connection

log = logging.getLogger(__name__)


class Topic:
    """One watched topic: a task that computes it while somebody watches."""

    def __init__(self, compute: Callable[[], object], *, seconds: float = SECONDS, threads: ThreadPoolExecutor | None = None) -> None:
        self._compute, self._seconds, self._threads = compute, seconds, threads
        self.watchers: set[asyncio.Queue[str | None]] = set()
        self.last: str | None = None
        self.task: asyncio.Task[None] | None = None

    async def run(self, name: str) -> None:
        while self.watchers:
            text = await asyncio.get_running_loop().run_in_executor(self._threads, self._text, name)
            if text != self.last:
                self.last = text
                for watcher in self.watchers:
                    watcher.put_nowait(text)
            await asyncio.sleep(self._seconds)

    def _text(self, name: str) -> str:
        try:
            value = {"topic": name, "value": self._compute()}
        except (LoomError, OSError) as error:
            value = {"topic": name, "error": str(error)}
        except Exception as error:
            log.exception("the topic %s", name)
            value = {"topic": name, "error": f"{type(error).__name__}: {error}"}
        return json_printable(json.dumps(value, ensure_ascii=True, default=str))


class Events:
    """The topics of a Studio that are watched now."""

    def __init__(self, studio: Studio, snapshots: Mapping[str, Snapshot]) -> None:
        self._studio = studio
        self._snapshots = snapshots
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix=f"{NAMED}-topic")
        self._topics: dict[str, Topic] = {}
        self._open: set[asyncio.Queue[str | None]] = set()  # a None in it ends its connection

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """Answer a connection that stays open: each topic's value at once, and again whenever it changes."""
        names = list(dict.fromkeys(request.query.getall("topic", [])))[:MOST_TOPICS]
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        await response.prepare(request)
        queue: asyncio.Queue[str | None] = asyncio.Queue()
        self._open.add(queue)
        watched = [self._watch(name, queue) for name in names if name.partition(":")[0] in self._snapshots]
        try:
            await response.write(b": open\n\n")
            while True:
                try:
                    text = await asyncio.wait_for(queue.get(), QUIET)
                    if text is None:
                        return response
                    await response.write(f"data: {text}\n\n".encode())
                except TimeoutError:
                    await response.write(b": quiet\n\n")
        except ConnectionResetError:
            return response
        finally:
            self._open.discard(queue)
            for topic in watched:
                topic.watchers.discard(queue)

    def _watch(self, name: str, queue: asyncio.Queue[str | None]) -> Topic:
        topic = self._topics.get(name)
        if topic is None or topic.task is None or topic.task.done():
            kind, _, argument = name.partition(":")
            snapshot = self._snapshots[kind]
            topic = self._topics[name] = Topic(lambda: snapshot(self._studio, argument), threads=self._threads)
        if topic.last is not None:
            queue.put_nowait(topic.last)
        topic.watchers.add(queue)
        if topic.task is None:
            topic.task = asyncio.create_task(topic.run(name))
            topic.task.add_done_callback(lambda _task: self._topics.pop(name, None) if self._topics.get(name) is topic else None)
        return topic

    async def close(self) -> None:
        """End the connections, and what is computed for them. A computation that runs is not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for queue in self._open:
            queue.put_nowait(None)
        for topic in list(self._topics.values()):
            topic.watchers.clear()
            if topic.task is not None:
                topic.task.cancel()
                with suppress(asyncio.CancelledError):
                    await topic.task
