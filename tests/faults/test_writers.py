"""Eight processes that write at once, to one index or to one output: everything that was accepted is there, once, and nothing else."""

import json
import sqlite3
from pathlib import Path

import pytest

from tests.faults.jobs import Ended, finish, left_over, start
from tests.faults.kills import index_faults
from tests.registry.adapters import made_adapters

WRITERS = 8


def at_once(home: Path, folder: Path, jobs: list[list[object]]) -> list[Ended]:
    processes = [start(home, *words, folder=folder) for words in jobs]
    return [finish(process) for process in processes]


@pytest.mark.slow
def test_one_index(tmp_path: Path) -> None:
    """Four add and name, two scan and hash the same folder, one tags, one collects garbage."""
    home, models = tmp_path / "home", tmp_path / "models"
    for number in range(40):
        made_adapters.lora(models / f"m{number:02d}.safetensors", number * 10)
    (first,) = at_once(home, tmp_path, [["registry", "add", models / "m39.safetensors", "--name", "first"]])
    assert first.code == 0, first.printed
    jobs: list[list[object]] = [
        ["registry", "add", models / f"m{number:02d}.safetensors", "--name", f"ink{number}", "--tag", "line"] for number in range(4)
    ]
    jobs += [["registry", "scan", models, "--hash"], ["registry", "scan", models, "--hash"]]
    jobs += [["registry", "tag", "first", "tagged"], ["registry", "gc", "--apply", "--missing"]]
    assert len(jobs) == WRITERS
    for ended in at_once(home, tmp_path, jobs):
        assert ended.code == 0 and not ended.faulty, ended.printed
    (listed,) = at_once(home, tmp_path, [["registry", "list", "--json"]])
    found = {record["name"]: record for record in json.loads(listed.printed) if record["kind"] == "adapter"}
    names = {f"m{number:02d}" for number in range(4, 39)} | {f"ink{number}" for number in range(4)} | {"first"}
    assert len(found) == 40 and found.keys() == names
    assert all(record["hashes"]["sha256"] for record in found.values())
    assert all(found[f"ink{number}"]["tags"] == ["line"] for number in range(4)) and found["first"]["tags"] == ["tagged"]
    assert index_faults(home) == [] and left_over(home) == []


@pytest.mark.slow
def test_one_output(tmp_path: Path) -> None:
    """One merge writes it; the seven others are refused; the index has the recipe of the bytes that are there."""
    from registry.formats.safetensors_header import read_header
    from registry.merging.job import RECIPE_KEY

    one, other = (made_adapters.checkpoint(tmp_path / f"{seed}.safetensors", seed) for seed in (1, 2))
    home, output = tmp_path / "home", tmp_path / "m.safetensors"
    jobs: list[list[object]] = [
        ["merge", "method=weighted_sum", f"sources=[{one},{other}]", f"params.alpha=0.{number + 1}", f"output={output}"]
        for number in range(WRITERS)
    ]
    ended = at_once(home, tmp_path, jobs)
    assert sorted(one.code for one in ended) == [0, *[2] * (WRITERS - 1)], [one.printed for one in ended]
    assert not any(one.faulty for one in ended)
    refused = [one.printed for one in ended if one.code == 2]
    assert all("is being written by another process" in text or "exists already" in text for text in refused), refused
    alpha = f"0.{[one.code for one in ended].index(0) + 1}"
    assert json.loads(read_header(output).metadata[RECIPE_KEY])["params"] == {"alpha": float(alpha)}
    with sqlite3.connect(home / "index.sqlite") as connection:
        (recipe,) = [json.loads(row[0]) for row in connection.execute("SELECT recipe FROM given WHERE recipe IS NOT NULL")]
    assert recipe["params"] == {"alpha": float(alpha)}
    assert index_faults(home) == [] and left_over(tmp_path) == []
