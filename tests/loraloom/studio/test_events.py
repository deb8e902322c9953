"""A watched topic: its value at once, again when it changed, an error as a message, and nothing computed when nobody watches."""

import asyncio
import json
from pathlib import Path

from loraloom.studio.context import Studio
from loraloom.studio.events import Topic


def test_a_topic_sends_what_changed_alone() -> None:
    values = iter([1, 1, 2, 2, 3])
    computed: list[int] = []

    def compute() -> int:
        computed.append(next(values))
        return computed[-1]

    async def watch() -> list[object]:
        topic, queue = Topic(compute, seconds=0.01), asyncio.Queue[str | None]()
        topic.watchers.add(queue)
        task = asyncio.create_task(topic.run("x"))
        seen = [json.loads(await queue.get() or "")["value"] for _ in range(3)]
        topic.watchers.clear()
        await task
        return seen

    assert asyncio.run(watch()) == [1, 2, 3] and computed == [1, 1, 2, 2, 3]


def test_an_error_is_a_message_of_the_topic() -> None:
    def broken() -> object:
        raise OSError("the disk is gone")

    async def first() -> object:
        topic, queue = Topic(broken, seconds=0.01), asyncio.Queue[str | None]()
        topic.watchers.add(queue)
        task = asyncio.create_task(topic.run("x"))
        text = await queue.get()
        topic.watchers.clear()
        await task
        return json.loads(text or "")

    assert asyncio.run(first()) == {"topic": "x", "error": "the disk is gone"}


def test_the_working_folder_is_a_root(tmp_path: Path) -> None:
    studio = Studio(folder=tmp_path, roots=[tmp_path], home=tmp_path / "home")
    (tmp_path / "a.txt").write_text("a")
    assert studio.places.readable(tmp_path / "a.txt") == (tmp_path / "a.txt").resolve()
