"""What the section Models answers: the registry in parts, a model's facts and images, and changes by the commands' own functions."""

import hashlib
import os
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from loraloom.queue.queue import Queue
from loraloom.studio.models.grid_images import GridImages
from loraloom.studio.models.meanings import MEANINGS
from registry.formats.dialects import writable
from registry.index.catalogue.selection import Selection
from tests.infer.metadata.images import png
from tests.loraloom.studio.models.conftest import HOSTILE, MODULES, Shelf, grid
from tests.loraloom.studio.opened import Served, serving
from tests.registry.made import lora

ROOT = Path(__file__).resolve().parents[4]


def good(answer: tuple[int, Any]) -> Any:
    """The value of an answer that refuses nothing."""
    status, value = answer
    assert status == 200, value
    return value


def test_the_registry_comes_in_parts_with_counts(shelf: Shelf) -> None:
    ask = shelf.served.post
    page = good(ask("models/list", kind="adapter", sort="name", offset=2, limit=3))
    names = sorted([f"ink-{number}" for number in range(11)] + [HOSTILE.replace("/", "_")], key=str.casefold)
    assert [one["name"] for one in page["cards"]] == names[2:5] and (page["total"], page["everything"]) == (12, 14)
    with shelf.store.browse(Selection(kind="adapter")) as found:
        counts = {name: dict(one) for name, one in found.facets.items()}
    assert {name: dict(facet["values"]) for name, facet in page["facets"].items()} == counts
    assert good(ask("models/list", words=["ink-1 ink"], rank="4"))["cards"][0]["name"] == "ink-1"
    listed = good(ask("models/ids", kind="adapter", rank="8", sort="name"))["ids"]
    assert [shelf.store.find(one).name for one in listed] == ["ink-2", "ink-5", "ink-8"]
    status, refused = ask("models/list", kind="adaptr", sort="nmae")
    assert status == 400 and len(refused["faults"]) == 2
    assert ask("models/list", limit=100_000)[0] == 400 and ask("models/list", words="ink")[0] == 400


def test_a_models_page_has_every_fact(shelf: Shelf) -> None:
    record = shelf.one("ink-3")
    shelf.store.override(record.id, triggers=["inky"])
    page = good(shelf.served.get("models/one", id=record.id))
    assert page["record"]["hashes"]["sha256"] == record.hashes.sha256 and page["reference"] == "ink-3" and page["own_triggers"] == ["inky"]
    assert record.dialect == "diffusers" and set(page["forms"]) == {*writable(), "safetensors"} - {"diffusers"}
    assert [image["source"] for image in page["images"]] == ["beside"]
    assert shelf.served.get("models/one", id="ffffffffffffffff")[0] == 404
    assert shelf.served.get("models/one", id=str(shelf.models / "ink-3.safetensors"))[0] == 404, "a path is not inspected for a page"


def test_images_are_the_models_own_and_no_others(shelf: Shelf) -> None:
    served, record = shelf.served, shelf.one("ink-3")
    beside, private = shelf.models / "ink-3.preview.png", shelf.models / "private.png"
    assert served.get("image", path=beside)[0] == 400, "the models lie outside of what the Studio shows"
    path = f"/{served.token}/api/models/image?id={record.id}"
    status, headers, body = served.raw("GET", f"{path}&side=96")
    assert status == 200 and headers["Content-Type"] == "image/webp" and body[:4] == b"RIFF"
    assert served.raw("GET", f"{path}&path={beside}")[2] == beside.read_bytes()
    assert served.raw("GET", f"{path}&path={private}")[0] == 400 and served.post("models/set", id=record.id, image=str(private))[0] == 400
    shelf.store.override(record.id, image=private)  # on the command line a person may choose any
    assert served.raw("GET", path)[2] == private.read_bytes()
    assert good(served.post("models/set", id=record.id, forget=["image"]))["record"]["image"] is None
    assert served.get("models/image", id=shelf.one("ink-4").id)[0] == 404


def test_images_of_grids_are_found_by_the_models_hash(shelf: Shelf) -> None:
    record = shelf.one("ink-5")
    folder = grid(shelf.served.studio.folder / "runs" / "cmp" / "20260101-000000", str(record.hashes.sha256))
    grids = GridImages([shelf.served.studio.folder])
    assert grids.refresh(wait=10) and [one.path for one in grids.of(record.hashes.sha256)] == [folder / "images" / "a.png"]
    assert grids.of("0" * 64) == [] and grids.of(None) == []
    page = good(shelf.served.get("models/one", id=record.id))
    assert [(one["source"], one["label"], one["folder"]) for one in page["images"]] == [("grid", "seed 1", str(folder))]
    assert good(shelf.served.post("models/set", id=record.id, image=page["images"][0]["path"]))["record"]["image"].endswith("a.png")


def test_a_pipe_in_the_place_of_a_grids_cells_is_left(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "a" / "b"
    folder.mkdir(parents=True)
    os.mkfifo(folder / "cells.jsonl")
    assert GridImages((tmp_path,)).refresh(wait=10)


def test_lineage_is_a_graph_of_parents_and_children(shelf: Shelf) -> None:
    graph = good(shelf.served.get("models/lineage", id=shelf.one("ink-1").id))
    levels = {node["name"]: node["level"] for node in graph["nodes"]}
    assert levels == {"ink-0": -1, "ink-1": 0, "ink-2": 1}
    named = {node["key"]: node["name"] for node in graph["nodes"]}
    assert [(named[line["above"]], named[line["below"]]) for line in graph["lines"]] == [("ink-0", "ink-1"), ("ink-1", "ink-2")]


def test_what_fits_is_what_the_command_says(shelf: Shelf) -> None:
    record = shelf.one("ink-0")
    assert [one["name"] for one in good(shelf.served.get("models/partners", id=record.id))["partners"]] == []
    shelf.store.override(record.id, family="sd1")
    assert [one["name"] for one in good(shelf.served.get("models/partners", id=record.id))["partners"]] == ["pocket"]
    found = good(shelf.served.get("models/fits", adapter=record.id, base="pocket"))
    assert "of its modules fit" in found["text"] and 0 <= found["share"] <= 1
    assert shelf.served.get("models/fits", adapter="pocket", base=record.id)[0] == 400


def test_duplicates_and_removal(shelf: Shelf) -> None:
    lora(shelf.models / "twin.safetensors", MODULES, rank=2, seed="0", dialect="peft")
    shelf.store.add(shelf.models / "twin.safetensors")
    (found,) = good(shelf.served.get("models/duplicates"))["duplicates"]
    assert found["same"] == "weights" and {one["name"] for one in found["records"]} == {"ink-0", "twin"}
    assert good(shelf.served.post("models/remove", id=shelf.one("ink-0").id))["derived"] == ["ink-1"]
    assert (shelf.models / "ink-0.safetensors").is_file() and shelf.served.post("models/remove", id="pocket")[0] == 400


def test_an_image_names_its_models(shelf: Shelf, tmp_path: Path) -> None:
    digest = str(shelf.one("ink-2").hashes.autov2)
    hashes = f'Lora hashes: "ink-2: {digest}, other: 0123456789ab", Version: v1.10.1'
    text = f"a cat <lora:ink-2:1> <lora:other:1>\nSteps: 4, Sampler: Euler, CFG scale: 7, Seed: 1, Size: 64x64, {hashes}"
    image = png(tmp_path / "made.png", parameters=text)
    found = good(shelf.served.upload("models/image-models", image.read_bytes(), name=HOSTILE))
    assert found["tool"] == "A1111"
    named = {one["name"]: one for one in found["models"]}
    assert named["ink-2"]["id"] == shelf.one("ink-2").id and named["ink-2"]["by"] in ("sha256", "autov2") and named["other"]["id"] is None
    assert shelf.served.upload("models/image-models", b"no image", name="x.png")[0] == 400


def test_a_model_file_is_known_by_its_hashes(shelf: Shelf) -> None:
    file, ask = shelf.models / "ink-6.safetensors", shelf.served.post
    data = file.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    whole, kohya = hashlib.sha256(data).hexdigest(), hashlib.sha256(data[start:]).hexdigest()
    found = good(ask("models/file", name="renamed.safetensors", bytes=len(data), hashes={"sha256": whole, "kohya": kohya}))
    assert [(one["name"], one["file"], one["by"]) for one in found["found"]] == [("ink-6", "ink-6.safetensors", "sha256")]
    edited = good(ask("models/file", name="ink-6.safetensors", bytes=1, hashes={"sha256": "0" * 64, "kohya": kohya}))
    assert [(one["name"], one["by"]) for one in edited["found"]] in ([("ink-6", "kohya")], [("ink-6", "tensors_sha256")])
    assert good(ask("models/file", name="x", bytes=5, hashes={"sha256": "0" * 64})) == {"found": [], "likely": []}
    fresh = shelf.models / "fresh.safetensors"
    lora(fresh, MODULES, seed="fresh")
    shelf.store.scan(shelf.models)
    likely = good(ask("models/file", name="fresh.safetensors", bytes=fresh.stat().st_size, hashes={"sha256": "1" * 64}))
    assert [one["name"] for one in likely["likely"]] == ["fresh"] and likely["found"] == []
    assert ask("models/file", name="x", bytes=5, hashes={"md5": "0" * 32, "sha256": "xyz"})[0] == 400


REFUSED = [
    ["registry", "scan", "/etc"],
    ["registry", "add", "/etc/hostname"],
    ["registry", "convert", "ink-0", "--to", "kohya", "--output", "/tmp/x.safetensors"],
    ["registry", "convert", "ink-0", "--to", "kohya", "--output", "new/../../x.safetensors"],
    ["registry", "export", "ink-0", "--layout", "comfyui", "/opt/ComfyUI"],
    ["registry", "rm", "ink-0"],
    ["registry", "verify"],
    ["registry", "gc", "--apply"],
    ["train", "base=pocket"],
    ["registry"],
    [],
]


def test_jobs_of_other_commands_and_places_are_refused(shelf: Shelf) -> None:
    answers = {" ".join(words): shelf.served.post("models/queue", words=words) for words in REFUSED}
    assert {words: status for words, (status, _) in answers.items() if status not in (400, 404)} == {}
    assert all(value["error"] for _, value in answers.values()) and Queue(shelf.served.studio.home).jobs() == []


def test_a_scan_is_a_job_of_the_queue(shelf: Shelf) -> None:
    studio = shelf.served.studio
    (studio.folder / "more").mkdir()
    Queue(studio.home).pause()
    words = ["registry", "scan", "more"]
    job = good(shelf.served.post("models/queue", words=words))
    assert (job["state"], job["words"], job["folder"]) == ("waiting", words, str(studio.folder))


def test_an_export_is_planned_and_linked(shelf: Shelf) -> None:
    kohya = shelf.models / "kohya.safetensors"
    lora(kohya, MODULES, seed="kohya", dialect="kohya", metadata={"modelspec.architecture": "stable-diffusion-v1/lora"})
    shelf.store.add(kohya)
    words, folder = ["registry", "export", "kohya", "--layout", "comfyui", "ComfyUI"], shelf.served.studio.folder
    target = folder / "ComfyUI" / "models" / "loras" / "kohya.safetensors"
    plan = good(shelf.served.post("models/plan", words=words))
    assert [(one["how"], one["target"]) for one in plan["items"]] == [("link", str(target))] and not target.exists()
    assert good(shelf.served.post("models/export", words=words))["items"][0]["how"] == "hard link" and target.samefile(kohya)
    convert = ["registry", "convert", "kohya", "--to", "peft", "--output", "kohya-peft.safetensors"]
    assert good(shelf.served.post("models/plan", words=convert))["output"] == str(folder / "kohya-peft.safetensors")
    assert shelf.served.post("models/plan", words=[*convert[:-1], "/elsewhere.safetensors"])[0] == 400


def test_a_read_only_studio_changes_nothing(shelf: Shelf, tmp_path: Path) -> None:
    record = shelf.one("ink-0")
    with serving(tmp_path / "work", home=shelf.served.studio.home, read_only=True) as sealed:
        changes: dict[str, dict[str, object]] = {
            "tag": {"ids": [record.id], "add": ["x"]},
            "note": {"id": record.id, "text": "x"},
            "alias": {"id": record.id, "alias": "x"},
            "set": {"id": record.id, "family": "sdxl"},
            "remove": {"id": record.id},
            "verify": {"id": record.id},
            "queue": {"words": ["registry", "scan", "."]},
            "export": {"words": []},
        }
        assert {sealed.post(f"models/{name}", **values)[0] for name, values in changes.items()} == {403}
        assert sealed.post("models/list")[0] == 200 and sealed.get("models/one", id=record.id)[0] == 200
    assert shelf.one("ink-0") == record


def test_a_read_only_studio_shows_what_changed_and_leaves_the_index(shelf: Shelf, tmp_path: Path) -> None:
    changed, moved = shelf.one("ink-5"), shelf.one("ink-6")
    shelf.store.tag(changed.id, ["kept"])
    lora(Path(str(changed.path)), MODULES, rank=16, seed="another")
    Path(str(moved.path)).rename(shelf.models / "elsewhere.safetensors")
    before = [*shelf.store.with_ids([changed.id, moved.id])]
    with serving(tmp_path / "work", home=shelf.served.studio.home, read_only=True) as sealed:
        shown = sealed.get("models/one", id=changed.id)[1]["record"]
        assert (shown["id"], shown["rank"], shown["tags"]) == (changed.id, 16, ["kept"])
        assert [one["code"] for one in shown["warnings"]] == ["changed"]
        assert "missing" in [one["code"] for one in sealed.get("models/one", id=moved.id)[1]["record"]["warnings"]]
    assert [*shelf.store.with_ids([changed.id, moved.id])] == before


def test_an_index_that_another_process_replaced_is_opened_again(shelf: Shelf) -> None:
    served, record = shelf.served, shelf.one("ink-0")
    index = served.studio.home / "index.sqlite"
    for _ in range(8):  # every thread has opened it
        assert served.post("models/ids")[0] == 200
    shelf.store.close()
    copy = index.with_name("copy")
    with closing(sqlite3.connect(index)) as from_, closing(sqlite3.connect(copy)) as to:
        from_.backup(to)
    for ending in ("-wal", "-shm"):
        index.with_name(index.name + ending).unlink(missing_ok=True)
    copy.replace(index)
    for number in range(8):
        assert served.post("models/tag", ids=[record.id], add=[f"t{number}"]) == (200, {"changed": 1})
    assert shelf.one("ink-0").tags == tuple(f"t{number}" for number in range(8))


def test_every_code_of_a_warning_has_its_meaning() -> None:
    """The codes in the source, as arguments and as values of what is stored."""
    source = "\n".join(path.read_text() for path in sorted((ROOT / "registry").rglob("*.py")))
    codes = set(re.findall(r'Warn\(code="([a-z-]+)"', source)) | set(re.findall(r'"code": "([a-z-]+)"', source))
    assert len(codes) > 10 and codes - MEANINGS.keys() == set()


def test_what_is_read_before_tags_are_written(shelf: Shelf) -> None:
    assert good(shelf.served.post("models/unhashed", ids=[shelf.one("ink-0").id, "pocket", "none"])) == {"gone": ["none"], "bytes": 0}
    fresh = shelf.models / "fresh.safetensors"
    lora(fresh, MODULES, seed="fresh")
    shelf.store.scan(shelf.models)
    assert good(shelf.served.post("models/unhashed", ids=[shelf.one("fresh").id])) == {"gone": [], "bytes": fresh.stat().st_size}


def test_the_topic_changes_with_the_index(served: Served) -> None:
    from loraloom.studio.models.routes import changes

    before = changes(served.studio, "")
    served.studio.store.tag("pocket", ["x"])
    assert changes(served.studio, "") != before
