"""Facts in a file's own metadata: ModelSpec, sd-scripts' ss_* keys and our manifest, each with its source."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import Any

from registry.detect.aliases import family_declared
from registry.detect.licences import declared_terms
from registry.plain_values import from_json
from registry.record import OWN_METADATA, Prediction, Warn

TRIGGERS_AT_MOST = 8
OFTEN = 0.9  # share of a folder's captions a tag must be in to be taken for its trigger word
MOST_IMAGES = 1 << 53  # a larger count is damaged
KEPT_TEXT = 2000  # characters of a metadata value that are kept in the index; the file has the rest

PREDICTIONS = {
    "epsilon": "epsilon",
    "eps": "epsilon",
    "v": "v_prediction",
    "v_prediction": "v_prediction",
    "v-prediction": "v_prediction",
    "flow": "flow",
}


@dataclass(frozen=True)
class MetadataFacts:
    """Facts with their sources; `kept` is the metadata the index keeps, long values cut."""

    family: str | None = None
    family_source: str | None = None
    prediction: Prediction = field(default_factory=Prediction)
    triggers: tuple[str, ...] = ()
    licence: str | None = None
    parents: tuple[Mapping[str, Any], ...] = ()
    kept: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[Warn, ...] = ()


def metadata_facts(metadata: Mapping[str, str]) -> MetadataFacts:
    """The facts in a header's metadata; damaged values are left out, never an error."""
    family, source = family_declared(metadata) or (None, None)
    terms = declared_terms(metadata)
    warnings = terms.warnings() if terms is not None else ()
    if own := sorted(OWN_METADATA.keys() & metadata.keys()):
        message = f"Its metadata has {', '.join(own)}: the registry uses these names itself. They are left out; the file keeps them."
        warnings = (*warnings, Warn(code="reserved-metadata", message=message))
    return MetadataFacts(
        family=family,
        family_source=source,
        prediction=_prediction(metadata),
        triggers=_triggers(metadata),
        licence=metadata.get("modelspec.license") or None,
        warnings=warnings,
        parents=_parents(metadata),
        kept=_kept(metadata),
    )


def _kept(metadata: Mapping[str, str]) -> dict[str, Any]:
    """The metadata without the registry's own names, long values cut."""
    kept = {**metadata}
    for key in OWN_METADATA & kept.keys():
        del kept[key]
    if max(map(len, kept.values()), default=0) > KEPT_TEXT:
        kept |= {key: value[:KEPT_TEXT] + "…" for key, value in kept.items() if len(value) > KEPT_TEXT}
    return kept


def _prediction(metadata: Mapping[str, str]) -> Prediction:
    for key in ("modelspec.prediction_type", "modelspec.predict_key", "prediction_type"):
        value = PREDICTIONS.get(metadata.get(key, "").strip().lower())
        if value:
            return Prediction(value=value, source=key)
    if metadata.get("ss_v_parameterization") == "True":
        return Prediction(value="v_prediction", source="ss_v_parameterization")
    return Prediction()


def _triggers(metadata: Mapping[str, str]) -> tuple[str, ...]:
    """The words that call an adapter: as its maker wrote them, else the tags nearly every caption of a folder has."""
    written = [word.strip() for word in metadata.get("modelspec.trigger_phrase", "").split(",")]
    if any(written):
        return tuple(word for word in written if word)
    frequency, folders = read_object(metadata, "ss_tag_frequency"), read_object(metadata, "ss_dataset_dirs")
    words: dict[str, None] = {}
    for folder, tags in frequency.items():
        if not isinstance(tags, dict):
            continue
        images = folders.get(folder, {}).get("img_count") if isinstance(folders.get(folder), dict) else None
        least = OFTEN * images if isinstance(images, int) and 0 < images < MOST_IMAGES else 0.0
        often = [(count, tag) for tag, count in tags.items() if type(count) is int and 1 < count < MOST_IMAGES and count >= least]
        if not least:
            least = OFTEN * max([count for count, _ in often], default=0)
            often = [pair for pair in often if pair[0] >= least]
        words |= {word: None for _, tag in sorted(often, key=lambda pair: -pair[0]) if (word := tag.strip())}
    return tuple(words)[:TRIGGERS_AT_MOST]


def _parents(metadata: Mapping[str, str]) -> tuple[Mapping[str, Any], ...]:
    """What it was made from, as far as the file records it: our manifest, sd-scripts' base hash, ModelSpec's merged_from."""
    written = read_json_value(metadata.get("loraloom.parents"))
    if isinstance(written, list):
        parents = [_parent(entry) for entry in written if isinstance(entry, dict)]
        if parents:
            return tuple(parents)
    made = _trained_from(read_object(metadata, "loraloom.manifest")) or _merged_from(read_object(metadata, "loraloom_recipe"))
    if made:
        return made
    found: list[Mapping[str, Any]] = []
    digest = metadata.get("ss_new_sd_model_hash", "").strip().lower()
    name = metadata.get("ss_sd_model_name", "").strip()
    if digest or name:
        found.append({"role": "base", "ref": name or None, "sha256": digest if len(digest) == 64 else None})
    for source in metadata.get("modelspec.merged_from", "").split(","):
        if source.strip():
            found.append({"role": "source", "ref": source.strip(), "sha256": None})
    return tuple(found)


def _trained_from(manifest: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """Base, dataset and run as the manifest in an adapter's header names them."""
    found = []
    for role in ("base", "dataset"):
        entry = manifest.get(role)
        if isinstance(entry, dict) and (entry.get("sha256") or entry.get("name")):
            name = entry.get("name") or PurePath(str(entry.get("path") or "")).stem or None
            found.append(_parent({"role": role, "ref": name, "sha256": entry.get("sha256")}))
    run = manifest.get("run")
    return (*found, _parent({"role": "run", "ref": run})) if found and isinstance(run, str) else tuple(found)


RECIPE_ROLES = {"fuse": ("base", "adapter"), "combine": ("adapter",), "resize": ("adapter",), "extract": ("source", "base")}


def _merged_from(recipe: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """The sources of the recipe in a merged file's header; the last role of a tool is that of all that follow."""
    sources = recipe.get("sources")
    words = [word for key in ("tool", "method") if isinstance(word := recipe.get(key), str)]
    tool = next((word for word in words if word in RECIPE_ROLES), "")
    roles = RECIPE_ROLES.get(tool, ("source",))
    given = [source for source in sources if isinstance(source, dict)] if isinstance(sources, list) else []
    return tuple(_parent({**source, "role": roles[min(number, len(roles) - 1)]}) for number, source in enumerate(given))


def with_peft(facts: MetadataFacts, config: Mapping[str, Any]) -> MetadataFacts:
    """The facts with the base named by peft's adapter_config.json beside the file."""
    base = config.get("base_model_name_or_path")
    if facts.parents or not isinstance(base, str) or not base.strip():
        return facts
    return replace(facts, parents=({"role": "base", "ref": base.strip(), "sha256": None},))


def _parent(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value if isinstance(value := entry.get(name), str) else None for name in ("role", "ref", "sha256")}


def read_object(metadata: Mapping[str, str], key: str) -> dict[str, Any]:
    """The JSON object in a metadata value; {} when absent or damaged."""
    value = read_json_value(metadata.get(key))
    return value if isinstance(value, dict) else {}


def read_json_value(text: str | None) -> object:
    """The JSON value in a text; None when absent or damaged."""
    try:
        return from_json(text) if text else None
    except ValueError:
        return None
