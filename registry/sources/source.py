"""Models downloaded from the Hugging Face Hub or the web, checked before they are registered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.errors import BadFile, Refused
from registry.files.locks import held
from registry.index.scanning.walk import MODELS
from registry.index.storage.blobs import Blobs
from registry.progress import Report
from registry.record import Hashes
from registry.references import GENERIC, proper_name

if TYPE_CHECKING:
    from registry.sources.web import Arrived


@dataclass(frozen=True)
class Download:
    """A downloaded file or folder, its source, and a name for it."""

    path: Path
    name: str
    source: str
    commit: str | None = None
    licence: str | None = None
    expected: dict[str, str] = field(default_factory=dict)  # path -> sha256 that the server states

    @property
    def metadata(self) -> dict[str, str]:
        """The entries of a record's metadata that state its source."""
        return {"source": self.source, **({"source_commit": self.commit} if self.commit else {})}


def is_source(text: str) -> bool:
    """Whether a reference names a model on the hub or the web. Raises Refused for an address of another scheme."""
    scheme, found, _rest = text.partition("://")
    if found and scheme.isalpha() and scheme.lower() not in ("http", "https", "hf"):
        raise Refused(
            f"{text}: nothing can be downloaded from {scheme}:// addresses. Expected a path, hf:owner/repo[@revision][/file] or https://..."
        )
    return text.startswith(("hf:", "http://", "https://"))


def same_source(text: str) -> str:
    """The source as the index has it."""
    if text.startswith("hf:"):
        from registry.sources.hub import parse_hub

        return str(parse_hub(text))
    from registry.sources.web import shown

    return shown(text)


def download(text: str, *, sha256: str | None, home: Path, blobs: Blobs, report: Report) -> Download:
    """Download what a source names. Raises Refused, JobFailed."""
    if text.startswith("hf:"):
        return _from_hub(text, sha256, report)
    return _from_web(text, sha256, home, blobs, report)


def _from_hub(text: str, sha256: str | None, report: Report) -> Download:
    from registry.sources.hub import fetch_hub, parse_hub
    from registry.sources.web import check_sha256

    source = parse_hub(text)
    if sha256 is not None:
        check_sha256(sha256, text)
    came = fetch_hub(source, report)
    stem = came.path.stem if came.path.is_file() else ""
    name = source.repo.rpartition("/")[2] if not stem or stem in GENERIC else stem
    expected = came.expected | ({str(came.path): check_sha256(sha256, text)} if sha256 else {})
    return Download(came.path, proper_name(name), str(source), came.commit, came.licence, expected)


def _from_web(text: str, sha256: str | None, home: Path, blobs: Blobs, report: Report) -> Download:
    from registry.sources.web import check_address, check_sha256, fetch_web, shown

    check_address(text)
    digest = check_sha256(sha256, text)
    with held(home / "quarantine" / digest):  # another process that wants the same file waits, and finds it
        known = blobs.fetch(digest, report)
        if known is not None:
            return Download(known, proper_name(Path(shown(text)).stem or digest[:12]), shown(text), expected={str(known): digest})
        arrived = fetch_web(text, sha256=digest, quarantine=home / "quarantine", report=report)
        checked = _checked(arrived, shown(text))
        place = blobs.take(checked, digest, checked.suffix, report)
    return Download(place, proper_name(Path(arrived.name).stem), shown(text), expected={str(place): digest})


def _ending(arrived: Arrived) -> str:
    """The suffix of its name, else that of its format."""
    ending = Path(arrived.name).suffix.lower()
    if ending in MODELS:
        return ending
    with arrived.path.open("rb") as file:
        return ".gguf" if file.read(4) == b"GGUF" else ".safetensors"


def _checked(arrived: Arrived, source: str) -> Path:
    """The downloaded file with the suffix of its format. Raises Refused and deletes it where it is no model."""
    from registry.detect.inspect import inspect  # not at the top: it imports every family

    checked = arrived.path.with_suffix(_ending(arrived))
    arrived.path.rename(checked)
    try:
        inspect(checked)
    except BadFile as error:
        checked.unlink()
        raise Refused(f"{source} has the expected hash, but is no model: it {error.message} The file was deleted.") from error
    return checked


def check_expected(expected: Mapping[str, str], path: Path, hashes: Hashes, learned: Mapping[str, Any]) -> None:
    """Refuse a file whose hash is not the one that the server or the user gave."""
    files = learned.get("metadata", {}).get("files_sha256", {}) if path.is_dir() else {}
    for place, stated in expected.items():
        found = hashes.sha256 if Path(place) == path else files.get(Path(place).relative_to(path).as_posix())
        wanted = stated.strip().lower().removeprefix("sha256:")
        if found != wanted:
            raise Refused(f"{place} has sha256 {found}; {wanted} was expected. It is not the file that was meant; it is not registered.")
