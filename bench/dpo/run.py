"""Votes of a known taste, an adapter that learns from them, and a new blind vote of the same voter between base and adapter.

    OMP_NUM_THREADS=1 python -m bench.dpo.run OUT ["less saturated" "larger figure"]

On `pocket` at 64 pixels: every prompt is drawn at three strengths of guidance and two seeds, the voter votes 120 times on them, and the
adapter is drawn on prompts that were neither voted on nor trained.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from bench.dpo.voter import TASTES, pixels_of, vote
from train.pocket.prompts import PLAIN

VOTES, SIDE, SAMPLING = 120, 64, 12
TRAINED, ASKED = PLAIN[:24:2], PLAIN[1:32:2]  # 12 and 16 prompts
STEPS, LR = 50, 1e-3
BETA = 200.0  # latents of 16 x 16 x 4: over sums this is as strict as 3200 on those of 64 x 64 x 4


def main(out: Path, tastes: list[str]) -> None:
    os.environ.setdefault("LORALOOM_HOME", str(out / "home"))
    from registry.store import Store

    store = Store()
    begun = time.process_time()
    drawn = _draw("voted", out, store, prompt=TRAINED, seed=[1, 2], guidance=[1.5, 4.0, 8.0])
    print(f"drawn in {time.process_time() - begun:.0f} CPU s", flush=True)
    for taste in tastes:
        row = one(taste, drawn, out, store)
        row["cpu_seconds"] = round(time.process_time() - begun)
        (out / f"{taste.replace(' ', '-')}.json").write_text(json.dumps(row, indent=1))
        print(json.dumps(row, indent=1), flush=True)


def one(taste: str, drawn: Path, out: Path, store: Any) -> dict[str, Any]:
    """Vote, train, draw, vote again."""
    from infer.vote.finished import read_grid
    from infer.vote.ranking.rank import rank_grids, read_ballots

    word = taste.replace(" ", "-")
    folder = Path(shutil.copytree(drawn, out / f"voted-{word}", dirs_exist_ok=True))
    (folder / "votes.jsonl").unlink(missing_ok=True)
    cast = vote(folder, ("seed", "guidance"), taste, VOTES)
    result = _train(word, folder, out, store)
    again = _draw(f"asked-{word}", out, store, prompt=ASKED, seed=[11], adapter=["none", word])
    (again / "votes.jsonl").unlink(missing_ok=True)
    vote(again, ("adapter",), taste, 2 * len(ASKED), seed=1)
    grid = read_grid(again)
    ranking = rank_grids([grid], read_ballots([grid])[0]).to_json()
    pair = next(row for row in ranking["pairs"])
    _sheet(again, out / f"{word}.png")
    return {
        "taste": taste,
        "votes": cast,
        "preferences": result["preferences"],
        "verdict": result["verdict"]["kind"],
        "drift": result["verdict"]["drift"],
        "sentences": result["sentences"],
        "asked": {"verdict": ranking["verdict"], "pair": pair},
    }


def _draw(name: str, out: Path, store: Any, **axes: Any) -> Path:
    from infer.grid.config import Axes, GridConfig
    from infer.grid.job import render_grid

    config = GridConfig(name=name, base="pocket", axes=Axes(**axes), size=SIDE, steps=SAMPLING, out=str(out / "grids"), device="cpu")
    folder: Path = render_grid(config, store=store).folder
    return folder


def _train(name: str, votes: Path, out: Path, store: Any) -> dict[str, Any]:
    from train import run
    from train.config import (
        CheckpointConfig,
        DataConfig,
        HeldoutConfig,
        LoraConfig,
        ObjectiveConfig,
        ObjectiveParams,
        OptimConfig,
        PreviewConfig,
        TrainConfig,
    )

    config = TrainConfig(
        name=name,
        data=DataConfig(preferences=str(votes)),
        objective=ObjectiveConfig(name="dpo", params=ObjectiveParams(dpo_beta=BETA)),
        resolution=SIDE,
        steps=STEPS,
        lora=LoraConfig(rank=8),
        optim=OptimConfig(lr=LR),
        checkpoint=CheckpointConfig(every=STEPS),
        heldout=HeldoutConfig(share=0.2, every=STEPS),
        preview=PreviewConfig(prompts=["a cat"], steps=SAMPLING, every=STEPS),
        device="cpu",
        out=str(out / "runs"),
    )
    found: dict[str, Any] = run.run(config, store, out=lambda line: print(line, flush=True)).result
    return found


def _sheet(folder: Path, path: Path) -> None:
    """The base above, the adapter below, a column for each prompt, eight a row."""
    import numpy
    from PIL import Image

    from infer.vote.finished import read_grid

    rows: dict[str, list[Any]] = {}
    for cell in read_grid(folder).cells:
        assert cell.image is not None
        rows.setdefault(cell.values["adapter"], []).append(pixels_of(cell.image.read_bytes()))
    bands = [numpy.hstack(images[begin : begin + 8]) for begin in range(0, len(ASKED), 8) for images in rows.values()]
    Image.fromarray((numpy.vstack(bands) * 255).astype("uint8")).save(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute(), sys.argv[2:] or list(TASTES))
