"""A run's checkpoints chosen by votes through the page's own addresses: a planted taste is found and kept, a random one changes nothing."""

import json
import os
import signal
import threading
import webbrowser
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit

import pytest
from safetensors import safe_open
from safetensors.torch import load_file

from infer.vote.page.images import bare_image
from infer.vote.votes import NAME, read_votes
from loraloom.cli import main
from registry.formats.hashing import hash_file
from registry.store import Store
from tests.disks import close_folder
from tests.patience import PATIENCE
from tests.train.conftest import short_run
from train import run
from train.choosing.candidates import spaced
from train.choosing.choice import plan_choice
from train.choosing.drawn import AXIS, drawn_grid
from train.config import CheckpointConfig, OptimConfig, PreviewConfig

PROMPTS = [f"a disc, number {number}" for number in range(9)]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def folder(base: Path, images: Path, home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with checkpoints at steps 2 and 4, registered as discs."""
    preview = PreviewConfig(prompts=["a disc"], steps=2, every=100)
    config = short_run(
        base,
        images,
        tmp_path_factory.mktemp("runs"),
        preview=preview,
        checkpoint=CheckpointConfig(every=2, keep=4),
        optim=OptimConfig(lr=0.2),
    )
    return run.run(config, Store(home)).folder


@pytest.fixture(autouse=True)
def at_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORALOOM_HOME", str(home))


def words(folder: Path, *more: str) -> list[str]:
    return ["choose", str(folder), *(word for text in PROMPTS for word in ("--prompt", text)), "--seeds", "1", *more]


class Voter:
    """Votes by what it sees, through HTTP, then ends the command as Ctrl-C does: a shell may have SIGINT ignored."""

    def __init__(self, named: dict[bytes, str], choose: Callable[[str, str], str]) -> None:
        self.named, self.choose, self.votes = named, choose, 0

    def open(self, address: str) -> bool:
        threading.Thread(target=self.vote, args=(address,), daemon=True).start()
        return True

    def vote(self, address: str) -> None:
        try:
            place = urlsplit(address)
            connection = HTTPConnection(str(place.hostname), int(place.port or 0), timeout=PATIENCE)

            def ask(method: str, path: str, body: Any = None) -> bytes:
                data = None if body is None else json.dumps(body)
                connection.request(method, place.path + path, data, {"Content-Type": "application/json"})
                return connection.getresponse().read()

            state = json.loads(ask("POST", "start", {"voter": "anna"}))
            while (trial := state["trial"]) is not None:
                left, right = (self.named[ask("GET", f"image/{trial[side]}")] for side in ("left", "right"))
                body = {"voter": "anna", "id": trial["id"], "choice": self.choose(left, right), "seconds": 1.0}
                state = json.loads(ask("POST", "vote", body))
                self.votes += 1
        finally:
            os.kill(os.getpid(), signal.SIGTERM)


def voted(given: list[str], choose: Callable[[str, str], str], monkeypatch: pytest.MonkeyPatch) -> Voter:
    """Draw, and vote on the page that the command opens."""
    store = Store()
    choice = plan_choice(Path(given[1]), store, given_prompts=PROMPTS, seeds=1)
    named = {bare_image(cell.image): cell.values[AXIS] for cell in drawn_grid(choice, store).cells if cell.image is not None}
    assert len(named) == len(choice.grid.cells)  # every image is another, so the voter can know them
    voter = Voter(named, choose)
    monkeypatch.setattr(webbrowser, "open", voter.open)
    assert main([*given, "--open", "--count", "150"]) == 0
    return voter


@pytest.mark.slow
def test_the_plan_counts_and_draws_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(folder, "--dry-run", "--json")) == 0
    planned = json.loads(capsys.readouterr().out)
    assert planned["candidates"] == ["base", "step 2, weight 0.7", "step 2, weight 1", "step 4, weight 0.7", "step 4, weight 1"]
    assert main(["choose", "discs", *words(folder)[2:], "--dry-run", "--json"]) == 0  # the run's name
    assert json.loads(capsys.readouterr().out) == planned
    assert main(["choose", "dics", "--dry-run"]) == 2 and "No run is registered as 'dics'" in capsys.readouterr().err
    assert planned["alias"] == "discs@best" and planned["grid"]["cells"] == 5 * 9 and not (folder / "choosing").exists()
    assert main(["choose", str(folder), "--dry-run", "--weights", "0.5", "--checkpoints", "last"]) == 0
    said = capsys.readouterr().out
    assert (
        "1 candidate and the base on 3 prompts: 12 images, 12 to draw" in said and "step 4, weight 0.5" in said
    )  # three held-out captions


@pytest.mark.slow
def test_a_random_voter_changes_nothing_and_a_planted_taste_is_kept(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.read_bytes() for path in (folder / "checkpoints").rglob("*.safetensors")}
    random = Random(3)
    voter = voted(words(folder), lambda left, right: random.choice(["left", "right"]), monkeypatch)
    said = capsys.readouterr().out
    assert voter.votes >= 80 and "Cannot tell" in said and "Nothing is changed." in said
    assert not list((folder / "choosing").glob("*.safetensors")) and Store().find("discs@last").path == str(
        folder / "checkpoints/step-000004/adapter.safetensors"
    )
    (votes,) = (folder / "choosing").glob(f"*/*/{NAME}")
    assert len(read_votes(votes).votes) == voter.votes
    votes.unlink()

    planted = "step 2, weight 0.7"
    voted(words(folder), lambda left, right: {left: "left", right: "right"}.get(planted, "tie"), monkeypatch)
    said = capsys.readouterr().out
    assert "step 2, weight 0.7 wins" in said and "discs@best is step 2 now. Draw it at a weight of 0.7." in said
    assert main(words(folder, "--no-vote", "--json")) == 0  # images and votes are there: the same again
    found = json.loads(capsys.readouterr().out)
    assert found["winner"] == {"step": 2, "weight": 0.7} and found["weight"] == 0.7 and found["alias"] == "discs@best"
    record = Store().find("discs@best")
    assert (record.path, record.hashes.sha256) == (found["adapter"], found["sha256"]) and Store().find(
        f"sha256:{found['sha256']}"
    ) == record
    _kept(folder, record)
    assert {path: path.read_bytes() for path in before} == before  # a resume verifies them
    assert len(list((folder / "choosing").glob("*/*/cells.jsonl"))) == 1  # one grid for all of it


def _kept(folder: Path, record: Any) -> None:
    """The chosen file: the checkpoint's tensors, the weight in its header and beside it, the run among its parents."""
    source = folder / "checkpoints/step-000002/adapter.safetensors"
    own, expected = load_file(record.path), load_file(source)
    assert own.keys() == expected.keys() and all(own[name].equal(expected[name]) for name in own)
    with safe_open(record.path, "pt") as file, safe_open(source, "pt") as checkpoint:
        metadata, was = file.metadata(), checkpoint.metadata()
    assert json.loads(metadata["loraloom.recommended_weight"]) == 0.7 and metadata["modelspec.usage_hint"].startswith("weight 0.7, ")
    assert {key: value for key, value in metadata.items() if key in was} == was
    assert json.loads(Path(record.path).with_suffix(".json").read_text())["preferred weight"] == 0.7
    assert record.metadata["sidecar.preferred_weight"] == 0.7 and record.hashes.kohya == hash_file(source)[0].kohya
    assert [parent["role"] for parent in record.parents] == ["base", "dataset", "run"]


@pytest.mark.slow
def test_a_static_page_and_its_votes_back(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = words(folder, "--checkpoints", "2", "--weights", "1")
    page, back = tmp_path / "vote.html", tmp_path / "votes.json"
    assert main([*given, "--html", str(page)]) == 0
    text = page.read_text(encoding="utf-8").split('<script id="data" type="application/json">')[1].split("</script>")[0]
    data = json.loads(text)
    at = "2026-01-31T12:00:00+00:00"
    votes = [
        {"id": f"v{number}", "left": left, "right": right, "choice": "tie", "voter": "bob", "seconds": 2.0, "at": at}
        for number, (left, right, _) in enumerate(data["trials"])
    ]
    back.write_text(json.dumps({"format": data["format"], "salt": data["salt"], "votes": votes}))
    capsys.readouterr()
    assert main([*given, "--votes", str(back), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["winner"] is None and found["alias"] is None and found["votes"] == 9
    assert [(row["step"], row["ties"]) for row in found["candidates"]] in ([(None, 9), (2, 9)], [(2, 9), (None, 9)])


@pytest.mark.slow
def test_all_faults_come_at_once(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gone = str(tmp_path / "gone.txt")
    assert main(["choose", str(folder), "--weights", "0,1", "--checkpoints", "3", "--prompt", f"@{gone}"]) == 2
    error = capsys.readouterr().err
    named = f"'@{gone}' names a file of prompts that cannot be read"
    assert all(part in error for part in ("--weights 0,1: expected", "there is no 3: it is not kept. Kept are 2, 4", named))
    assert main(["choose", str(tmp_path / "none")]) == 2 and "there is no such folder" in capsys.readouterr().err
    assert main(words(folder, "--no-vote", "--html", str(tmp_path / "a.html"))) == 2 and "give one of them" in capsys.readouterr().err
    assert main(words(folder, "--votes", gone)) == 2 and "no such file of votes" in capsys.readouterr().err


@pytest.mark.slow
def test_a_home_that_keeps_no_images_is_one_error(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "closed").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LORALOOM_HOME", str(tmp_path / "closed"))
        close_folder(tmp_path / "closed", patch)
        assert main(words(folder, "--no-vote", "--weights", "0.5")) in (1, 2)
    assert capsys.readouterr().err.count("the disk is read-only") == 1


def test_a_few_checkpoints_over_the_run() -> None:
    kept = [10, 20, 30, 40, 50, 60, 70, 80]
    assert spaced(kept, 20, 3) == (20, 50, 80)
    assert spaced(kept, None, 3) == (20, 40, 80) and spaced(kept, 80, 3) == (20, 40, 80) and spaced([5], None, 3) == (5,)
