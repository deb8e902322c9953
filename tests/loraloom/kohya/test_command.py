"""`loraloom train --from-kohya`: the page's files as written, the command printed, planned and run."""

import json
import re
from pathlib import Path

import pytest

from loraloom.cli import main
from loraloom.commands.train import job
from loraloom.hydra.run import configure
from loraloom.kohya.convert import spelt

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "coming-from.md").read_text(encoding="utf-8")


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The page's two files, in a home of their own."""
    monkeypatch.setenv("LORALOOM_HOME", str(tmp_path / "home"))
    blocks = dict(re.findall(r"`(\w+\.toml)`:\n\n```toml\n(.*?)```", PAGE, re.DOTALL))
    assert [*blocks] == ["config.toml", "dataset.toml"]
    for name, text in blocks.items():
        (tmp_path / name).write_text(text.replace('"datasets/ink"', f'"{ROOT / "datasets" / "ink"}"'), encoding="utf-8")
    return [str(tmp_path / name) for name in blocks]


@pytest.mark.slow
def test_the_page_s_files_are_settings(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--from-kohya", *files, "--print", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    settings = found["settings"]
    config = configure(job(), *(f"{name}={spelt(value)}" for name, value in settings.items()))
    assert (config.base, config.lora.rank, config.lora.targets, config.prompt_chunks) == ("pocket", 8, "attention_mlp", 2)
    assert (config.optim.lr, config.optim.betas, config.objective.weighting) == (1e-3, [0.9, 0.99], "min_snr")
    assert (config.epochs, config.seed, config.batch_size, config.resolution) == (10, 7, 4, 128)
    assert (config.schedule.warmup_steps, config.checkpoint.every) == (10, 50), "five of ten epochs of 10 steps"
    assert found["sources"]["checkpoint.every"] == "save_every_n_epochs" and [*found["ignored"]] == ["cache_latents", "xformers"]


@pytest.mark.slow
def test_the_page_s_files_are_trained(files: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    given = [f"out={tmp_path / 'runs'}", "steps=2", "schedule.warmup=0", "checkpoint.every=2", "preview.prompts=[]"]
    assert main(["train", "--from-kohya", *files, *given]) == 0
    folder = Path(capsys.readouterr().out.strip())
    assert json.loads((folder / "result.json").read_text(encoding="utf-8"))["steps"] == 2


def test_faults_end_with_code_2(files: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    Path(files[0]).write_text('pretrained_model_name_or_path = "nowhere"\nnetwrok_dim = 4\n', encoding="utf-8")
    assert main(["train", "--from-kohya", *files]) == 2
    error = capsys.readouterr().err
    assert "netwrok_dim is no argument" in error and "nowhere" in error and "network_module is missing: networks.lora" in error
    assert main(["train", "--from-kohya", "steps=4"]) == 2
    assert "--from-kohya needs sd-scripts' TOML files" in capsys.readouterr().err
