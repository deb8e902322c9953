"""The server: the token, Host and Origin; what it answers and what it never does; many votes at once; and a kill."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from infer.vote.finished import read_grid
from infer.vote.page.page import server_page
from infer.vote.page.server import VotingServer
from infer.vote.page.session import Session
from infer.vote.votes import NAME, read_votes
from registry.files.write_failure import write_failed
from tests.infer.vote.made import made_grid, vote, write_votes
from tests.patience import PATIENCE


@dataclass
class Client:
    """A running server and its grid."""

    server: VotingServer
    folder: Path

    def raw(self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> tuple[int, bytes, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.server_port, timeout=PATIENCE)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"} | (headers or {}))
            answer = connection.getresponse()
            return answer.status, answer.read(), answer.headers
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> tuple[int, bytes, Any]:
        return self.raw("GET", f"/{self.server.token}/{path}", headers=headers)

    def post(self, path: str, value: Any, **headers: str) -> tuple[int, Any]:
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        status, answer, _ = self.raw("POST", f"/{self.server.token}/{path}", body, headers)
        return status, json.loads(answer)

    def votes(self) -> list[Any]:
        return list(read_votes(self.folder / NAME).votes)


def serve(folder: Path, **options: Any) -> Iterator[Client]:
    session = Session([read_grid(folder)], ("adapter",), **options)
    server = VotingServer(session, server_page(session))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield Client(server, folder)
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    """Two adapters on 40 prompts."""
    yield from serve(made_grid(tmp_path / "g", {"adapter": ["none", "zebra7"], "prompt": [f"p{number}" for number in range(40)]}))


def test_a_vote_is_on_the_disk_when_it_is_confirmed(client: Client) -> None:
    status, state = client.post("start", {"voter": "anna"})
    assert (status, state["done"], state["total"], state["undo"]) == (200, 0, 44, False)
    trial = state["trial"]
    status, state = client.post("vote", {"voter": "anna", "id": trial["id"], "choice": "left", "seconds": 1.25})
    (kept,) = client.votes()
    assert (status, state["done"], kept.id, kept.choice, kept.voter, kept.seconds) == (200, 1, trial["id"], "left", "anna", 1.25)
    left, right = kept.left.split("|"), kept.right.split("|")
    assert left[1:] == right[1:] == [trial["prompt"]] and {left[0], right[0]} == {"none", "zebra7"}  # same prompt, both candidates
    assert client.post("start", {"voter": "anna"})[1]["trial"]["id"] == state["trial"]["id"]  # a page that is loaded again


def test_nothing_tells_the_sides_apart(client: Client) -> None:
    """Neither the page, nor an answer, nor an image has a name, a key, a path or a text of the file."""
    _, page, headers = client.get("")
    status, state = client.post("start", {"voter": "anna"})
    _, left, _ = client.get(f"image/{state['trial']['left']}")
    _, right, _ = client.get(f"image/{state['trial']['right']}")
    everything = page + json.dumps(state).encode() + left + right
    for secret in (b"SECRET", b"parameters", b"loraloom\x00", b"zebra7", b"|p", b"adapter", str(client.folder).encode(), b"images/"):
        assert secret not in everything
    assert left.startswith(b"\x89PNG") and left != right and status == 200
    assert (headers["Cache-Control"], headers["Referrer-Policy"], headers["Server"].strip()) == ("no-store", "no-referrer", "loraloom")
    assert "default-src 'none'" in headers["Content-Security-Policy"] and "frame-ancestors 'none'" in headers["Content-Security-Policy"]


def test_the_same_vote_again_counts_once(client: Client) -> None:
    trial = client.post("start", {"voter": "anna"})[1]["trial"]
    cast = {"voter": "anna", "id": trial["id"], "choice": "left", "seconds": 1}
    first = client.post("vote", cast)
    assert client.post("vote", cast) == first and len(client.votes()) == 1
    assert client.post("vote", {**cast, "choice": "right"})[0] == 409
    assert client.post("vote", {**cast, "voter": "bob"})[0] == 409 and len(client.votes()) == 1


def test_undo_and_skip(client: Client) -> None:
    first = client.post("start", {"voter": "anna"})[1]["trial"]
    client.post("vote", {"voter": "anna", "id": first["id"], "choice": "tie", "seconds": 1})
    status, state = client.post("undo", {"voter": "anna"})
    assert (status, state["done"], client.votes()) == (200, 0, [])
    assert state["trial"]["id"] != first["id"] and state["trial"]["left"] == first["left"]
    assert client.post("vote", {"voter": "anna", "id": first["id"], "choice": "tie", "seconds": 1})[0] == 409  # taken back for good
    assert client.post("undo", {"voter": "anna"}) == (409, {"error": "There is no vote of this session to take back."})
    skipped = client.post("skip", {"voter": "anna", "id": state["trial"]["id"]})[1]
    assert skipped["trial"]["left"] != first["left"] and skipped["done"] == 0


def test_votes_of_before_are_not_asked_again(tmp_path: Path) -> None:
    folder = made_grid(tmp_path / "g", {"adapter": ["none", "ink"], "prompt": ["a", "b", "c"]})
    write_votes(folder / NAME, [vote(1, "none|a", "ink|a", "left"), vote(2, "none|b", "ink|b", "left")])
    for client in serve(folder):
        state = client.post("start", {"voter": "anna"})[1]
        assert (state["total"], state["trial"]["prompt"]) == (1, "c")
        assert client.post("start", {"voter": "bob"})[1]["total"] == 3
        last = client.post("vote", {"voter": "anna", "id": state["trial"]["id"], "choice": "left", "seconds": 1})[1]
        assert last["trial"] is None and last["worth"] and not last["more"] and "ink" not in last["worth"]


def test_who_does_not_know_the_token_gets_nothing(client: Client) -> None:
    token, body = client.server.token, json.dumps({"voter": "anna"}).encode()
    image = next(iter(client.server.session.images))
    for path in (
        "/",
        "/start",
        f"/{token}",
        f"/{token[:-1]}/",
        f"/{token}x/",
        f"/x/{token}/",
        f"/{'a' * len(token)}/start",
        "/%ff/",
    ):
        assert client.raw("POST", path, body)[0] == 404
        assert client.raw("GET", path)[0] == 404
    assert client.raw("GET", f"/image/{image}")[0] == 404
    assert client.raw("GET", f"/{token}/")[0] == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "127.0.0.1"},
        {"Host": "127.0.0.1:1"},
        {"Host": "127.0.0.1.evil.example:{port}"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "https://127.0.0.1:{port}"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
    ids=str,
)
def test_other_hosts_and_origins_get_nothing(client: Client, headers: dict[str, str]) -> None:
    """A page of another site, or of a name that is pointed at this machine (DNS rebinding), even with the token."""
    given = {name: value.format(port=client.server.server_port) for name, value in headers.items()}
    assert client.post("start", {"voter": "anna"}, **given)[0] == 404 and client.get("", **given)[0] == 404
    own = f"http://127.0.0.1:{client.server.server_port}"
    assert client.post("start", {"voter": "anna"}, Origin=own)[0] == 200


def test_only_the_grids_own_images_are_served(client: Client, tmp_path: Path) -> None:
    (client.folder / "secret.txt").write_text("secret")
    inside = ("cells.jsonl", "votes.jsonl", "report.html", "images/0.png", "../secret.txt")
    images = ("", "0.png", "../cells.jsonl", "..%2fcells.jsonl", "/etc/passwd", "none|p0", "a" * 32)
    for path in (*inside, *(f"image/{name}" for name in images)):
        assert client.get(path)[0] == 404
    image = next(iter(client.server.session.images))
    file = client.server.session.images[image]
    assert client.get(f"image/{image}")[0] == 200
    file.unlink()
    assert client.get(f"image/{image}")[0] == 404
    for wrong in (client.folder / "secret.txt", client.folder / "images" / "1.png"):
        file.symlink_to(wrong)
        assert client.get(f"image/{image}")[0] == 404
        file.unlink()
    file.write_text("no image")
    assert client.get(f"image/{image}")[0] == 404
    os.mkfifo(tmp_path / "pipe")
    file.unlink()
    (tmp_path / "pipe").rename(file)
    assert client.get(f"image/{image}")[0] == 404


WRONG = [
    b"",
    b"nonsense",
    b"[]",
    b"null",
    b'{"voter": "anna"}',
    b'{"voter": "anna", "id": "x", "choice": "left", "seconds": 1, "more": 1}',
    b'{"voter": 3, "id": "x", "choice": "left", "seconds": 1}',
    b'{"voter": "", "id": "x", "choice": "left", "seconds": 1}',
    b'{"voter": " a", "id": "x", "choice": "left", "seconds": 1}',
    b'{"voter": "a\\u001b[2J", "id": "x", "choice": "left", "seconds": 1}',
    b'{"voter": "anna", "id": ["x"], "choice": "left", "seconds": 1}',
    b'{"voter": "anna", "id": "ID", "choice": "up", "seconds": 1}',
    b'{"voter": "anna", "id": "ID", "choice": ["left"], "seconds": 1}',
    b'{"voter": "anna", "id": "ID", "choice": "left", "seconds": -1}',
    b'{"voter": "anna", "id": "ID", "choice": "left", "seconds": NaN}',
    b'{"voter": "anna", "id": "ID", "choice": "left", "seconds": true}',
    b'{"voter": "anna", "id": "ID", "choice": "left", "seconds": "1"}',
    b'{"voter": "anna", "id": ' + b"[" * 2000 + b"]" * 2000 + b"}",
    b"\xff\xfe",
]


@pytest.mark.parametrize("body", WRONG, ids=lambda body: body[:70].decode("latin-1"))
def test_a_malformed_vote_is_refused_and_changes_nothing(client: Client, body: bytes) -> None:
    trial = client.post("start", {"voter": "anna"})[1]["trial"]
    status, answer = client.post("vote", body.replace(b"ID", trial["id"].encode()))
    assert status in (400, 409) and answer["error"] and client.votes() == []
    assert client.post("start", {"voter": "anna"})[1]["trial"] == trial


def test_other_requests_are_refused(client: Client) -> None:
    assert client.post("vote", b"x" * 5000)[0] == 413
    assert client.post("start", {"voter": "anna"}, **{"Content-Type": "text/plain"})[0] == 415
    assert client.post("constructor", {"voter": "anna"})[0] == 404
    for method in ("PUT", "DELETE", "OPTIONS", "HEAD", "TRACE"):
        assert client.raw(method, f"/{client.server.token}/")[0] == 501
    with socket.create_connection(("127.0.0.1", client.server.server_port), timeout=PATIENCE) as connection:
        connection.sendall(b"nonsense\r\n\r\n")
        assert b"not understood" in connection.recv(200)
    assert client.get("")[0] == 200


def test_it_listens_on_this_machine_alone(client: Client) -> None:
    assert client.server.server_address[0] == "127.0.0.1" and client.server.socket.family == socket.AF_INET


def test_a_full_disk_is_said_and_the_vote_stays_open(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = client.post("start", {"voter": "anna"})[1]["trial"]
    cast = {"voter": "anna", "id": trial["id"], "choice": "left", "seconds": 1}
    with monkeypatch.context() as patched:

        def full(path: Path) -> None:
            raise write_failed(path, OSError(28, "No space left on device"))

        patched.setattr("infer.vote.votes._flush", full)
        status, answer = client.post("vote", cast)
    assert status == 500 and "cannot be written" in answer["error"] and client.votes() == []
    assert client.post("vote", cast)[0] == 200 and len(client.votes()) == 1


def cast_all(client: Client, voter: str) -> int:
    """Votes of one voter over one connection, each sent twice; gives how many were confirmed."""
    connection = http.client.HTTPConnection("127.0.0.1", client.server.server_port, timeout=PATIENCE)

    def ask(path: str, value: Any) -> Any:
        connection.request("POST", f"/{client.server.token}/{path}", json.dumps(value), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        found = json.loads(answer.read())
        assert answer.status == 200, found
        return found

    state, done = ask("start", {"voter": voter}), 0
    while (trial := state["trial"]) is not None:
        value = {"voter": voter, "id": trial["id"], "choice": "left" if done % 3 else "tie", "seconds": 0.1}
        state = ask("vote", value)
        if done % 10 == 0:
            assert ask("vote", value)["done"] == state["done"]  # a replay
        done += 1
    connection.close()
    return done


def cast_at_once(folder: Path, voters: int, prompts: int) -> tuple[list[int], list[Any]]:
    """(how many votes each voter had confirmed, all votes in the file)."""
    made_grid(folder, {"adapter": ["none", "ink"], "prompt": [f"p{number}" for number in range(prompts)]})
    done: list[int] = []
    votes: list[Any] = []
    for client in serve(folder, asked=prompts + prompts // 4):
        with ThreadPoolExecutor(voters) as pool:
            done += pool.map(cast_all, [client] * voters, [f"voter {number}" for number in range(voters)])
        votes += client.votes()
    return done, votes


def pairs_of(votes: list[Any]) -> dict[str, int]:
    """How many pairs each voter has seen, repeats left out."""
    return {voter: len({frozenset((one.left, one.right)) for one in votes if one.voter == voter}) for voter in {one.voter for one in votes}}


@pytest.mark.slow
def test_many_votes_at_once(tmp_path: Path) -> None:
    """20 voters at once: all 22 pairs and 2 of them again."""
    done, votes = cast_at_once(tmp_path / "g", 20, 22)
    assert done == [24] * 20 and len(votes) == len({one.id for one in votes}) == sum(done)
    assert pairs_of(votes) == {f"voter {number}": 22 for number in range(20)}


@pytest.mark.slow
def test_ten_thousand_votes_at_once(tmp_path: Path) -> None:
    """100 voters at once: all 90 pairs and 10 of them again."""
    done, votes = cast_at_once(tmp_path / "g", 100, 90)
    assert done == [100] * 100 and len(votes) == len({one.id for one in votes}) == sum(done)
    assert pairs_of(votes) == {f"voter {number}": 90 for number in range(100)}


@pytest.mark.slow
def test_a_killed_server_loses_no_vote_that_it_confirmed(tmp_path: Path) -> None:
    folder = made_grid(tmp_path / "g", {"adapter": ["none", "ink"], "prompt": [f"p{number}" for number in range(300)]})
    root = Path(__file__).resolve().parents[4]
    command = [sys.executable, "-m", "loraloom", "vote", str(folder), "--count", "300"]
    child = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert child.stdout is not None
    address = child.stdout.readline().strip()
    host, token = address.removeprefix("http://").rstrip("/").split("/")
    connection = http.client.HTTPConnection(host, timeout=PATIENCE)
    confirmed: list[str] = []

    def ask(path: str, value: Any) -> Any:
        connection.request("POST", f"/{token}/{path}", json.dumps(value), {"Content-Type": "application/json"})
        return json.loads(connection.getresponse().read())

    state = ask("start", {"voter": "anna"})
    killer = threading.Timer(0.01, child.send_signal, [signal.SIGKILL])
    try:
        while state["trial"] is not None:
            identity = state["trial"]["id"]
            state = ask("vote", {"voter": "anna", "id": identity, "choice": "right", "seconds": 1})
            confirmed.append(identity)
            if len(confirmed) == 20:
                killer.start()  # somewhere in one of those that follow
    except (OSError, http.client.HTTPException, ValueError):
        pass
    killer.join()
    child.wait()
    kept = [one.id for one in read_votes(folder / NAME).votes]
    assert confirmed and len(kept) == len(set(kept)) and kept[: len(confirmed)] == confirmed and len(kept) <= len(confirmed) + 1
    for client in serve(folder):
        assert client.post("start", {"voter": "anna"})[1]["trial"] is not None
