"""`loraloom merge` and `loraloom lora` as a person types them: plans, runs, refusals, the files a program reads."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from loraloom.cli import main
from tests.registry.adapters.made_adapters import CONV, checkpoint, lora
from tests.registry.merging.models import read, tensors, written


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory with a home of its own, two models and two adapters with their base."""
    monkeypatch.setenv("LORALOOM_HOME", str(tmp_path / "home"))
    work = tmp_path / "work"
    for name, seed in (("a", 1), ("b", 2)):
        written(work / f"{name}.safetensors", tensors(seed))
    checkpoint(work / "base.safetensors")
    lora(work / "ink.safetensors", 100)
    lora(work / "hat.safetensors", 200, spelling="diffusers")
    monkeypatch.chdir(work)
    return work


def said(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    """What a command answers on stdout."""
    assert main(list(words)) == code
    return capsys.readouterr().out


def test_a_plan_needs_neither_torch_nor_numpy() -> None:
    words = ["merge", "method=dare_linear", "sources=[a.safetensors,a.safetensors,b.safetensors]", "output=c.safetensors", "dry_run=true"]
    program = f"import sys; from loraloom.cli import main; print('\\n', main({words!r}), sorted({{'torch', 'numpy'}} & set(sys.modules)))"
    child = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert child.stdout.splitlines()[-1].split(maxsplit=1) == ["0", "[]"], child.stderr


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What a refused command says on stderr."""
    assert main(list(words)) == 2
    return capsys.readouterr().err


BOTH = "sources=[a.safetensors,b.safetensors]"


@pytest.mark.slow
def test_a_merge_leaves_a_run_folder_and_a_registered_model(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    folder = Path(said(capsys, "merge", "method=weighted_sum", BOTH, "params.alpha=0.3", "name=mix").strip())
    result = json.loads((folder / "result.json").read_text())
    assert set(result) == {"output", "sha256", "tensors_sha256", "content_sha256", "method", "keys", "seconds", "peak_mib"}
    assert Path(result["output"]) == folder / "mix.safetensors" and result["keys"] == {"merged": 29, "copied": 1, "skipped": 0}
    shown: dict[str, Any] = json.loads(said(capsys, "registry", "show", "mix", "--json"))
    assert shown["hashes"]["sha256"] == result["sha256"] and shown["recipe"]["params"] == {"alpha": 0.3}
    assert "the same bytes" in said(capsys, "merge", "reproduce", "mix")


@pytest.mark.slow
def test_a_recipe_file_is_taken_with_what_is_given_beside_it(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    folder = Path(said(capsys, "merge", "method=weighted_sum", BOTH, "params.alpha=0.3", "output=one.safetensors").strip())
    again = said(capsys, "merge", f"recipe={folder / 'recipe.yaml'}", "name=again", "output=two.safetensors")
    assert read(place / "one.safetensors").keys() == read(place / "two.safetensors").keys() and Path(again.strip()).is_dir()
    other = json.loads(
        said(capsys, "merge", f"recipe={folder / 'recipe.yaml'}", "params.alpha=0.9", "output=x.safetensors", "dry_run=true", "--json")
    )
    assert other["recipe"]["params"] == {"alpha": 0.9}
    assert other["recipe"]["sources"][0]["sha256"]  # the sources stay pinned
    written(place / "b.safetensors", tensors(9))
    assert "are not those of the recipe" in refused(capsys, "merge", f"recipe={folder / 'recipe.yaml'}", "output=y.safetensors")


def test_a_dry_run_makes_nothing(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    text = said(capsys, "merge", "preset=style_mix", BOTH, "output=mix.safetensors", "dry_run=true")
    assert "keys merged" in text and "about" in text
    plain = json.loads(
        said(capsys, "lora", "fuse", "base.safetensors", "--adapter", "ink.safetensors", "--output", "f.safetensors", "--dry-run", "--json")
    )
    assert plain["coverage"]["share"] == 1.0
    assert sorted(path.name for path in place.iterdir()) == [
        "a.safetensors",
        "b.safetensors",
        "base.safetensors",
        "hat.safetensors",
        "ink.safetensors",
    ]


@pytest.mark.slow
def test_what_a_new_user_would_try_is_answered(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    reported = refused(capsys, "merge", "method=weighted_sum", "sources=[a.safetensors,ink.safetensors]", "output=a.safetensors")
    assert "is an adapter, not a checkpoint" in reported and "exists already" in reported
    assert "Did you mean 'params.density'?" in refused(capsys, "merge", "method=ties", BOTH, "params.densty=0.3")
    assert "Did you mean 'weighted_sum'" in refused(capsys, "merge", "method=weighted_sums", BOTH, "output=x.safetensors")
    assert "method must be given" in refused(capsys, "merge", BOTH)
    assert "a checkpoint was expected as the base" in refused(
        capsys, "lora", "fuse", "ink.safetensors", "--adapter", "base.safetensors", "--output", "x.safetensors"
    )
    assert "must be exact or a whole number" in refused(
        capsys, "lora", "combine", "ink.safetensors", "--rank", "few", "--output", "x.safetensors"
    )
    assert "Give how much to keep" in refused(capsys, "lora", "resize", "ink.safetensors", "--output", "x.safetensors")


def test_numbers_out_of_range_are_refused(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    fuse = ("lora", "fuse", "base.safetensors", "--adapter", "ink.safetensors", "--output", "out.safetensors")
    assert "--coverage must be from 0 to 1, got nan." in refused(capsys, *fuse, "--coverage", "nan")
    assert "--threads must be from 1 to 256, got 0." in refused(capsys, *fuse, "--threads", "0")


@pytest.mark.slow
def test_adapters_from_the_command_line(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    adapters = ("ink.safetensors:0.5", "hat.safetensors:-1")
    result = json.loads(said(capsys, "lora", "combine", *adapters, "--output", "sum.safetensors", "--json"))
    assert set(result["ranks"].values()) == {4}
    said(capsys, "lora", "fuse", "base.safetensors", "--adapter", "+".join(adapters), "--output", "one.safetensors")
    said(capsys, "lora", "fuse", "base.safetensors", "--adapter", "sum.safetensors", "--output", "two.safetensors")
    one, two = read(place / "one.safetensors"), read(place / "two.safetensors")
    assert all((value - two[name]).abs().max() < 1e-5 for name, value in one.items())
    said(capsys, "lora", "extract", "one.safetensors", "base.safetensors", "--rank", "4", "--dtype", "fp32", "--output", "back.safetensors")
    assert "cosine of the whole change: " in said(capsys, "lora", "diff", "sum.safetensors", "ink.safetensors", code=1)
    assert json.loads(said(capsys, "lora", "diff", "sum.safetensors", "sum.safetensors", "--json"))["same"]
    said(capsys, "lora", "resize", "sum.safetensors", "--energy", "0.9", "--output", "small.safetensors")
    assert "down_blocks_0" in said(capsys, "lora", "inspect", "small.safetensors")
    assert (
        main(["lora", "inspect", "small.safetensors", "--image", "absent/blocks.png"]) == 2
        and "there is no folder" in capsys.readouterr().err
    )
    assert main(["lora", "inspect", "small.safetensors", "--image", "blocks.txt"]) == 2 and ".png" in capsys.readouterr().err
    tree = said(capsys, "registry", "lineage", "back")
    assert "source: " in tree and "base: " in tree


def test_what_is_left_out_is_in_the_success_line(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    strange = "lora_unet_up_blocks_3_attentions_0_proj_in"
    values = read(place / "ink.safetensors") | {"other": torch.zeros(2)}
    values |= {f"{strange}.lora_down.weight": torch.ones(2, 4), f"{strange}.lora_up.weight": torch.ones(4, 2)}
    written(place / "more.safetensors", values)
    fused = said(
        capsys, "lora", "fuse", "base.safetensors", "--adapter", "more.safetensors", "--coverage", "0.5", "--output", "one.safetensors"
    )
    assert f"NOT applied: 1 module that the base has not, the first: {strange}" in fused
    assert "NOT applied: 1 key of no module, the first: more: other" in fused
    summed = said(capsys, "lora", "combine", "more.safetensors:0.5", "--output", "sum.safetensors")
    assert "NOT in it: 1 key of no module, the first: more: other" in summed


def test_an_extraction_answers_what_it_does_not_hold(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    """The layer changes by 4 in squares, the bias by 12."""
    base = read(place / "base.safetensors")
    tuned = {name: tensor.clone() for name, tensor in base.items()}
    tuned[f"{CONV}.weight"][0, 0, 0, 0] += 2.0
    tuned[f"{CONV}.bias"][:3] += 2.0
    written(place / "tuned.safetensors", tuned)
    words = ("lora", "extract", "tuned.safetensors", "base.safetensors", "--rank", "1", "--output")
    kept = "25.00% of the change is kept, 75.00% lies in what is not written: 75.00% in biases (--biases writes them)"
    assert kept in said(capsys, *words, "plain.safetensors")
    assert "100.00% of the change is kept, 0.00% lies in what is not written\n" in said(capsys, *words, "whole.safetensors", "--biases")
