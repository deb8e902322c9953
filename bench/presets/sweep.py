"""The settings of the presets style, character and concept, searched by Optuna (TPE with two values) on pocket.

    python -m bench.presets.sweep OUT style 16        16 trials in all; those in OUT/style.db are not run again

Both values are measured at the last step and are shares of the base's own: the held-out loss, and beside it what the preset must not
do: for a style the distance of the previews to the held-out images, for a character or a concept the rise of the loss of generic
captions (drift). The first trial has LoRA Loom's defaults at a rate for pocket. Chosen is the trial with the lowest second value among
those whose held-out loss is within CLOSE of the lowest. OUT/KIND.md: every trial.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

SETS = Path(__file__).parents[2] / "datasets"
CLOSE = 0.01  # of the base's loss
GENERIC = ("a red apple", "a house", "a cat", "a blue car")
STEPS, BATCH = 100, 4
FIRST = {"targets": "attention", "rank": 16, "lr": 2e-3, "schedule": "cosine", "weighting": "none", "caption_dropout": 0.0}
KINDS: dict[str, tuple[str, int | None, str | None]] = {  # set, training images (None: all), trigger
    "style": ("ink", None, None),
    "character": ("blob", None, "blob"),
    "concept": ("blob", 8, "blob"),
}


def pairs(kind: str, out: Path) -> Path:
    """The training pairs of a kind, with the set's held-out ones."""
    name, count, _ = KINDS[kind]
    place = out / f"set-{kind}"
    if not place.exists():
        shutil.copytree(SETS / name, place)
        for image in sorted(place.glob("*.png"))[count:] if count else ():
            image.unlink()
            image.with_suffix(".txt").unlink()
    return place


def drawn(trial: Any) -> dict[str, Any]:
    """The searched settings of a trial."""
    return {
        "targets": trial.suggest_categorical("targets", ["attention", "attention_mlp", "convolutions"]),
        "rank": trial.suggest_categorical("rank", [4, 8, 16, 32]),
        "lr": trial.suggest_float("lr", 3e-4, 8e-3, log=True),
        "schedule": trial.suggest_categorical("schedule", ["cosine", "constant"]),
        "weighting": trial.suggest_categorical("weighting", ["none", "min_snr"]),
        "caption_dropout": trial.suggest_categorical("caption_dropout", [0.0, 0.1]),
    }


def measured(kind: str, number: int, chosen: Mapping[str, Any], out: Path) -> tuple[float, float]:
    """Train once: held-out loss and the second value, shares of the base's."""
    from train.config import TrainConfig, changed
    from train.run import train_lora

    place, trigger = pairs(kind, out), KINDS[kind][2]
    settings: dict[str, Any] = {
        "name": f"{kind}-{number}",
        "data.path": str(place),
        "data.trigger": trigger,
        "seed": 0,
        "steps": STEPS,
        "batch_size": BATCH,
        "device": "cpu",
        "out": str(out / "runs"),
        "heldout.every": STEPS // 2,
        "checkpoint.every": STEPS,
        "preview.steps": 12,
        "heldout.generic": [] if kind == "style" else list(GENERIC),
        "lora.targets": chosen["targets"],
        "lora.rank": chosen["rank"],
        "optim.lr": chosen["lr"],
        "optim.betas": [0.9, 0.99],
        "schedule.name": chosen["schedule"],
        "objective.weighting": chosen["weighting"],
        "data.caption_dropout": chosen["caption_dropout"],
    }
    if kind != "style":
        settings["preview.prompts"] = []
    result = train_lora(changed(TrainConfig(), settings)).result
    verdict, heldout = result["verdict"], result["heldout"]
    loss = heldout["final"] / heldout["base"]
    if kind != "style":
        return loss, float(verdict["drift"]["share"])
    return loss, float(verdict["style"]["steps"][str(STEPS)]) / float(verdict["style"]["base"])


def best_of(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The trial that is chosen."""
    lowest = min(row["loss"] for row in rows)
    return min((row for row in rows if row["loss"] <= lowest + CLOSE), key=lambda row: (row["second"], row["number"]))


def table(kind: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Every trial, the chosen one in bold."""
    second = "style distance" if kind == "style" else "drift"
    lines = [
        f"| trial | targets | rank | optim.lr | schedule | weighting | caption dropout | held-out loss | {second} |",
        "|" + "---|" * 9,
    ]
    chosen = best_of(rows)["number"]
    for row in rows:
        own = [row["targets"], row["rank"], f"{row['lr']:.2g}", row["schedule"], row["weighting"], row["caption_dropout"]]
        cells = [str(row["number"]), *map(str, own), f"{row['loss']:.3f}", f"{row['second']:+.3f}"]
        lines.append("| " + " | ".join(f"**{cell}**" if row["number"] == chosen else cell for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def main(out: Path, kind: str, trials: int) -> None:
    """Run what is missing of the study, and write its table."""
    import optuna

    out.mkdir(parents=True, exist_ok=True)
    os.environ["LORALOOM_HOME"] = str(out / "home")
    sampler = optuna.samplers.TPESampler(seed=0, n_startup_trials=6)
    study = optuna.create_study(
        directions=["minimize", "minimize"], sampler=sampler, study_name=kind, storage=f"sqlite:///{out / kind}.db", load_if_exists=True
    )
    if not study.trials:
        study.enqueue_trial(FIRST)
    while (done := len(study.get_trials(states=(optuna.trial.TrialState.COMPLETE,)))) < trials:
        study.optimize(lambda trial: measured(kind, trial.number, drawn(trial), out), n_trials=1)
        print(f"{kind}: {done + 1} of {trials}", flush=True)
        rows = [
            {"number": one.number, **one.params, "loss": one.values[0], "second": one.values[1]}
            for one in study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))
        ]
        (out / f"{kind}.md").write_text(table(kind, rows), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute(), sys.argv[2], int(sys.argv[3]))
