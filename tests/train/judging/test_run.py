"""The judgement of real runs: what is drawn and written, and what is refused."""

import json
import shutil
from pathlib import Path

import pytest

from loraloom.cli import main
from registry.errors import Refused
from registry.store import Store
from tests.disks import close_folder
from tests.infer.score.models import models
from tests.train.conftest import short_run
from tests.train.judging.faces.yunet import yunet
from train import run
from train.config import PreviewConfig
from train.judging.run import plan_judging
from train.run_report.page import page
from train.run_report.report import make_report


@pytest.mark.slow
def test_a_run_is_judged_by_the_images_of_its_checkpoints(
    base: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three held-out prompts: everything is drawn and measured, and nothing can be told from so few."""
    monkeypatch.setenv("LORALOOM_HOME", str(tmp_path / "home"))
    preview = PreviewConfig(prompts=["a disc"], steps=2)
    swapped = {"gradient_checkpointing": True, "swap_blocks": 2}
    config = short_run(base, images, tmp_path / "runs", steps=2, preview=preview, **swapped)
    folder = run.run(config, Store(tmp_path / "home")).folder
    given = ["judge", str(folder), "--generic", "a house", "--json"]
    assert main([*given, "--dry-run"]) == 0
    planned = json.loads(capsys.readouterr().out)
    prompts, steps = planned["grids"]["heldout"]["axes"]["prompt"], planned["checkpoints"]
    assert planned["grids"]["heldout"]["axes"]["adapter"] == ["base", *(f"step {step}" for step in steps)]
    assert planned["grids"]["heldout"]["to_draw"] == (len(steps) + 1) * len(prompts) * 2 and not (folder / "judgement").exists()
    assert main(given) == 0
    value = json.loads(capsys.readouterr().out)
    assert [row["step"] for row in value["checkpoints"]] == steps and value == json.loads((folder / "judgement.json").read_text())
    assert "cannot tell" in value["sentence"] and value["steps"] == [] and any("too few for intervals" in note for note in value["notes"])
    assert all((Path(grid) / "sheet.png").is_file() for grid in value["grids"])
    assert all("swap_blocks: 2\n" in (Path(grid) / "config.yaml").read_text() for grid in value["grids"]), "drawn as the run's previews"
    assert "These images cannot tell" in page(make_report(folder))
    assert main(given) == 0 and json.loads(capsys.readouterr().out)["checkpoints"] == value["checkpoints"]  # from the store
    _measured_by_models(given, tmp_path, capsys)
    _refused_by_a_read_only_home(folder, tmp_path, capsys)
    (folder / "judgement.json").write_text('{"sentence": 5}')
    assert main(["report", str(folder)]) == 2 and "judgement.json" in capsys.readouterr().err
    shutil.rmtree(folder / "checkpoints")
    (folder / "judgement.json").unlink()
    with pytest.raises(Refused, match="no checkpoints to compare"):
        plan_judging(folder, Store(tmp_path / "home"))


def _measured_by_models(given: list[str], place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The images are in the store: models by path measure them, and faults of all models come together before anything is drawn."""
    clip, net = place / "clip", place / "net.pt"
    models.clip(clip)
    models.torchscript(net)
    models.onnx(place / "arc.onnx", side=112)
    yunet(place / "yunet.onnx", everywhere=True)
    faces = ["--faces", str(place / "arc.onnx"), "--face-detector", str(place / "yunet.onnx")]
    with_models = [
        *given,
        *faces,
        "--embed",
        str(clip),
        "--embed",
        str(net),
        "--clip",
        str(clip),
        "--embed-size",
        "32",
        "--generic",
        "a tree",
    ]
    assert main([*with_models, "--dry-run"]) == 0
    planned = json.loads(capsys.readouterr().out)["models"]
    assert [model["name"] for model in planned["embed"]] == ["CLIPModel", "Net"] and planned["clip"]["path"] == str(clip)
    assert main([part for part in with_models if part != "--json"]) == 0
    assert f"likeness by Net of {net}" in capsys.readouterr().out
    value = json.loads((Path(given[1]) / "judgement.json").read_text())
    assert [model["model"] for model in value["embeddings"]] == planned["embed"]
    steps = [row["step"] for row in value["checkpoints"]]
    assert all([row["step"] for row in model["checkpoints"]] == steps for model in value["embeddings"])
    assert [row["faces"] for row in value["faces"]["checkpoints"]] == [6] * (len(steps) + 1) and value["faces"]["without"] == []
    assert "these images cannot tell" in value["faces"]["sentence"]
    parts = value["prompt_following"]
    assert [row["step"] for row in parts["heldout"]] == [row["step"] for row in parts["generic"]] == [0, *steps]
    shown = page(make_report(Path(given[1])))
    assert f"Likeness by CLIPModel of {clip}" in shown and "Prompts followed, by CLIPModel" in shown
    wrong = ["--embed", str(place / "none"), "--embed", str(place), "--clip", str(net), "--embed-size", "5"]
    assert main([*given, *wrong]) == 2
    error = capsys.readouterr().err
    assert all(word in error for word in ("--embed-size must be", "no such file or folder", "has no config.json", "--clip", "it is a file"))
    assert main(["judge", str(place / "gone"), *wrong]) == 2 and "has no config.json" in capsys.readouterr().err


def _refused_by_a_read_only_home(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The images are kept in the home: where nothing can be written to it, one error names the place."""
    (tmp_path / "closed").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LORALOOM_HOME", str(tmp_path / "closed"))
        close_folder(tmp_path / "closed", patch)
        assert main(["judge", str(folder), "--generic", "a house"]) in (1, 2)
    assert capsys.readouterr().err.count("the disk is read-only") == 1
