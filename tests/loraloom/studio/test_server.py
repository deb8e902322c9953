"""What the server makes of answers: values, refusals with their faults, faults of ours, limits, read-only, and many pages at once."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path

import pytest

from loraloom.studio.context import Studio
from loraloom.studio.routes import Ask, Routes
from registry.errors import Faults, JobFailed, NotFound, Refused
from tests.loraloom.studio.opened import Served, serving
from tests.patience import PATIENCE

ROUTES = Routes(name="x", title="X", order=1)
FAILURES = {
    "refused": Refused("rank=0: expected 1 or more"),
    "missing": NotFound("there is no 'ink'"),
    "faults": Faults("Two things:", ["rank=0", "steps=0"]),
    "failed": JobFailed("the disk is full"),
    "system": OSError(28, "No space left on device"),
    "long": OSError(36, "File name too long", "/a/long"),
    "memory": MemoryError(),
    "own": ZeroDivisionError("division by zero"),
}
counted: list[str] = []
lock = threading.Lock()


@ROUTES.read("x/fail")
def fail(_studio: Studio, ask: Ask) -> object:
    raise FAILURES[ask.text("how")]


@ROUTES.read("x/number")
def number(_studio: Studio, ask: Ask) -> object:
    return {"number": ask.number("n", 5, low=1, high=9), "flag": ask.flag("flag")}


@ROUTES.write("x/write", most=200)
def write(_studio: Studio, ask: Ask) -> object:
    return {"texts": ask.texts("texts"), "maybe": ask.optional("maybe")}


@ROUTES.ask("x/ask")
def asked(_studio: Studio, ask: Ask) -> object:
    return {"text": ask.text("text")}


@ROUTES.upload("x/upload", most=1000)
def uploaded(_studio: Studio, ask: Ask) -> object:
    return {"bytes": len(ask.body), "name": ask.text("name")}


@ROUTES.topic("count")
def count(_studio: Studio, argument: str) -> object:
    with lock:
        counted.append(argument)
    return {"of": argument}


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path, home=tmp_path / "home", tables=[ROUTES]) as found:
        yield found


@pytest.mark.parametrize(
    ("how", "status", "said"),
    [
        ("refused", 400, "rank=0"),
        ("missing", 404, "no 'ink'"),
        ("failed", 500, "the disk is full"),
        ("system", 500, "No space left"),
        ("long", 500, "/a/long: File name too long."),
        ("memory", 500, "not enough memory"),
        ("own", 500, "fault of loraloom itself"),
    ],
)
def test_each_failure_has_its_status_and_its_text(served: Served, how: str, status: int, said: str) -> None:
    found, value = served.get("x/fail", how=how)
    assert found == status and said in value["error"]


def test_faults_arrive_one_by_one(served: Served) -> None:
    assert served.get("x/fail", how="faults")[1]["faults"] == ["rank=0", "steps=0"]


@pytest.mark.parametrize(("given", "status"), [("7", 200), ("0", 400), ("10", 400), ("a", 400), ("1e3", 400), ("٣", 400), ("", 400)])
def test_a_number_of_an_address_is_checked(served: Served, given: str, status: int) -> None:
    assert served.get("x/number", n=given)[0] == status


def test_values_of_a_body_are_checked(served: Served) -> None:
    assert served.post("x/write", texts=["a"]) == (200, {"texts": ["a"], "maybe": None})
    assert served.post("x/write", texts="a")[0] == 400 and served.post("x/write", texts=[1])[0] == 400
    assert served.post("x/write", texts=["a\0"])[0] == 400
    assert served.post("x/write", texts=["a" * 300])[0] == 413


def test_only_a_json_object_is_a_body(served: Served) -> None:
    path, origin = f"/{served.token}/api/x/write", {"Origin": f"http://{served.host}"}
    for kind, body, status in (
        ("application/json", b"[1]", 400),
        ("application/json", b"{", 400),
        ("text/plain", b"{}", 415),
        ("", b"{}", 415),
    ):
        assert served.raw("POST", path, body, {**origin, "Content-Type": kind})[0] == status
    bytes_ = {**origin, "Content-Type": "application/octet-stream"}
    assert served.raw("POST", path.replace("write", "ask"), b"{}", bytes_)[0] == 415  # only an upload has bytes
    assert served.raw("GET", path)[0] == 404 and served.raw("DELETE", path, headers=origin)[0] == 404


def test_a_body_that_does_not_arrive_is_no_fault_of_ours(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    path, headers = f"/{served.token}/api/x/write", {"Origin": f"http://{served.host}", "Content-Type": "application/json"}
    status, _, body = served.raw("POST", path, b"no gzip", {**headers, "Content-Encoding": "gzip"})
    assert status == 400 and b"no JSON" in body
    connection = HTTPConnection("127.0.0.1", served.port)  # a page that is closed while it sends
    connection.request("POST", path, b"{", {**headers, "Content-Length": "100"})
    connection.close()
    assert served.get("x/number")[0] == 200
    assert "Traceback" not in caplog.text and "Error handling request" not in caplog.text


def test_an_upload_has_its_own_limit(served: Served) -> None:
    assert served.upload("x/upload", b"1" * 1000, name="a") == (200, {"bytes": 1000, "name": "a"})
    assert served.upload("x/upload", b"1" * 1001, name="a")[0] == 413


def test_a_read_only_studio_answers_questions_alone(tmp_path: Path) -> None:
    with serving(tmp_path, home=tmp_path / "home", tables=[ROUTES], read_only=True) as sealed:
        status, value = sealed.post("x/write", texts=[])
        assert status == 403 and "--read-only" in value["error"]
        assert sealed.post("x/ask", text="a")[0] == 200 and sealed.get("x/number")[0] == 200


def test_fifty_pages_watch_at_once_and_a_topic_is_computed_once_for_all(served: Served) -> None:
    counted.clear()

    def watch(page: int) -> dict[str, object]:
        connection = HTTPConnection("127.0.0.1", served.port, timeout=PATIENCE)
        connection.request("GET", f"/{served.token}/events?topic=count:a&topic=count:{page}&topic=unknown")
        answer = connection.getresponse()
        assert served.raw("GET", f"/{served.token}/app/shell.js")[0] == 200 and served.get("x/number", n=3)[0] == 200
        seen: dict[str, object] = {}
        while len(seen) < 2:
            line = answer.readline()
            assert line, "the connection ended"
            if line.startswith(b"data: "):
                value = json.loads(line[6:])
                seen[value["topic"]] = value["value"]
        connection.close()
        return seen

    with ThreadPoolExecutor(50) as threads:
        results = list(threads.map(watch, range(50)))
    assert [found[f"count:{page}"] for page, found in enumerate(results)] == [{"of": str(page)} for page in range(50)]
    assert all(found["count:a"] == {"of": "a"} for found in results) and counted.count("a") < 10
