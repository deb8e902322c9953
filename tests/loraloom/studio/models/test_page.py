"""The section Models in Chromium: each change's command does the same to a copy of the home; dropped files find their models."""

import base64
import json
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from loraloom.cli import main
from loraloom.queue.queue import Queue
from registry.home import index_place
from registry.store import Store
from tests.infer.metadata.images import png
from tests.infer.output.opened import DESK, PHONE, faint_texts
from tests.loraloom.studio.models.conftest import HOSTILE, MODULES, Shelf, grid
from tests.patience import until
from tests.registry.made import lora

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

pytestmark = pytest.mark.browser

DROP = """([name, data, type]) => {
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  const given = new DataTransfer();
  given.items.add(new File([bytes], name, { type }));
  const event = (kind) => new DragEvent(kind, { dataTransfer: given, bubbles: true, cancelable: true });
  for (const kind of ["dragover", "drop"]) document.body.dispatchEvent(event(kind));
}"""

NOTE_DONE = """() => {
  globalThis.done = [];
  const kind = document.getElementById("command-kind"), command = document.getElementById("command");
  globalThis.noting?.disconnect();
  globalThis.noting = new MutationObserver(() => { if (kind.textContent === "Done") globalThis.done.push(command.textContent); });
  globalThis.noting.observe(kind, { childList: true });
}"""


@pytest.fixture
def troubles() -> list[str]:
    """What the page's console says; a test takes out what it expects."""
    return []


@pytest.fixture
def page(shelf: Shelf, browser: "Browser", troubles: list[str]) -> Iterator["Page"]:
    """An open page that fails its test when it reports an error."""
    opened = browser.new_page(viewport={"width": DESK["width"], "height": DESK["height"]})
    opened.on("console", lambda message: troubles.append(message.text) if message.type in ("error", "warning") else None)
    opened.on("pageerror", lambda error: troubles.append(str(error)))
    yield opened
    opened.close()
    assert troubles == []


def annotations(home: Path) -> list[Any]:
    """What people say of the models in a home, and which there are; times and turns of names aside."""
    store = Store(home)
    notes = {entry["id"]: entry for entry in store.export_notes()["records"]}
    found = [(record.id, record.name, notes.get(record.id)) for record in store.records()]
    store.close()
    return found


def words_of(command: str) -> list[str]:
    """The words of a command as a shell reads them: shlex knows no $'...', in which control characters are."""
    read = subprocess.run(["bash", "-c", f"printf '%s\\0' {command}"], capture_output=True, check=True).stdout
    return read.decode().split("\0")[:-1]


class Twin:
    """What a change on the page and its command do to two homes that are the same."""

    def __init__(self, page: "Page", home: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._page, self._home, self._folder, self._monkeypatch = page, home, folder, monkeypatch
        self.done: list[str] = []  # the commands that did the same
        self._before: list[Any] = []

    def same(self, *clicks: "Locator") -> None:
        """Click; what the bar then shows does the same to a copy of the home as it was before."""
        copy = self._folder / f"copy-{len(self.done)}"
        shutil.copytree(self._home, copy)
        self._page.evaluate(NOTE_DONE)
        for click in clicks:
            click.click()
        until(lambda: self._page.evaluate("done.length"))
        words = words_of(self._page.evaluate("done[0]"))
        now = annotations(self._home)
        assert words[0] == "loraloom" and now != self._before, words
        self._monkeypatch.setenv("LORALOOM_HOME", str(copy))
        assert main(words[1:]) == 0, words
        assert annotations(copy) == now, words
        self.done.append(words[2])
        self._before = now


@pytest.fixture
def twin(page: "Page", shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Twin:
    return Twin(page, shelf.served.studio.home, tmp_path, monkeypatch)


def test_many_are_tagged_as_the_command_does(
    shelf: Shelf, page: "Page", twin: Twin, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(300):
        lora(shelf.models / "many" / f"line-{number:03d}.safetensors", MODULES, rank=16, seed=f"many {number}")
    shelf.store.scan(shelf.models, hash=True)
    page.goto(f"{shelf.served.address}#/models")
    page.locator('.facet[data-facet="kind adapter"]').click()
    page.locator(".facet-box summary", has_text="Rank").click()
    page.locator('.facet[data-facet="rank 16"]').click()
    page.get_by_text("300 of 314 records").wait_for()
    boxes, tags = page.locator(".model-card input"), page.get_by_label("Tags", exact=True)
    boxes.nth(3).click()
    boxes.nth(6).click(modifiers=["Shift"])
    assert page.locator(".bulk").get_by_text("4 selected").is_visible()
    tags.fill("inky, -odd")
    twin.same(page.get_by_role("button", name="Add tags"))
    page.get_by_role("button", name="Select all 300").click()
    page.get_by_text("300 selected").wait_for()
    page.locator('.facet[data-facet="tag inky"] .soft', has_text="4").wait_for()
    tags.fill("-odd")
    twin.same(page.get_by_role("button", name="Remove tags"))
    page.get_by_label("Search").fill("line-29")
    page.get_by_text("10 of 314 records").wait_for()
    monkeypatch.setenv("LORALOOM_HOME", str(shelf.served.studio.home))
    capsys.readouterr()
    assert main([*shlex.split(page.locator("#command").inner_text())[1:], "--json"]) == 0
    listed = [one["name"] for one in json.loads(capsys.readouterr().out)]
    assert page.locator(".model-card strong").all_inner_texts() == listed and len(listed) == 10
    assert twin.done == ["tag"] * 2 and "text=line-29" in page.url


def test_what_a_person_says_of_a_model_is_what_the_commands_do(shelf: Shelf, page: "Page", twin: Twin) -> None:
    record = shelf.one("ink-5")
    grid(shelf.served.studio.folder / "runs" / "cmp" / "20260101-000000", str(record.hashes.sha256))
    button = page.get_by_role
    page.goto(f"{shelf.served.address}#/models/one/{record.id}")
    button("button", name="Show it on the card").wait_for()
    for label, text in (("Add tags", "a, b"), ("Add trigger words", "inky, -line"), ("Add an alias", "best"), ("Licence", "cc0-1.0")):
        field = page.get_by_label(label, exact=True)
        field.fill(text)
        twin.same(field.locator("xpath=following-sibling::button"))
    page.get_by_label("Notes").fill(f"- a list\n{HOSTILE}")
    twin.same(button("button", name="Save notes"))
    twin.same(button("button", name="Show it on the card"))
    twin.same(button("button", name="Forget the chosen one"))
    for title in ("Remove a", "Remove -line", "Remove best"):
        twin.same(page.get_by_title(title, exact=True))
    page.get_by_text("Detection is wrong").click()
    page.get_by_label("Family").fill("sdxl")
    twin.same(button("button", name="Set", exact=True))  # what is drawn anew stays open
    twin.same(button("button", name="As detected"))
    twin.same(button("button", name="Remove", exact=True).first, page.locator("dialog").get_by_role("button", name="Remove", exact=True))
    page.locator(".model-card").first.wait_for()
    assert sorted(set(twin.done)) == ["alias", "note", "rm", "set", "tag"] and (shelf.models / "ink-5.safetensors").is_file()


def test_files_find_their_models_and_the_lineage_is_walked(shelf: Shelf, page: "Page", tmp_path: Path) -> None:
    record = shelf.one("ink-6")
    page.goto(f"{shelf.served.address}#/models")
    page.locator(".model-card").first.wait_for()

    def dropped(name: str, data: bytes, kind: str = "") -> str:
        page.evaluate(DROP, [name, base64.b64encode(data).decode(), kind])
        page.locator("dialog .section > *:not(.soft)").first.wait_for()
        text: str = page.locator("dialog").inner_text()
        return text

    hashes = f'Lora hashes: "x: {record.hashes.autov2}"'
    image = png(
        tmp_path / "a.png", parameters=f"a cat <lora:x:1>\nSteps: 4, Sampler: Euler, Seed: 1, Size: 64x64, {hashes}, Version: v1.10.1"
    )
    assert "ink-6" in dropped("a.png", image.read_bytes(), "image/png")
    page.keyboard.press("Escape")
    data = (shelf.models / "ink-6.safetensors").read_bytes()
    assert "Registered under another name: ink-6" in dropped(HOSTILE.replace("/", "_") + ".safetensors", data)
    assert str(record.hashes.sha256) in page.locator("#command").inner_text()
    page.keyboard.press("Escape")
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.dumps({**json.loads(data[8:start]), "__metadata__": {"note": "another header"}}).encode()
    edited = len(header).to_bytes(8, "little") + header + data[start:]
    assert "found by kohya" in dropped("ink-6.safetensors", edited).replace("tensors_sha256", "kohya")
    page.keyboard.press("Escape")
    assert "Not registered here" in dropped("new.safetensors", data[:-4] + b"1234")
    page.keyboard.press("Escape")
    page.locator("dialog").wait_for(state="detached")
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Find by file").click()
    chooser.value.set_files(shelf.models / "ink-6.safetensors")
    page.locator("dialog").get_by_role("link", name="ink-6").click()
    page.wait_for_url(f"**/#/models/one/{record.id}")

    page.goto(f"{shelf.served.address}#/models/one/{shelf.one('ink-2').id}")
    for parent in ("ink-1", "ink-0"):
        page.locator("a.lineage-node", has_text=parent).first.focus()
        page.keyboard.press("Enter")
        page.locator(".heading h1", has_text=parent).wait_for()
    page.locator(".lineage-node.own", has_text="ink-0").wait_for()
    assert page.locator(".lineage-node").count() == 2


def test_jobs_and_exports_are_the_commands_that_are_shown(shelf: Shelf, page: "Page", troubles: list[str]) -> None:
    queue, folder = Queue(shelf.served.studio.home), shelf.served.studio.folder
    queue.pause()
    (folder / "more").mkdir()
    kohya = shelf.models / "kohya.safetensors"
    lora(kohya, MODULES, seed="kohya", dialect="kohya", metadata={"modelspec.architecture": "stable-diffusion-v1/lora"})
    record = shelf.store.add(kohya)
    inside, command = page.locator("dialog"), page.locator("#command")

    def started(button: "Locator") -> list[str]:
        """The words that the bar shows before the click, of the job that it starts."""
        button.hover()
        words = shlex.split(command.inner_text())[1:]
        before = len(queue.jobs())
        button.click()
        inside.wait_for(state="detached")
        jobs = queue.jobs()
        assert len(jobs) == before + 1 and list(jobs[-1].words) == words and jobs[-1].folder == folder
        return words

    page.goto(f"{shelf.served.address}#/models")
    page.get_by_role("button", name="Add models").click()
    page.get_by_label("Folder to look through").fill("nowhere")
    inside.get_by_role("button", name="Scan").click()
    inside.locator(".message.fault", has_text="no such file").get_by_role("button").click()
    assert "404" in troubles.pop() and troubles == []
    page.get_by_label("Folder to look through").fill("more")
    assert started(inside.get_by_role("button", name="Scan")) == ["registry", "scan", "more"]
    page.goto(f"{shelf.served.address}#/models/one/{record.id}")
    page.get_by_role("button", name="Convert").click()
    page.get_by_label("Form").select_option("peft")
    page.get_by_text("It is compared with the original").wait_for()
    assert started(inside.get_by_role("button", name="Convert"))[3:5] == ["--to", "peft"]
    page.get_by_role("button", name="Export").click()
    page.get_by_label("The tool's own folder").fill("/elsewhere")
    inside.locator(".field-fault", has_text="writes below its own folders only").wait_for()
    assert "400" in troubles.pop() and troubles == []
    page.get_by_label("The tool's own folder").fill("ComfyUI")
    inside.get_by_text("kohya, link").wait_for()
    inside.get_by_role("button", name="Export").click()
    inside.wait_for(state="detached")
    assert shlex.split(command.inner_text())[1:] == ["registry", "export", "kohya", "--layout", "comfyui", "ComfyUI"]
    assert (folder / "ComfyUI" / "models" / "loras" / "kohya.safetensors").samefile(kohya)


def test_what_another_process_changes_meanwhile_is_said(shelf: Shelf, page: "Page", troubles: list[str]) -> None:
    store, gone, kept = shelf.store, shelf.one("ink-4"), shelf.one("ink-5")
    page.goto(f"{shelf.served.address}#/models?kind=adapter")
    page.get_by_role("button", name="Select all").click()
    page.get_by_label("Tags", exact=True).fill("new")
    store.remove(gone.id)
    page.get_by_role("button", name="Add tags").click()
    page.locator(".message.fault", has_text="1 of the selected models is not registered any more").wait_for()
    assert page.locator(".bulk").get_by_text("11 selected").is_visible() and shelf.one("ink-5").tags == ()
    page.get_by_role("button", name="Add tags").click()
    page.locator(".message", has_text="Tags of 11 models changed").wait_for()
    page.goto(f"{shelf.served.address}#/models/one/{kept.id}")
    page.get_by_label("Notes").fill("mine")
    store.note(kept.id, HOSTILE)
    page.locator(".card .note", has_text="changed meanwhile").wait_for()
    assert HOSTILE in page.locator(".card .note").inner_text() and page.get_by_label("Notes").input_value() == "mine"
    page.get_by_role("button", name="Save notes").click()
    page.locator(".card .note").wait_for(state="detached")
    assert shelf.one("ink-5").notes == "mine"


def test_a_dropped_file_that_is_no_model_is_not_to_be_registered(shelf: Shelf, page: "Page", tmp_path: Path) -> None:
    page.goto(f"{shelf.served.address}#/models")
    page.locator(".model-card").first.wait_for()
    image = png(tmp_path / "a.png", parameters="a cat\nSteps: 4, Sampler: Euler, Seed: 1, Size: 64x64, Model: x")
    for name, data, said, command in (
        ("notes.txt", b"text", "neither an image nor a model file", ""),
        ("old.ckpt", b"pickle", "can run code", "registry convert --output old.safetensors --to safetensors old.ckpt"),
        ("cut.safetensors", b"\xff" * 20, "no whole safetensors file", ""),
        ("--help.png", image.read_bytes(), "Made by A1111", "registry find -- --help.png"),
    ):
        page.evaluate(DROP, [name, base64.b64encode(data).decode(), ""])
        page.locator("dialog", has_text=said).wait_for()
        assert page.locator("#command").inner_text() == (f"loraloom {command}" if command else "")
        assert "registry add FOLDER" not in page.locator("dialog").inner_text()
        page.keyboard.press("Escape")
        page.locator("dialog").wait_for(state="detached")


def test_an_adapter_of_two_families_is_converted_for_the_chosen_one(shelf: Shelf, page: "Page", troubles: list[str]) -> None:
    page.goto(f"{shelf.served.address}#/models/one/{shelf.one('ink-6').id}")
    page.get_by_role("button", name="Convert").click()
    page.locator("dialog .field-fault", has_text="nothing in it decides").wait_for()
    page.locator("dialog").get_by_label("Family").select_option("sd1")
    page.get_by_text("It is compared with the original").wait_for()
    page.locator("dialog").get_by_role("button", name="Convert").hover()
    assert "--family sd1" in page.locator("#command").inner_text()
    assert "400" in troubles.pop()


def test_whether_a_file_that_is_gone_fits_is_not_known(shelf: Shelf, page: "Page", troubles: list[str]) -> None:
    record = shelf.one("ink-7")
    shelf.store.override(record.id, family="sd1")
    Path(str(record.path)).unlink()
    page.goto(f"{shelf.served.address}#/models/one/{record.id}")
    row = page.locator('.fits li[data-fits="unknown"]')
    page.locator(".fits li button").first.click()
    assert "cannot be opened" in row.inner_text()
    assert "not known" in row.locator(".fit-answer").evaluate("(one) => getComputedStyle(one, '::before').content")
    assert "400" in troubles.pop()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_read_on_a_phone_and_a_desk(shelf: Shelf, page: "Page", scheme: Any) -> None:
    record = shelf.one("ink-3")
    shelf.store.note(record.id, HOSTILE)
    shelf.store.tag(record.id, [HOSTILE, "x" * 200])
    shelf.store.override(record.id, licence="x" * 400)
    page.emulate_media(color_scheme=scheme)
    for size in (DESK, PHONE):
        page.set_viewport_size({"width": size["width"], "height": size["height"]})
        for place, ready in (
            ("", ".model-card img"),
            ("?view=table", ".models-table td"),
            (f"/one/{record.id}", ".lineage p, .lineage svg"),
            ("/duplicates", ".nothing"),
        ):
            page.goto(f"{shelf.served.address}?{size['width']}#/models{place}")
            page.locator(ready).first.wait_for()
            count, faint = faint_texts(page)
            assert count > 8 and faint == {}, (size, place)
            assert page.evaluate("document.documentElement.scrollWidth") <= size["width"], (size, place)
            unlabelled = "all => all.filter((one) => !one.labels?.length && !one.getAttribute('aria-label')).map((one) => one.outerHTML)"
            assert page.locator("input, select, textarea").evaluate_all(unlabelled) == []
            assert page.title() != "owned"


def test_an_address_that_selects_nothing_says_what_is_known(shelf: Shelf, page: "Page", troubles: list[str]) -> None:
    page.goto(f"{shelf.served.address}#/models?kind=adaptr&sort=bigest")
    said = page.locator(".models-body [role=alert]")
    said.get_by_text("Unknown order 'bigest'. Known: name, newest, oldest, size.").wait_for()
    assert "Did you mean 'adapter'? There are: adapter, checkpoint" in said.inner_text()
    assert page.locator(".message").count() == 0
    page.get_by_role("button", name="Clear all filters and the order").click()
    page.locator(".model-card").first.wait_for()
    assert page.get_by_label("Order").input_value() == "" and "sort" not in page.url and "kind" not in page.url
    place = index_place(shelf.served.studio.home)
    assert isinstance(place, Path)
    for file in place.parent.glob(f"{place.name}*"):
        file.write_bytes(b"no index" * 1000) if file == place else file.unlink()
    page.reload()
    said.get_by_text("loraloom registry rebuild").wait_for()
    assert page.get_by_role("button", name="Try again").is_enabled() and page.get_by_role("button", name="Clear all filters").count() == 0
    assert page.get_by_role("button", name="Select all 0").is_disabled()
    assert [one for one in troubles if "400" not in one] == []
    troubles.clear()  # the browser's own words about the answer 400


def test_what_is_read_again_behind_a_dialog_leaves_its_command(shelf: Shelf, page: "Page") -> None:
    page.goto(f"{shelf.served.address}#/models")
    page.locator(".model-card").first.wait_for()
    data = (shelf.models / "ink-6.safetensors").read_bytes()
    page.evaluate(DROP, ["x.safetensors", base64.b64encode(data).decode(), ""])
    page.get_by_text("Registered under another name").wait_for()
    found = page.locator("#command").inner_text()
    lora(shelf.models / "one-more.safetensors", MODULES, seed="one more")
    shelf.store.scan(shelf.models)
    page.locator(".model-card", has_text="one-more").wait_for(state="attached")
    assert found.startswith("loraloom registry find ") and page.locator("#command").inner_text() == found
