"""Maps a model to the layout of another: a diffusers folder to a single file's keys or back, a lone VAE to a checkpoint's.

No tensor is read: a key gets the location of its elements, in parts where one layout fuses what the other keeps apart.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Mapping
from dataclasses import replace

from registry.architectures.unet.ldm_names import vae_name
from registry.detect.module_shapes import SINGLE_FILE
from registry.errors import BadFile
from registry.families import FAMILIES
from registry.formats.key_map import FileKeyMap, KeyLocation
from registry.formats.model_folder import read_json
from registry.formats.transformer_file import PREFIXES
from registry.tensors.layout import Layout, Stored, joined

DENOISERS = ("unet", "transformer", "prior")
TEXT = "text_model."  # in CLIP's names, except in some files and newer classes


def match_layout(layout: Layout, first: Layout, *, family: str | None, kind: str) -> Layout:
    """A source under the keys of the first one; unchanged where they have the same layout.

    A tensor without a counterpart keeps its key, and counts as extra. Raises BadFile where a folder's config.json is missing.
    """
    if kind not in ("checkpoint", "unknown"):
        return _part_of(layout, first, kind=kind, family=family)
    if layout.diffusers == first.diffusers:
        return _renamed(layout, first, family) if not first.diffusers else _respelled(layout, first)
    return _of_file(layout, first, family) if first.diffusers else _of_folder(layout, first, family)


def _of_folder(folder: Layout, first: Layout, family: str | None) -> Layout:
    """A folder's tensors under a single file's keys."""
    found: dict[str, Stored] = {}
    for component, names in _components(folder):
        places = _places(component, folder, names, first.tensors, family)
        found |= gathered({name: folder.tensors[f"{component}/{name}"] for name in names}, places)
        found |= {f"{component}/{name}": folder.tensors[f"{component}/{name}"] for name in names if name not in places}
    return _shaped_like(replace(folder, tensors=found, diffusers=False, translated=True), first)


def _of_file(file: Layout, first: Layout, family: str | None) -> Layout:
    """A single file's tensors under a folder's keys."""
    found, taken = _parameters(file.tensors, first, family)
    found |= {key: stored for key, stored in file.tensors.items() if key not in taken}
    return _shaped_like(replace(file, tensors=found, diffusers=True, translated=True), first)


def _parameters(tensors: Mapping[str, Stored], first: Layout, family: str | None) -> tuple[dict[str, Stored], set[str]]:
    """(a folder's parameters out of a single file's tensors, the keys that they were taken from)."""
    found: dict[str, Stored] = {}
    taken: set[str] = set()
    for component, names in _components(first):
        for name, place in _places(component, first, names, tensors, family).items():
            stored = cut(tensors.get(place.key), place)
            if stored is not None:
                found[f"{component}/{name}"] = stored
                taken.add(place.key)
    return found, taken


def _components(folder: Layout) -> Iterator[tuple[str, list[str]]]:
    """(component, its parameters) of a diffusers folder."""
    names: dict[str, list[str]] = {}
    for key in folder.tensors:
        component, _, name = key.partition("/")
        names.setdefault(component, []).append(name)
    yield from names.items()


def _places(component: str, folder: Layout, names: list[str], keys: Container[str], family: str | None) -> dict[str, KeyLocation]:
    """Locations of a folder's parameters among a single file's keys: by the family's table, else under their usual names."""
    shapes = {name: folder.tensors[f"{component}/{name}"].info.shape for name in names}
    config_file = folder.path / component / "config.json"
    config = read_json(config_file) if config_file.is_file() else {}
    table = FAMILIES[family].file_names if family is not None and family in FAMILIES else None
    try:
        found = table.places(component, config, shapes, keys) if table is not None else {}
    except (KeyError, TypeError) as error:
        message = f"has no {component}/config.json with the architecture of its {component} ({error}); a single file's names depend on it."
        raise BadFile(folder.path, "bad-config", message) from error
    return found or dict(_usual_places(component, names, keys))


def _usual_places(component: str, names: list[str], keys: Container[str]) -> Iterator[tuple[str, KeyLocation]]:
    """Parameters under their names in most families' single files: their own; a VAE's and CLIP's as in the original implementation."""
    prefixes = PREFIXES if component in DENOISERS else [*(prefix for prefix, owner in SINGLE_FILE if owner == component), ""]
    levels = {"block_out_channels": range(1 + max((int(name.split(".")[2]) for name in names if LEVEL.match(name)), default=0))}
    for name in names:
        spellings = [vae_name(levels, modern(name))] if component == "vae" else [f"{TEXT}{name}", name.removeprefix(TEXT)]
        known = [prefix + spelling for prefix in prefixes for spelling in (name, *spellings)]
        if key := next((key for key in known if key in keys), None):
            yield name, KeyLocation(key)


OLD = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}  # of diffusers' VAEs before 0.17
LEVEL = re.compile(r"(en|de)coder\.(down|up)_blocks\.\d+\.")


def modern(name: str) -> str:
    """diffusers' present name of a VAE's attention."""
    return next((name.replace(old, new) for old, new in OLD.items() if old in name), name)


def gathered(tensors: Mapping[str, Stored], places: Mapping[str, KeyLocation]) -> dict[str, Stored]:
    """Parameters under a file's keys: the rows of one key are concatenated, only where all of them are present."""
    groups: dict[str, list[tuple[int, KeyLocation, Stored]]] = {}
    for name, place in places.items():
        groups.setdefault(place.key, []).append((place.rows[0] if place.rows else 0, place, tensors[name]))
    found: dict[str, Stored] = {}
    for key, entries in groups.items():
        entries.sort(key=lambda entry: entry[0])
        rows = 0
        for begin, place, stored in entries:
            if begin != rows or (place.rows and place.rows[1] - place.rows[0] != stored.info.shape[0]):
                break
            rows += stored.info.shape[0] if stored.info.shape else 0
        else:
            found[key] = joined([part for _, place, stored in entries for part in _turned(stored, place)])
    return found


def _turned(stored: Stored, place: KeyLocation) -> list[Stored]:
    if place.swapped:
        return _halves(stored)
    return [stored.transposed() if place.transposed else stored]


def _halves(stored: Stored) -> list[Stored]:
    half = stored.info.shape[0] // 2
    return [stored.rows(half, 2 * half), stored.rows(0, half)]


def cut(stored: Stored | None, place: KeyLocation) -> Stored | None:
    """A parameter's rows of a file's tensor; None where it has no such tensor or fewer rows."""
    if stored is None:
        return None
    if place.rows is not None:
        if not stored.info.shape or stored.info.shape[0] < place.rows[1]:
            return None
        stored = stored.rows(*place.rows)
    return joined(_turned(stored, place))


def _shaped_like(layout: Layout, first: Layout) -> Layout:
    """1 x 1 convolutions and linear layers have the same elements: the first source's shape is used."""
    tensors = {}
    for key, stored in layout.tensors.items():
        wanted = first.tensors[key].info.shape if key in first.tensors else stored.info.shape
        alike = stored.info.shape != wanted and _bare(stored.info.shape) == _bare(wanted)
        tensors[key] = stored.shaped(wanted) if alike and not stored.turned else stored
    return replace(layout, tensors=tensors)


def _bare(shape: tuple[int, ...]) -> tuple[int, ...]:
    while len(shape) > 2 and shape[-1] == 1:
        shape = shape[:-1]
    return shape


# --- the same form in other words


def _respelled(layout: Layout, first: Layout) -> Layout:
    """The first source's spelling of keys that only differ in a prefix before the denoiser, or in CLIP's `text_model.`."""
    respelled = {
        key: next((other for other in _spellings(key) if other in first.tensors and other not in layout.tensors), key)
        for key in layout.tensors
        if key not in first.tensors
    }
    tensors = {respelled.get(key, key): stored for key, stored in layout.tensors.items()}
    return _shaped_like(replace(layout, tensors=tensors), first)


def _renamed(layout: Layout, first: Layout, family: str | None) -> Layout:
    """A single file whose denoiser has diffusers' names where the first source has the original ones, or the other way round."""
    simple = _respelled(layout, first)
    table = FAMILIES[family].file_names if family is not None and family in FAMILIES else None
    if table is None or all(key in simple.tensors for key in first.tensors):
        return simple
    own, first_names = ({_bare_name(key): stored for key, stored in one.tensors.items()} for one in (layout, first))
    component = FAMILIES[family or ""].denoiser
    forth = _table_places(table, component, own, first.tensors)
    back = _table_places(table, component, first_names, layout.tensors)
    known = {_bare_name(key): key for key in first.tensors}
    pieces = {known[name]: cut(layout.tensors.get(place.key), place) for name, place in back.items()}
    ways = (simple.tensors, gathered(own, forth), {key: stored for key, stored in pieces.items() if stored is not None})
    found = max(ways, key=lambda way: sum(key in first.tensors for key in way))
    if found is simple.tensors:
        return simple
    taken = {place.key for place in back.values()} if found is ways[2] else {key for key in layout.tensors if _bare_name(key) in forth}
    rest = {key: stored for key, stored in layout.tensors.items() if key not in taken}
    return _shaped_like(replace(layout, tensors={**found, **rest}, translated=True), first)


def _table_places(table: FileKeyMap, component: str, tensors: Mapping[str, Stored], keys: Container[str]) -> dict[str, KeyLocation]:
    try:
        return table.places(component, {}, {name: stored.info.shape for name, stored in tensors.items()}, keys)
    except KeyError:  # names that depend on a config, as a UNet's do: such files have one spelling
        return {}


def _bare_name(key: str) -> str:
    return next((key[len(prefix) :] for prefix in PREFIXES if prefix and key.startswith(prefix)), key)


def _spellings(key: str) -> Iterator[str]:
    if TEXT in key:
        yield key.replace(TEXT, "", 1)
    if key.startswith("vae/"):
        yield modern(key)
        yield from (key.replace(new, old) for old, new in OLD.items() if new in key)
    for prefix, component in SINGLE_FILE:
        if component.startswith("text_encoder") and key.startswith(prefix) and TEXT not in key:
            yield f"{prefix}{TEXT}{key[len(prefix) :]}"
    bare = _bare_name(key)
    yield from (f"{prefix}{bare}" for prefix in PREFIXES if f"{prefix}{bare}" != key)


# --- a lone part


def _part_of(part: Layout, whole: Layout, *, kind: str, family: str | None) -> Layout:
    """A lone VAE or text encoder under the keys that it has inside a checkpoint, from either form: what fits most of them."""
    prefixes = [f"{kind}/"] if whole.diffusers else [prefix for prefix, component in SINGLE_FILE if component == kind]
    ways = [replace(part, tensors={f"{prefix}{key}": stored for key, stored in part.tensors.items()}) for prefix in ("", *prefixes)]
    ways += [_into_folder(part, whole, kind, family)] if whole.diffusers else [_into_file(part, whole, kind), _from_file(part, whole, kind)]
    return _shaped_like(max(ways, key=lambda way: sum(key in whole.tensors for key in way.tensors)), whole)


def _into_folder(part: Layout, whole: Layout, kind: str, family: str | None) -> Layout:
    own = {f"{prefix}{key}": key for key in part.tensors for prefix, owner in SINGLE_FILE if owner == kind}
    found, taken = _parameters({inside: part.tensors[key] for inside, key in own.items()}, _only(whole, kind), family)
    used = {own[key] for key in taken}
    rest = {key: stored for key, stored in part.tensors.items() if key not in used}
    return replace(part, tensors={**found, **rest}, translated=True)


def _into_file(part: Layout, whole: Layout, kind: str) -> Layout:
    places = dict(_usual_places(kind, list(part.tensors), whole.tensors))
    found = gathered({name: part.tensors[name] for name in places}, places)
    rest = {name: stored for name, stored in part.tensors.items() if name not in places}
    return replace(part, tensors={**found, **rest}, translated=True)


def _from_file(part: Layout, whole: Layout, kind: str) -> Layout:
    """A lone part in the original implementation's names for a whole that is one in diffusers' names."""
    places = dict(_usual_places(kind, list(whole.tensors), part.tensors))
    taken = {place.key for place in places.values()}
    found = {name: part.tensors[place.key] for name, place in places.items()}
    rest = {key: stored for key, stored in part.tensors.items() if key not in taken}
    return replace(part, tensors={**found, **rest}, translated=True)


def _only(whole: Layout, component: str) -> Layout:
    """A folder's one component."""
    return replace(whole, tensors={key: stored for key, stored in whole.tensors.items() if key.startswith(f"{component}/")})
