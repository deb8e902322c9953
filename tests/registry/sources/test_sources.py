"""Models from the web and from the hub, against a real HTTP server on this machine."""

import errno
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from email.message import Message
from pathlib import Path
from typing import BinaryIO

import pytest

from registry.errors import JobFailed, NotFound, Refused
from registry.sources import web
from registry.store import Store
from tests.patience import until
from tests.registry.made import diffusers_folder, lora, sd1_attention
from tests.registry.server import COMMIT, Server, serving


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(web, "PAUSE_SECONDS", 0.01)
    with serving() as found:
        yield found


@pytest.fixture
def ink(tmp_path: Path) -> bytes:
    lora(tmp_path / "made" / "ink.safetensors", sd1_attention(), seed="ink")
    return (tmp_path / "made" / "ink.safetensors").read_bytes()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def quarantined(store: Store) -> list[str]:
    folder = store.home / "quarantine"
    return sorted(path.name for path in folder.glob("*") if path.suffix != ".lock") if folder.is_dir() else []


def test_an_address_of_another_kind_is_no_path(store: Store) -> None:
    for ask in (store.add, store.find):
        with pytest.raises(Refused, match=r"nothing can be downloaded from ftp:// addresses. Expected a path, hf:"):
            ask("ftp://there/ink.safetensors")


# --- the web


def test_a_file_of_the_web_is_brought_checked_and_registered(store: Store, server: Server, ink: bytes) -> None:
    server.files["/models/my ink.safetensors"] = ink
    url = f"{server.url}/models/my%20ink.safetensors"
    record = store.add(url, sha256=sha256(ink).upper(), tags=["x"])
    assert (record.name, record.kind, record.hashes.sha256, record.tags) == ("my ink", "adapter", sha256(ink), ("x",))
    assert Path(str(record.path)).read_bytes() == ink and str(record.path).startswith(str(store.home / "blobs" / sha256(ink)[:2]))
    assert record.metadata["source"] == url and store.find(url).id == record.id and quarantined(store) == []
    asked = len(server.asked)
    assert store.add(f"{url}?token=secret", sha256=sha256(ink)).id == record.id and len(server.asked) == asked
    assert "secret" not in json.dumps(store.find("my ink").to_json())


def test_a_broken_connection_is_gone_on_with(store: Store, server: Server, ink: bytes) -> None:
    server.files["/ink.safetensors"] = ink
    server.cut["/ink.safetensors"] = [10_000, 5_000]
    store.add(f"{server.url}/ink.safetensors", sha256=sha256(ink))
    ranges = [wanted for method, path, wanted in server.asked if path == "/ink.safetensors"]
    assert ranges == [None, "bytes=10000-", "bytes=15000-"]


def test_what_came_before_a_failure_is_kept_and_gone_on_with_by_the_next_command(store: Store, server: Server, ink: bytes) -> None:
    server.files["/ink.safetensors"] = ink
    server.cut["/ink.safetensors"] = [10_000, 0, 0, 0, 0, 0, 0]
    with pytest.raises(JobFailed, match=r"10,000 bytes were downloaded and are kept"):
        store.add(f"{server.url}/ink.safetensors", sha256=sha256(ink))
    assert quarantined(store) == [f"{sha256(ink)}.json", f"{sha256(ink)}.part"] and store.records(kind="adapter") == []
    server.cut.clear()
    store.add(f"{server.url}/ink.safetensors", sha256=sha256(ink))
    assert server.asked[-1][2] == "bytes=10000-" and quarantined(store) == []


@pytest.mark.parametrize("how", ["no ranges", "another etag", "other bytes"])
def test_a_part_that_cannot_be_gone_on_with_is_fetched_anew(store: Store, server: Server, ink: bytes, how: str) -> None:
    server.files["/ink.safetensors"] = ink
    server.cut["/ink.safetensors"] = [10_000, 0, 0, 0, 0, 0]
    with pytest.raises(JobFailed):
        store.add(f"{server.url}/ink.safetensors", sha256=sha256(ink))
    server.cut.clear()
    if how == "no ranges":
        server.ranges = False
    elif how == "another etag":
        server.etags["/ink.safetensors"] = '"new"'
    else:
        part = store.home / "quarantine" / f"{sha256(ink)}.part"
        part.write_bytes(b"x" * 9_000)
    assert store.add(f"{server.url}/ink.safetensors", sha256=sha256(ink)).hashes.sha256 == sha256(ink)


def test_a_wrong_hash_leaves_nothing(store: Store, server: Server, ink: bytes) -> None:
    server.files["/ink.safetensors"] = ink
    with pytest.raises(Refused, match=f"gave a file with sha256 {sha256(ink)}; {'0' * 64} was expected"):
        store.add(f"{server.url}/ink.safetensors", sha256="0" * 64)
    assert store.records(kind="adapter") == [] and not list((store.home).glob("blobs/*/*"))
    assert quarantined(store) == []


@pytest.mark.parametrize(
    ("path", "status", "expected", "error"),
    [
        ("/absent.safetensors", None, "does not exist", Refused),
        ("/secret.safetensors", 403, "needs a login", Refused),
        ("/down.safetensors", 418, "HTTP 418", JobFailed),
    ],
)
def test_what_a_server_refuses_is_reported(
    store: Store, server: Server, path: str, status: int | None, expected: str, error: type[Exception]
) -> None:
    if status:
        server.status[path] = status
    with pytest.raises(error, match=expected):
        store.add(f"{server.url}{path}", sha256="0" * 64)


@pytest.mark.parametrize(
    ("url", "digest", "expected"),
    [
        ("https://example.invalid/x.safetensors", None, "--sha256"),
        ("https://example.invalid/x.safetensors", "12", "64 hex digits"),
        ("http://example.invalid/x.safetensors", "0" * 64, "is not https"),
    ],
)
def test_addresses_that_cannot_be_trusted_are_refused_before_the_network(store: Store, url: str, digest: str | None, expected: str) -> None:
    with pytest.raises(Refused, match=expected):
        store.add(url, sha256=digest)


MALFORMED = (
    "https://[::1", "https://user:secret@[bad]/x", "https://host:port/x", "https://host:70000/x", "https://a b/x", "https://host/\x00",
    "https://host/\udcff", "https://", "hf:../../x", "hf:a/..", "hf:-a/b", "hf:a/b--c", "hf:a/b.git", f"hf:a/{'b' * 97}", "hf:a/b//x",
    "hf:a/b/./x", "hf:a/b/\x00", "hf:a/b@x\x00", "hf:a/b@..%2F..%2Fx", "hf:\u00e9/b", "hf:a/b/c\\d",
)  # fmt: skip


@pytest.mark.parametrize("text", MALFORMED, ids=ascii)
def test_a_malformed_address_is_refused_before_the_network(text: str, store: Store) -> None:
    with pytest.raises(Refused) as caught:
        store.add(text, sha256="0" * 64)
    assert "secret" not in str(caught.value)
    with pytest.raises(Refused):
        store.find(text)


def test_a_redirect_to_a_malformed_address_is_a_failure_in_words(store: Store, server: Server) -> None:
    server.redirects["/x.safetensors"] = "https://[::1"
    with pytest.raises(JobFailed, match=r"cannot be understood \(Invalid IPv6 URL\). Give another address"):
        store.add(f"{server.url}/x.safetensors", sha256="0" * 64)


def test_a_redirect_may_not_leave_https(store: Store, server: Server) -> None:
    server.redirects["/x.safetensors"] = "http://example.invalid/x.safetensors"
    with pytest.raises(Refused, match="is not https"):
        store.add(f"{server.url}/x.safetensors", sha256="0" * 64)


def test_https_that_redirects_to_http_is_refused_on_this_machine_too() -> None:
    redirects = web._Redirects()
    for url in ("http://127.0.0.1:8000/x", "http://localhost/x", "http://example.test/x"):
        with pytest.raises(Refused, match="is not https"):
            redirects.redirect_request(urllib.request.Request("https://example.test/x"), io.BytesIO(), 302, "Found", Message(), url)
    kept = redirects.redirect_request(
        urllib.request.Request("https://example.test/x"), io.BytesIO(), 302, "", Message(), "https://cdn.test/x"
    )
    assert kept is not None and kept.full_url == "https://cdn.test/x"


def test_no_network_is_reported_at_once(store: Store) -> None:
    began = time.monotonic()
    with pytest.raises(JobFailed, match="cannot be reached"):
        store.add("http://127.0.0.1:9/x.safetensors", sha256="0" * 64)
    assert time.monotonic() - began < 60  # tries again and again would be minutes


def test_what_is_no_model_is_thrown_away(store: Store, server: Server) -> None:
    server.files["/x.safetensors"] = b"<!DOCTYPE html>"
    with pytest.raises(Refused, match="no model"):
        store.add(f"{server.url}/x.safetensors", sha256=sha256(b"<!DOCTYPE html>"))
    assert quarantined(store) == [] and not list((store.home).glob("blobs/*/*"))


def test_a_full_disk_is_reported_and_what_came_is_kept(
    store: Store, server: Server, ink: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server.files["/ink.safetensors"] = ink
    seen = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: seen._replace(free=1000))
    with pytest.raises(JobFailed, match="0 bytes free"):
        store.add(f"{server.url}/ink.safetensors", sha256=sha256(ink))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: seen)

    def full(answer: object, file: BinaryIO, *rest: object) -> int:
        file.write(ink[:1000])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(web, "_copy", full)
        with pytest.raises(JobFailed, match="is full"):
            store.add(f"{server.url}/ink.safetensors", sha256=sha256(ink))
    store.add(f"{server.url}/ink.safetensors", sha256=sha256(ink))
    assert server.asked[-1][2] == "bytes=1000-"


def test_two_that_want_the_same_file_fetch_it_once(store: Store, server: Server, ink: bytes) -> None:
    server.files["/ink.safetensors"] = ink
    ids: list[str] = []
    wanted = [
        threading.Thread(target=lambda: ids.append(Store(store.home).add(f"{server.url}/ink.safetensors", sha256=sha256(ink)).id))
        for _ in range(2)
    ]
    for thread in wanted:
        thread.start()
    for thread in wanted:
        thread.join()
    assert len(ids) == 2 and len(set(ids)) == 1 and len(store.records(kind="adapter")) == 1


@pytest.mark.slow
def test_a_kill_during_a_download_leaves_nothing_half(tmp_path: Path, pocket: Path, server: Server) -> None:
    lora(tmp_path / "made" / "large.safetensors", sd1_attention(), rank=128)  # 3 MiB: more than is read at once
    data = (tmp_path / "made" / "large.safetensors").read_bytes()
    server.files["/large.safetensors"], server.hold["/large.safetensors"] = data, threading.Event()
    command = [sys.executable, "-m", "loraloom", "registry", "add", f"{server.url}/large.safetensors", "--sha256", sha256(data), "--json"]
    environment = {**os.environ, "LORALOOM_HOME": str(tmp_path / "home")}
    part = tmp_path / "home" / "quarantine" / f"{sha256(data)}.part"
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until(lambda: part.exists() and part.stat().st_size, every=0.02)
    process.kill()
    process.wait()
    assert 0 < part.stat().st_size < len(data) and not list((tmp_path / "home").glob("blobs/*/*"))
    server.hold.pop("/large.safetensors").set()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["hashes"]["sha256"] == sha256(data) and server.asked[-1][2] == f"bytes={1 << 20}-"


# --- the hub


@pytest.fixture
def hub(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Server:
    """The server as the hub, with a cache of the test's own."""
    from huggingface_hub import constants

    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return server


def folder_files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_file_of_the_hub(store: Store, hub: Server, ink: bytes) -> None:
    hub.repos["anna/ink"] = {"ink.safetensors": ink, "README.md": b"hello", "training.py": b"print()"}
    record = store.add("hf:anna/ink")
    assert (record.name, record.kind, record.licence, record.hashes.sha256) == ("ink", "adapter", "openrail", sha256(ink))
    assert (record.metadata["source"], record.metadata["source_commit"]) == ("hf:anna/ink", COMMIT)
    named = store.add("hf:anna/ink@main/ink.safetensors", name="pen")
    assert named.id == record.id and named.name == "pen"
    for reference in ("hf:anna/ink", "hf:anna/ink@main/ink.safetensors"):
        assert store.find(reference).id == record.id
    assert not [path for _, path, _ in hub.asked if path.endswith(".py")]


def test_pefts_weights_come_with_their_config(store: Store, hub: Server, tmp_path: Path) -> None:
    """Their alpha is nowhere else, so the blob store, which keeps a file alone, does not take them."""
    lora(tmp_path / "made.safetensors", sd1_attention(), dialect="peft")
    config = json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 8}).encode()
    hub.repos["anna/fold"] = {"adapter_model.safetensors": (tmp_path / "made.safetensors").read_bytes(), "adapter_config.json": config}
    for reference in ("hf:anna/fold", "hf:anna/fold/adapter_model.safetensors"):
        record = store.add(reference)
        assert record.alpha == 8.0 and Path(str(record.path)).with_name("adapter_config.json").read_bytes() == config
    with pytest.raises(Refused, match=r"has its alpha in the adapter_config\.json beside it.*registry convert"):
        store.keep(record.id)


def test_a_diffusers_folder_of_the_hub_without_code_and_pickles(store: Store, hub: Server, tmp_path: Path) -> None:
    files = folder_files(diffusers_folder(tmp_path / "made" / "base", width=256))
    weights = files["unet/diffusion_pytorch_model.safetensors"]
    more = {
        "unet/diffusion_pytorch_model.fp16.safetensors": weights,
        "unet/diffusion_pytorch_model.bin": b"pickle",
        "base.safetensors": weights,
        "unet/run.py": b"print()",
    }
    hub.repos["anna/base"] = {**files, **more}
    record = store.add(f"hf:anna/base@{COMMIT}")
    assert (record.name, record.kind, record.family) == ("base", "checkpoint", "sd1")
    assert sorted(Path(entry.path).relative_to(str(record.path)).as_posix() for entry in record.files) == sorted(files)


def test_a_file_that_is_not_what_the_hub_tells_is_refused(store: Store, hub: Server, ink: bytes) -> None:
    hub.repos["anna/lie"] = {"ink.safetensors": ink}
    hub.expected_sha256["ink.safetensors"] = "0" * 64
    with pytest.raises(Refused, match="was expected"):
        store.add("hf:anna/lie")
    assert store.records(kind="adapter") == []


def test_a_mirror_that_tells_nothing_of_repositories_gives_files(store: Store, hub: Server, ink: bytes) -> None:
    hub.repos["anna/ink"] = {"sub/ink.safetensors": ink}
    hub.status["/api/models/anna/ink"] = hub.status["/api/models/anna/ink/revision/v1"] = 404
    record = store.add("hf:anna/ink@v1/sub/ink.safetensors")
    assert record.hashes.sha256 == sha256(ink) and record.metadata["source_commit"] == COMMIT


def test_what_is_not_on_the_hub_is_reported(store: Store, hub: Server, ink: bytes) -> None:
    hub.repos["anna/two"] = {"a.safetensors": ink, "b.safetensors": ink}
    hub.repos["anna/none"] = {"x.bin": b""}
    for source, expected in {
        "hf:anna/two": "hf:anna/two/a.safetensors",
        "hf:anna/none": "x.bin",
        "hf:anna/two/c.safetensors": "a.safetensors",
        "hf:anna/two@v9": "'v9'",
        "hf:anna/absent": "anna/absent",
        "hf:anna": "is not hf:",
        "hf:anna/two/../x": "is not hf:",
    }.items():
        with pytest.raises(Refused, match=expected):
            store.add(source)
    with pytest.raises(NotFound, match="registry add hf:anna/two"):
        store.find("hf:anna/two/a.safetensors")


def test_without_a_network_the_cache_serves_and_else_it_is_reported_at_once(
    store: Store, hub: Server, ink: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repos["anna/ink"] = {"ink.safetensors": ink}
    record = store.add("hf:anna/ink/ink.safetensors")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert store.add("hf:anna/ink/ink.safetensors").id == record.id and store.add("hf:anna/ink").id == record.id
    began = time.monotonic()
    with pytest.raises(JobFailed, match="cannot be reached"):
        store.add("hf:anna/pen/pen.safetensors")
    assert time.monotonic() - began < 60  # tries again and again would be minutes
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(JobFailed, match="HF_HUB_OFFLINE"):
        store.add("hf:anna/pen/pen.safetensors")


def test_the_command_line_honours_the_endpoint(tmp_path: Path, pocket: Path, server: Server, ink: bytes) -> None:
    server.repos["anna/ink"] = {"ink.safetensors": ink}
    environment = {**os.environ, "HF_ENDPOINT": server.url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "hf")}
    environment["LORALOOM_HOME"] = str(tmp_path / "home")
    command = [sys.executable, "-m", "loraloom", "registry", "add", "hf:anna/ink", "--name", "ink", "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["hashes"]["sha256"] == sha256(ink)
