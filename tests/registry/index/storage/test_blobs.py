"""Blobs by content, on this machine and in stores that fsspec knows."""

import hashlib
import secrets
from pathlib import Path

import pytest

from registry.errors import JobFailed, Refused
from registry.index.storage.blobs import Blobs
from tests.disks import small_disk


@pytest.fixture(params=["home", "folder", "file", "memory"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    place = {"home": None, "folder": str(tmp_path / "b"), "file": (tmp_path / "f").as_uri(), "memory": f"memory://{secrets.token_hex(4)}/x"}
    return Blobs(tmp_path / "home", place[request.param] or "")


def made(path: Path, data: bytes = b"weights") -> tuple[Path, str]:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path, hashlib.sha256(data).hexdigest()


def test_a_kept_file_is_copied_once_and_stays_the_users(blobs: Blobs, tmp_path: Path) -> None:
    file, sha256 = made(tmp_path / "mine" / "a.safetensors")
    address = blobs.keep(file, sha256)
    assert address.endswith(f"/{sha256[:2]}/{sha256}.safetensors") and file.read_bytes() == b"weights"
    other, _ = made(tmp_path / "mine" / "b.safetensors")
    assert blobs.keep(other, sha256) == address
    assert [(blob.address, blob.sha256, blob.bytes) for blob in blobs] == [(address, sha256, 7)]
    fetched = blobs.fetch(sha256)
    assert fetched is not None and fetched.read_bytes() == b"weights" and blobs.fetch("0" * 64) is None
    for blob in list(blobs):
        blobs.remove(blob)
    assert list(blobs) == [] and blobs.fetch(sha256) is None


def test_a_file_that_is_not_of_its_hash_is_not_kept(blobs: Blobs, tmp_path: Path) -> None:
    file, _ = made(tmp_path / "a.safetensors")
    with pytest.raises(JobFailed, match="was expected"):
        blobs.keep(file, "0" * 64)
    assert list(blobs) == [] and blobs.leftovers() == []


def test_a_taken_file_is_moved_and_lies_on_this_machine(blobs: Blobs, tmp_path: Path) -> None:
    file, sha256 = made(tmp_path / "q" / "part")
    place = blobs.take(file, sha256, ".safetensors")
    assert place.read_bytes() == b"weights" and not file.exists() and place == blobs.find(sha256)
    again, _ = made(tmp_path / "q" / "part")
    assert blobs.take(again, sha256, ".safetensors") == place and not again.exists()


def test_a_taken_file_on_another_disk_is_copied(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as mounted:
        file, sha256 = made(tmp_path / "a.safetensors")
        place = Blobs(tmp_path / "home", str(tmp_path / "disk" / "blobs")).take(file, sha256, ".safetensors")
        assert not mounted or place.stat().st_dev != tmp_path.stat().st_dev
        assert place.read_bytes() == b"weights" and not file.exists() and place.stat().st_mode & 0o222 == 0
        assert [path.name for path in place.parent.iterdir()] == [place.name]


def test_a_damaged_blob_elsewhere_is_not_brought(tmp_path: Path) -> None:
    import fsspec

    url = f"memory://{secrets.token_hex(4)}/x"
    blobs = Blobs(tmp_path / "home", url)
    file, sha256 = made(tmp_path / "a.safetensors")
    address = blobs.keep(file, sha256)
    with fsspec.open(address, "wb") as target:
        target.write(b"wEights")
    with pytest.raises(JobFailed, match="damaged"):
        blobs.fetch(sha256)
    assert blobs.find(sha256) is None


def test_a_store_that_cannot_be_used_is_reported(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="LORALOOM_BLOBS"):
        list(Blobs(tmp_path, "nosuch://user:secret@host/x"))


@pytest.mark.slow
def test_blobs_on_s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """s3fs against moto's server: kept, listed, downloaded to a second machine, taken away; damage there is noticed."""
    import fsspec
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        for name, value in {
            "ACCESS_KEY_ID": "test",
            "SECRET_ACCESS_KEY": "test",
            "ENDPOINT_URL": endpoint,
            "DEFAULT_REGION": "us-east-1",
        }.items():
            monkeypatch.setenv(f"AWS_{name}", value)
        fsspec.filesystem("s3", skip_instance_cache=True).mkdir("models")
        monkeypatch.setenv("LORALOOM_BLOBS", "s3://models/blobs")
        here, there = Blobs(tmp_path / "here"), Blobs(tmp_path / "there")
        file, sha256 = made(tmp_path / "a.safetensors", b"weights" * 1_000_000)
        address = here.keep(file, sha256)
        assert address == f"s3://models/blobs/{sha256[:2]}/{sha256}.safetensors"
        assert here.keep(file, sha256) == address
        assert [(blob.sha256, blob.bytes, blob.local) for blob in here] == [(sha256, 7_000_000, False)]
        fetched = there.fetch(sha256)
        assert fetched is not None and fetched.read_bytes() == file.read_bytes() and there.fetch("0" * 64) is None
        other, digest = made(tmp_path / "b.safetensors", b"other")
        fsspec.filesystem("s3").pipe(f"models/blobs/{digest[:2]}/{digest}.safetensors", b"damaged")
        with pytest.raises(JobFailed, match="is damaged"):
            there.fetch(digest)
        for blob in list(here):
            here.remove(blob)
        assert list(here) == []
        assert other.is_file()
    finally:
        server.stop()
