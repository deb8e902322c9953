"""Downloads from the web: kept in quarantine, resumed, and released when the hash is right."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import http.client
import os
import re
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from registry.errors import JobFailed, Refused
from registry.files.locks import held
from registry.formats.atomic_file import write_json
from registry.plain_values import from_json
from registry.progress import Report, Tick

CHUNK = 1 << 20  # bytes a read
TRIES = 4  # connections in a row without new bytes
PAUSE_SECONDS = 0.4  # before the second try; doubled before each that follows
QUIET_SECONDS = 30  # without a byte, until the connection is closed
SPARE = 64 << 20  # bytes of the disk that stay free
HEX64 = re.compile("[0-9a-f]{64}")
PRINTABLE = re.compile("[!-~]+")  # what an address is written in (RFC 3986)


@dataclass(frozen=True)
class Arrived:
    """A complete file in quarantine, and its name on the server."""

    path: Path
    name: str


def check_address(url: str) -> None:
    """Raise Refused for an address that is malformed, or neither https nor on this machine."""
    if not PRINTABLE.fullmatch(url):
        raise Refused(f"{shown(url)!r} has a space, a control character or a letter outside ASCII. Write it %-encoded, a host as xn--...")
    try:
        parts = urllib.parse.urlsplit(url)
        parts.port  # noqa: B018  # it is read here: a number to 65535, or a ValueError
    except ValueError as error:
        raise Refused(f"{shown(url)} is no address ({error}). Expected https://host/path.") from error
    if parts.scheme == "http" and parts.hostname in ("127.0.0.1", "localhost", "::1"):
        return
    if parts.scheme != "https" or not parts.hostname:
        raise Refused(f"{shown(url)} is not https. A file sent over http can be changed on the way; give an https address.")


def check_sha256(sha256: str | None, url: str) -> str:
    """The 64 digits, lower-case. Raises Refused."""
    text = (sha256 or "").strip().lower().removeprefix("sha256:")
    if not text:
        raise Refused(f"{shown(url)} needs the hash of the file it should give: --sha256, 64 hex digits, from its download page.")
    if not HEX64.fullmatch(text):
        raise Refused(f"--sha256 {sha256!r} is not a sha256: 64 hex digits were expected.")
    return text


def fetch_web(url: str, *, sha256: str, quarantine: Path, report: Report) -> Arrived:
    """Download a file with a known hash, resuming an earlier download. Raises Refused, JobFailed.

    `quarantine` is a folder. Two processes that want the same file wait for each other.
    """
    check_address(url)
    quarantine.mkdir(parents=True, exist_ok=True)
    part = quarantine / f"{sha256}.part"
    with held(part):
        resumed = part.exists() and part.stat().st_size > 0
        with _disk_full_explained(quarantine):
            name = _fetch(url, part, report)
            found = _sha256(part)
            if found != sha256 and resumed:  # the earlier part may be of another file
                part.unlink()
                name = _fetch(url, part, report)
                found = _sha256(part)
        _facts_of(part).unlink(missing_ok=True)
        if found != sha256:
            part.unlink()
            raise Refused(f"{shown(url)} gave a file with sha256 {found}; {sha256} was expected. The file was deleted. Check both.")
    return Arrived(part, name)


# --- one connection after another


def _fetch(url: str, part: Path, report: Report) -> str:
    """Download the rest of the file; gives its name."""
    tries, before = 0, -1
    while True:
        here = part.stat().st_size if part.exists() else 0
        tries = 1 if here > before else tries + 1
        before = here
        try:
            name, whole = _connection(url, part, here, report)
        except urllib.error.HTTPError as error:
            if error.code == 416:  # nothing after the part we have: it is complete, or another file
                return _named_by(url, None)
            if error.code not in (408, 425, 429, 500, 502, 503, 504) or tries >= TRIES:
                raise _refused(url, error) from error
        except (OSError, http.client.HTTPException) as error:
            if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
                raise
            if (here == 0 and not part.exists()) or tries >= TRIES:
                raise JobFailed(_cut(url, getattr(error, "reason", error), part)) from error
        except ValueError as error:  # urllib's, of a redirect to a malformed address
            raise JobFailed(f"{shown(url)} answers with what cannot be understood ({error}). Give another address.") from error
        else:
            if whole:
                return name
            if tries >= TRIES:
                raise JobFailed(_cut(url, "the connection ends before the file does", part))
        time.sleep(PAUSE_SECONDS * 2 ** (tries - 1))


def _connection(url: str, part: Path, here: int, report: Report) -> tuple[str, bool]:
    """(file name, whether it is complete) after one connection."""
    facts = _read_facts(part)
    headers = {"User-Agent": "loraloom", "Accept-Encoding": "identity"}
    if here and facts.get("url") == url:
        headers["Range"] = f"bytes={here}-"
        if facts.get("mark"):
            headers["If-Range"] = str(facts["mark"])
    opener = urllib.request.build_opener(_Redirects())
    with opener.open(urllib.request.Request(url, headers=headers), timeout=QUIET_SECONDS) as answer:
        going_on = answer.status == 206 and _starts_at(answer, here)
        begin = here if going_on else 0
        length = answer.headers.get("Content-Length")
        total = begin + int(length) if length and length.isdigit() else None
        _check_room(part, (total or 0) - begin, url)
        mark = answer.headers.get("ETag") or answer.headers.get("Last-Modified")
        write_json(_facts_of(part), {"url": url, "mark": None if str(mark).startswith("W/") else mark, "total": total})
        with part.open("ab" if going_on else "wb") as file:
            done = _copy(answer, file, begin, total, report, part)
        return _named_by(answer.geturl(), answer.headers.get("Content-Disposition")), total is None or done == total


def _copy(answer: Any, file: BinaryIO, begin: int, total: int | None, report: Report, part: Path) -> int:
    done = begin
    try:
        while data := answer.read(CHUNK):
            file.write(data)
            done += len(data)
            report(Tick("download", done, total or 0, part.name[:12]))
    finally:
        file.flush()
        os.fsync(file.fileno())
    return done


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to https only; from http on this machine also to http on this machine."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        check_address(newurl)
        if req.type == "https" and urllib.parse.urlsplit(newurl).scheme != "https":
            raise Refused(f"{shown(req.full_url)} redirects to {shown(newurl)}, which is not https. Give another address.")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


# --- small pieces


def _starts_at(answer: Any, begin: int) -> bool:
    return str(answer.headers.get("Content-Range", "")).startswith(f"bytes {begin}-")


def _named_by(url: str, disposition: str | None) -> str:
    """The file name, without a folder."""
    named = re.search(r"filename\*=(?:UTF-8'')?\"?([^\";]+)|filename=\"?([^\";]+)", disposition or "", re.IGNORECASE)
    name = urllib.parse.unquote((named[1] or named[2]) if named else urllib.parse.urlsplit(url).path)
    return re.split(r"[/\\]", name.strip())[-1]


def _check_room(part: Path, needed: int, url: str) -> None:
    free = shutil.disk_usage(part.parent).free
    if needed > 0 and free < needed + SPARE:
        raise JobFailed(
            f"{shown(url)} has {needed:,} bytes more; {part.parent} has {max(free - SPARE, 0):,} bytes free. Free some space first."
        )


@contextlib.contextmanager
def _disk_full_explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise JobFailed(
            f"The disk of {folder} is full. The part that was downloaded is kept: free some space and run the command again."
        ) from error


def _refused(url: str, error: urllib.error.HTTPError) -> Refused | JobFailed:
    if error.code in (404, 410):
        return Refused(f"{shown(url)} does not exist (HTTP {error.code}). Check the address.")
    if error.code in (401, 403):
        return Refused(f"{shown(url)} needs a login (HTTP {error.code}). Download it in a browser, and add the file.")
    return JobFailed(f"{shown(url)} failed: HTTP {error.code} {error.reason}. Try again later.")


def _cut(url: str, reason: object, part: Path) -> str:
    kept = part.stat().st_size if part.exists() else 0
    then = (
        f"{kept:,} bytes were downloaded and are kept: run the command again to resume." if kept else "Check the network and the address."
    )
    return f"{shown(url)} cannot be reached ({reason}). {then}"


def shown(url: str) -> str:
    """The address without a password and without its query, which may hold a token."""
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError:  # malformed: without what a password or a token may be in
        return f"{url.partition('://')[0]}://{url.partition('://')[2].partition('?')[0].partition('#')[0].rpartition('@')[2]}"
    return urllib.parse.urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _facts_of(part: Path) -> Path:
    return part.with_suffix(".json")


def _read_facts(part: Path) -> dict[str, Any]:
    try:
        value = from_json(_facts_of(part).read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
