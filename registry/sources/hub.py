"""Models of the Hugging Face hub: `hf:owner/repo[@revision][/file]`, through huggingface_hub and into its cache.

`HF_ENDPOINT`, `HF_TOKEN`, `HF_HOME` and `HF_HUB_OFFLINE` mean what they mean there. A slash in a revision is written %2F.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from registry.errors import JobFailed, LoomError, NotFound, Refused
from registry.formats.peft_config import CONFIG, WEIGHTS
from registry.index.scanning.walk import MODELS
from registry.printable import some
from registry.progress import Report, Tick
from registry.sources.network import check_reachable

if TYPE_CHECKING:
    from collections.abc import Iterator

HUB = re.compile(r"hf:(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[^/@]+))?(?:/(?P<file>[^@]+))?")
NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?")  # of an owner or a repository, by the hub's own rules
NAME_LIMIT = 96  # characters
SMALL = (".json", ".txt", ".model", ".md")  # of a diffusers folder, beside its weights; code is never fetched
ANSWER_SECONDS = 15


@dataclass(frozen=True)
class HubSource:
    """What a `hf:` reference names."""

    repo: str
    revision: str | None
    file: str | None

    def __str__(self) -> str:
        revision = f"@{self.revision.replace('/', '%2F')}" if self.revision else ""
        return f"hf:{self.repo}{revision}{f'/{self.file}' if self.file else ''}"


@dataclass(frozen=True)
class FromHub:
    """A download: its path in the hub's cache, its commit, the hub's hashes by path, its licence."""

    path: Path
    commit: str | None
    expected: dict[str, str]
    licence: str | None


def parse_hub(text: str) -> HubSource:
    """`hf:owner/repo[@revision][/file]` in its parts. Raises Refused."""
    found = HUB.fullmatch(text.strip())
    if not found:
        raise Refused(f"{text!r} is not hf:owner/repo[@revision][/file].")
    revision = unquote(found["revision"]) if found["revision"] else None
    if not all(map(_is_name, found["repo"].split("/"))):
        raise Refused(
            f"{text!r} is not hf:owner/repo[@revision][/file]: {found['repo']} is no name of a repository. "
            f"Expected letters, digits and single - . _ between them, at most {NAME_LIMIT} of an owner and of a repository."
        )
    if not all(part is None or _is_path(part) for part in (revision, found["file"])):
        raise Refused(
            f"{text!r} is not hf:owner/repo[@revision][/file]: a revision and a file are names of printable characters, without `..` and "
            "with single slashes between them."
        )
    return HubSource(found["repo"], revision, found["file"])


def _is_name(part: str) -> bool:
    return bool(NAME.fullmatch(part)) and len(part) <= NAME_LIMIT and not re.search(r"--|\.\.|\.git$", part)


def _is_path(text: str) -> bool:
    return text.isprintable() and "\\" not in text and not {"", ".", ".."} & set(text.split("/"))


def fetch_hub(source: HubSource, report: Report) -> FromHub:
    """Download a file, or the diffusers folder of a repository. Cached files are not downloaded again. Raises Refused, JobFailed."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()  # loraloom/console draws its own
    endpoint = os.environ.get("HF_ENDPOINT") or constants.ENDPOINT
    if constants.HF_HUB_OFFLINE:
        return _cached(source, f"{source} is not in the cache of this machine, and HF_HUB_OFFLINE keeps it from the network.")
    try:
        check_reachable(endpoint, wanted=str(source))
    except JobFailed as error:
        return _cached(source, str(error))
    try:
        with _explained(source, endpoint):
            info = HfApi(endpoint=endpoint).model_info(source.repo, revision=source.revision, files_metadata=True, timeout=ANSWER_SECONDS)
    except NotFound:
        if source.file is None:
            raise
        return _file_alone(source, source.file, endpoint)
    sizes = {str(one.rfilename): one for one in info.siblings or ()}
    files = [source.file] if source.file else _files_of(source, sizes)
    whole = len(files) > 1
    files += [name for name in _configs_of(files) if name in sizes]
    if source.file and source.file not in sizes:
        raise NotFound(f"{source}: there is no such file. {source.repo} has {_listed(sizes)}.")
    _check_room(source, sum(int(sizes[name].size or 0) for name in files))
    folder, expected = Path(), {}
    for number, name in enumerate(files, 1):
        path = _download(source, name, endpoint)
        folder = path.parents[len(PurePosixPath(name).parts) - 1]
        if folder.name != info.sha:
            raise JobFailed(f"{source} was given a new commit while it was fetched. Give the command again.")
        lfs = sizes[name].lfs
        if lfs is not None and lfs.sha256:
            expected[str(path)] = str(lfs.sha256)
        report(Tick("fetch", number, len(files), name))
    licence = getattr(info.card_data, "license", None) if info.card_data else None
    place = folder if whole else folder / files[0]
    return FromHub(place, str(info.sha), expected, str(licence) if licence else None)


def _download(source: HubSource, name: str, endpoint: str) -> Path:
    from huggingface_hub import hf_hub_download

    with _explained(source, endpoint):
        return Path(str(hf_hub_download(source.repo, name, revision=source.revision, endpoint=endpoint, etag_timeout=ANSWER_SECONDS)))


def _file_alone(source: HubSource, name: str, endpoint: str) -> FromHub:
    """The file from a mirror that serves files and no repository metadata."""
    path = _download(source, name, endpoint)
    return FromHub(path, path.parents[len(PurePosixPath(name).parts) - 1].name, {}, None)


def _cached(source: HubSource, otherwise: str) -> FromHub:
    """The cached result of an earlier call."""
    from huggingface_hub import snapshot_download, try_to_load_from_cache
    from huggingface_hub.errors import LocalEntryNotFoundError

    found: Any = None
    if source.file:
        found = try_to_load_from_cache(source.repo, source.file, revision=source.revision)
        path = Path(found) if isinstance(found, str) else None
    else:
        try:
            folder = Path(snapshot_download(source.repo, revision=source.revision, local_files_only=True))
        except (LocalEntryNotFoundError, OSError, ValueError):
            raise JobFailed(otherwise) from None
        models = sorted(folder.glob("*.safetensors"))
        path = folder if (folder / "model_index.json").is_file() else models[0] if len(models) == 1 else None
    if path is None:
        raise JobFailed(otherwise)
    commit = re.search(r"snapshots[/\\]([0-9a-f]{40})", str(path))
    return FromHub(path, commit[1] if commit else None, {}, None)


# --- which files


def _files_of(source: HubSource, sizes: Iterable[str]) -> list[str]:
    """The files of a diffusers folder, or the one model file of a repository. Raises Refused that lists several."""
    names = sorted(sizes)
    if "model_index.json" in names:
        return _folder_of(names)
    models = [name for name in names if name.lower().endswith(MODELS)]
    if len(models) == 1:
        return models
    if not models:
        raise Refused(f"{source} has no safetensors and no GGUF file. It has {_listed(names)}.")
    raise Refused(f"{source} has {len(models)} model files. Name one: " + ", ".join(f"{source}/{name}" for name in models[:12]))


def _configs_of(files: list[str]) -> list[str]:
    """peft's config beside its weights, which holds their alpha."""
    weights = [PurePosixPath(name) for name in files if PurePosixPath(name).name == f"{WEIGHTS}.safetensors"]
    return [str(path.with_name(CONFIG)) for path in weights if str(path.with_name(CONFIG)) not in files]


def _folder_of(names: list[str]) -> list[str]:
    """Configs and tokenizers, and of each component the weights that are loaded: the plain ones, else fp16."""
    chosen = [name for name in names if name.lower().endswith(SMALL)]
    for folder in sorted({name.rpartition("/")[0] for name in names if name.endswith(".safetensors") and "/" in name}):
        weights = [name for name in names if name.rpartition("/")[0] == folder and name.endswith(".safetensors")]
        plain = [name for name in weights if not re.search(r"\.(fp16|bf16|non_ema|ema)[.-]", name.rpartition("/")[2])]
        half = [name for name in weights if ".fp16" in name.rpartition("/")[2]]
        chosen += plain or half or weights
    return sorted(chosen)


def _listed(names: Iterable[str]) -> str:
    return some(sorted(names), 8) or "no files"


def _check_room(source: HubSource, needed: int) -> None:
    import shutil

    from huggingface_hub import constants

    place = Path(constants.HF_HUB_CACHE)
    standing = next(folder for folder in (place, *place.parents) if folder.exists())
    free = shutil.disk_usage(standing).free
    if needed > free:
        raise JobFailed(
            f"{source} has {needed:,} bytes; {standing} has {free:,} bytes free. Free some space, or set HF_HOME to another disk."
        )


@contextmanager
def _explained(source: HubSource, endpoint: str) -> Iterator[None]:
    """Raises the hub's errors as LoomErrors."""
    from huggingface_hub import errors

    try:
        yield
    except LoomError:
        raise
    except errors.GatedRepoError as error:
        raise Refused(f"{source} is gated. Accept its terms at {endpoint}/{source.repo}, and set HF_TOKEN.") from error
    except errors.RepositoryNotFoundError as error:
        raise NotFound(
            f"{source}: {endpoint} has no repository {source.repo}, or it is private. Check the name; HF_TOKEN opens private ones."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise NotFound(f"{source}: {source.repo} has no revision {source.revision!r}. Leave it out for the newest.") from error
    except errors.EntryNotFoundError as error:
        raise NotFound(f"{source}: {source.repo} has no such file.") from error
    except Exception as error:  # its own, and those of its http client, which differs by version
        if getattr(getattr(error, "response", None), "status_code", None) == 404:
            raise NotFound(f"{source}: {endpoint} does not have it (HTTP 404).") from error
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise JobFailed(
            f"{source} was not fetched: {reason}. The part that was downloaded is kept: run the command again to resume."
        ) from error
