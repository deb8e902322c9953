"""Record: one registered model, dataset or run, as every listing and `--json` shows it. Unknown values are None, never guessed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

KINDS = ("checkpoint", "adapter", "vae", "embedding", "controlnet", "text_encoder", "dataset", "run", "unknown")
PREDICTIONS = ("epsilon", "v_prediction", "flow")
OVERRIDDEN = "told"  # the source of a prediction that a person set
OVERRIDABLE = (
    "kind",
    "family",
    "variant",
    "prediction",
    "licence",
    "notes",
    "triggers",
    "image",
)  # fields that can be overridden and reset

OWN_METADATA: Mapping[str, Any] = {
    "root": str,
    "copies": list[str],
    "files_sha256": dict[str, str],
    "made_at": str,
    "source": str,
    "source_commit": str,
}  # the keys of `metadata` that the registry sets and acts on, with their types; all others are the file's own


@dataclass(frozen=True, kw_only=True)
class FileEntry:
    """One file of a Record: absolute path and size."""

    path: str
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The prediction type of the denoiser (epsilon, v_prediction, flow) and where it was read."""

    value: str | None = None
    source: str | None = None


@dataclass(frozen=True, kw_only=True)
class Hashes:
    """Typed hashes, hex lower-case. `kohya` = `tensors_sha256` = sha256 of the data section (see registry/formats/hashing)."""

    sha256: str | None = None
    autov1: str | None = None
    autov2: str | None = None
    autov3: str | None = None
    kohya: str | None = None
    kohya_legacy: str | None = None
    tensors_sha256: str | None = None
    content_sha256: str | None = None
    blake3: str | None = None

    @property
    def of_a_file_in_part(self) -> bool:
        """Whether those of a large file are missing that are computed when they are asked for; a folder has its sha256 alone."""
        return self.autov1 is not None and self.blake3 is None

    def same_weights(self, other: "Hashes") -> bool:
        """Whether the data sections are the same; of files without that hash names, shapes and bytes of all tensors, which is as much."""
        if self.tensors_sha256 and other.tensors_sha256:
            return self.tensors_sha256 == other.tensors_sha256
        return self.content_sha256 is not None and self.content_sha256 == other.content_sha256


@dataclass(frozen=True, kw_only=True)
class Warn:
    """A warning about a Record: a short code with dashes, and a sentence."""

    code: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Record:
    """One registered model, dataset or run. `parents` are {role, ref, sha256}: roles are base, dataset, run, adapter, source."""

    id: str
    name: str
    kind: str
    family: str | None = None
    variant: str | None = None
    prediction: Prediction = field(default_factory=Prediction)
    dialect: str | None = None
    algorithms: tuple[str, ...] = ()
    dora: bool | None = None
    rank: int | None = None
    alpha: float | None = None
    dtype: str | None = None
    components: tuple[str, ...] = ()
    files: tuple[FileEntry, ...] = ()
    hashes: Hashes = field(default_factory=Hashes)
    triggers: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    notes: str | None = None
    aliases: tuple[str, ...] = ()
    licence: str | None = None
    parents: tuple[Mapping[str, Any], ...] = ()
    recipe: Mapping[str, Any] | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    evidence: tuple[str, ...] = ()
    candidates: tuple[str, ...] = ()
    warnings: tuple[Warn, ...] = ()
    created: str | None = None  # ISO 8601, UTC
    image: str | None = None  # absolute path of the image that a person chose for it

    @property
    def path(self) -> str | None:
        """The file, or the folder in metadata["root"] for a folder of files."""
        root = self.metadata.get("root")
        return str(root) if root else (self.files[0].path if self.files else None)

    def to_json(self, names: Sequence[str] | None = None) -> dict[str, Any]:
        """Plain values with stable keys, in the order of the fields, or of these names of fields alone."""
        own = vars(self)
        values = {name: own[name] for name in names or FIELDS}
        for name in values.keys() & PLAIN.keys():
            values[name] = PLAIN[name](values[name])
        return values

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Record":
        """The Record back from `to_json`, lists turned into tuples."""
        values = {name: data[name] for name in FIELDS if name in data}
        values["prediction"] = Prediction(**(values.get("prediction") or {}))
        values["hashes"] = Hashes(**(values.get("hashes") or {}))
        values["files"] = tuple(FileEntry(**entry) for entry in values.get("files", ()))
        values["warnings"] = tuple(Warn(**entry) for entry in values.get("warnings", ()))
        for name in ("algorithms", "components", "triggers", "tags", "aliases", "parents", "evidence", "candidates"):
            values[name] = tuple(values.get(name) or ())
        return cls(**values)


FIELDS = tuple(f.name for f in fields(Record))


def _several(values: tuple[Any, ...]) -> tuple[dict[str, Any], ...]:
    return tuple([vars(value).copy() for value in values])


PLAIN: Mapping[str, Callable[[Any], Any]] = {  # how the fields are written that are no plain values
    "prediction": lambda value: vars(value).copy(),
    "hashes": lambda value: vars(value).copy(),
    "files": _several,
    "warnings": _several,
    "parents": lambda parents: tuple([dict(parent) for parent in parents]),
    "metadata": dict,
}
