"""What a new run begins with, its settings, the words of an earlier run, and a start that the command line does too."""

import json
import shutil
from pathlib import Path

import pytest

from loraloom.cli import main
from loraloom.commands.train import job
from loraloom.hydra.arguments import read_arguments
from loraloom.hydra.composer import Composer
from loraloom.queue.queue import Queue
from loraloom.studio.new_run.settings import FIRST, NOT_SHOWN, other_tools, words_of_run
from loraloom.studio.new_run.sources import Source, matching, sources
from loraloom.studio.planning.child import described
from registry.formats.atomic_file import write_text
from registry.store import Store
from tests.infer.output.opened import NASTY
from tests.loraloom.studio.opened import Served, serving
from tests.loraloom.studio.runs.made import make_run
from train.config import TrainConfig, changed, to_yaml
from train.output.folder import CONFIG
from train.plan.defaults import defaults_of_settings
from train.run_report.settings import changed_settings


def test_folders_with_images_and_trained_bases_are_offered(served: Served) -> None:
    root = served.studio.folder
    for place in ("hat/a.png", "hat/heldout/b.png", "deep/er/cap/a.webp", ".hidden/a.png", "runs/x/a.png", "texts/a.txt"):
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        (root / place).touch()
    there = served.studio.home.parent / "registered"
    there.mkdir()
    Store(served.studio.home).add_dataset(there, name="mine", sha256="ab" * 32, metadata={"pictures": 3})
    found = sources(served.studio)
    assert [one.given for one in found.data] == [str(there), "deep/er/cap", "hat"] and not found.cut
    assert found.data[0].about == "mine, 3 images" and found.data[2].about == "1 images"
    assert "pocket" in [one.given for one in found.bases]
    assert served.get("new_run/sources", text="CAP 1")[1]["data"] == [{"given": "deep/er/cap", "about": "1 images"}]
    assert matching([Source(given=NASTY, about="")], "</script>") and matching(found.data, "none") == []


def test_every_setting_has_its_type_and_choices() -> None:
    rows = {row["name"]: row for row in described(job())["settings"]}
    assert {*FIRST, *NOT_SHOWN, "base", "data.path"} <= rows.keys()
    assert rows["precision"]["choices"] == ["auto", "fp32", "bf16", "fp16"] and rows["precision"]["closed"]
    assert rows["compile"]["choices"] == ["blocks"] and not rows["compile"]["closed"]
    assert rows["gradient_checkpointing"]["choices"] == ["true", "false"] and rows["steps"]["choices"] == []
    assert {"adamw", "prodigy"} <= {*rows["optim.name"]["choices"]} and {"lora", "lokr"} <= {*rows["lora.kind"]["choices"]}
    assert rows["lora.params.init"]["choices"] and rows["data.trigger"]["help"]


def test_the_names_of_other_tools_lead_to_settings() -> None:
    found = other_tools()
    assert found["network_dim"] == "here this is lora.rank=VALUE." and "checkpoint.every" in found["save_every_n_steps"]
    assert found["network_dropout"].startswith("there is no such setting here")


def test_the_settings_of_an_earlier_run_come_back_as_words(tmp_path: Path, served: Served) -> None:
    prompts = [NASTY, "null", "a, b"]
    folder = make_run(tmp_path, data__trigger=NASTY, preview__prompts=prompts, lora__rank=4, optim__lr=2e-4, optim__betas=[0.5, 0.9])
    words = [f"{name}={text}" for name, text in words_of_run(served.studio, folder)]
    made = job()
    config = Composer(made, read_arguments("train", words, aliases=made.aliases)).request().config
    assert config.preview.prompts == prompts and config.data.trigger == NASTY
    from train.output.folder import read_config

    assert changed_settings(config) == changed_settings(read_config(folder))


def test_what_follows_from_other_settings_is_not_filled_in(tmp_path: Path, served: Served) -> None:
    """As a plan makes it again: the alpha of another rank, the options of another optimizer, which would refuse those of this one."""
    given = {
        "lora.rank": 4,
        "steps": 40,
        "checkpoint.every": 7,
        "optim.betas": [0.5, 0.9],
        "optim.name": "adamw",
        "objective.timesteps": "uniform",
    }
    begun = changed(TrainConfig(), {"name": "ink", "data.path": "datasets/ink", "preview.prompts": ["a bell"], **given})
    filled = changed(begun, defaults_of_settings(begun, "uniform"))
    assert filled.lora.alpha == 4.0 and filled.heldout.every == 4 and filled.preview.every == 7 and filled.optim.weight_decay is not None
    folder = make_run(served.studio.folder)
    write_text(folder / CONFIG, to_yaml(filled))
    words = dict(served.get("new_run/from", path=folder)[1]["words"])
    assert {"checkpoint.every": "7", "optim.betas": "[0.5,0.9]", "steps": "40", "lora.rank": "4"}.items() <= words.items()
    assert not {"lora.alpha", "heldout.every", "preview.every", "optim.weight_decay", "optim.params.eps"} & {*words}

    def composed(words: dict[str, str]) -> TrainConfig:
        made = job()
        config = (
            Composer(made, read_arguments("train", [f"{name}={text}" for name, text in words.items()], aliases=made.aliases))
            .request()
            .config
        )
        return changed(config, defaults_of_settings(config, "uniform"))

    assert composed(words) == filled
    assert composed({**words, "lora.rank": "16", "optim.name": "prodigy"}).lora.alpha == 16.0


@pytest.mark.slow
def test_a_run_of_a_job_comes_back_as_it_was_given(served: Served) -> None:
    """Without what its plan filled in; of a run that was resumed with changes the settings that it has."""
    words = ["experiment=ink", "name=x", "data.path=ink", f"data.trigger={NASTY}", "lora.rank=4", "steps=30", "precision=auto"]
    made = job()
    composed = Composer(made, read_arguments("train", words, aliases=made.aliases)).request().config
    filled = {
        "lora.alpha": 4.0,
        "heldout.every": 10,
        "optim.betas": [0.9, 0.999],
        "precision": "fp32",
        "objective.timesteps": "uniform",
        "resolution": 64,
        "data.path": str(served.studio.folder / "ink"),
    }
    folder = make_run(served.studio.folder, "x")
    write_text(folder / CONFIG, to_yaml(changed(composed, filled)))
    queue = Queue(served.studio.home)
    queue.pause()
    for one in (words, [f"resume={folder}"]):
        begun = queue.folder / queue.add(["train", *one], folder=served.studio.folder).id
        (begun / "made.jsonl").write_text(json.dumps(str(folder)) + "\n")
    status, answer = served.get("new_run/from", path=folder)
    assert status == 200 and [f"{name}={text}" for name, text in answer["words"]] == words
    write_text(folder / CONFIG, to_yaml(changed(composed, {**filled, "steps": 60})))
    resumed = dict(served.get("new_run/from", path=folder)[1]["words"])
    assert resumed["steps"] == "60" and resumed["resolution"] == "64" and not {"experiment", "lora.alpha"} & {*resumed}


def test_a_start_is_that_of_the_command_line(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    Queue(served.studio.home).pause()
    Queue(served.studio.home).add(["registry", "list"], folder=served.studio.folder)
    copy = served.studio.home.parent / "copy"
    shutil.copytree(served.studio.home, copy)
    words = ["data.path=set", f"data.trigger={NASTY}", "steps=3"]
    status, answer = served.post("new_run/start", words=words, first=True)
    assert status == 200 and answer["state"] == "waiting"
    monkeypatch.setenv("LORALOOM_HOME", str(copy))
    monkeypatch.chdir(served.studio.folder)
    assert main(["queue", "add", "--first", "train", *words]) == 0
    assert [job.words for job in Queue(copy).jobs()] == [job.words for job in Queue(served.studio.home).jobs()]
    assert Queue(copy).jobs()[0].words == ("train", *words)


def test_a_start_is_refused_with_all_faults(served: Served) -> None:
    status, answer = served.post("new_run/start", words=["stepz=3", "lora.rank=x"])
    assert status == 400 and len(answer["faults"]) == 2 and "Did you mean 'steps'?" in answer["error"]


def test_a_read_only_studio_plans_nothing(tmp_path: Path) -> None:
    with serving(tmp_path, home=tmp_path / "home", read_only=True) as sealed:
        assert sealed.post("new_run/plan", words=["data.path=/"], number=1)[0] == 403
        assert sealed.post("grids/plan", form={}, number=1)[0] == 403
