"""What is learned by loraloom and by diffusers' train_text_to_image_lora.py from equal data, steps, rank and learning rate.

    python -m bench.learning.compare OUT --script train_text_to_image_lora.py --python PYTHON --seeds 5

The script is given by its path (examples/text_to_image of diffusers), with an interpreter that has torchvision beside the rest. Sets: ink
(a style) and blob (a character's look), each with its own held-out images, on pocket. Each side trains in a process of its own, one thread;
finished runs in OUT are not trained again. Both are judged by bench/learning/judge.py, which uses diffusers alone. OUT/table.md: means over
seeds, and the paired difference with its 95 % interval (Student's t over seeds).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SETS = Path(__file__).resolve().parents[2] / "datasets"
RANK, BATCH, SIDE = 16, 4, 64
RUNS = {"ink": (300, 1e-3), "blob": (150, 1e-3)}  # steps, learning rate (constant)
MEASURES = ("loss", "style", "colour")


@dataclass(frozen=True)
class Case:
    """One training: a set, a side and a seed."""

    data: str
    side: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.data}-{self.side}-{self.seed}"


def pairs(data: str, out: Path) -> Path:
    """The training images of a set as an imagefolder: what both sides read. ours reads NAME.txt, the script metadata.jsonl."""
    place = out / "sets" / data
    if not place.exists():
        place.mkdir(parents=True)
        rows = []
        for image in sorted((SETS / data).glob("*.png")):
            caption = image.with_suffix(".txt").read_text(encoding="utf-8").strip()
            shutil.copy(image, place)
            rows.append({"file_name": image.name, "text": caption})
        (place / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return place


def train_ours(case: Case, place: Path, out: Path) -> None:
    """The same settings by name; no previews, no held-out measurements."""
    from train.config import TrainConfig, changed
    from train.run import train_lora

    steps, lr = RUNS[case.data]
    settings = {"name": case.name, "data.path": str(place), "seed": case.seed, "steps": steps, "batch_size": BATCH, "resolution": SIDE}
    settings |= {"lora.rank": RANK, "optim.lr": lr, "schedule.name": "constant", "schedule.warmup": 0.0, "preview.prompts": []}
    settings |= {"device": "cpu", "out": str(out / "runs"), "checkpoint.every": steps}
    files = train_lora(changed(TrainConfig(), settings)).result["files"]
    shutil.copy(Path(files["diffusers"]), out / f"{case.name}.safetensors")


def train_theirs(case: Case, place: Path, out: Path, peer: tuple[str, Path]) -> None:
    """diffusers' script with the same numbers."""
    from registry.home import pocket_dir

    steps, lr = RUNS[case.data]
    folder = out / "runs" / case.name
    given: dict[str, Any] = {
        "pretrained_model_name_or_path": pocket_dir(),
        "train_data_dir": place,
        "cache_dir": folder / "cache",
        "caption_column": "text",
        "resolution": SIDE,
        "train_batch_size": BATCH,
        "max_train_steps": steps,
        "learning_rate": lr,
        "lr_scheduler": "constant",
        "lr_warmup_steps": 0,
        "rank": RANK,
        "seed": case.seed,
        "checkpointing_steps": steps + 1,
        "output_dir": folder,
    }
    words = [f"--{name}={value}" for name, value in given.items()]
    python, script = peer
    subprocess.run([python, "-m", "bench.learning.peer", str(script), *words], check=True)
    shutil.copy(folder / "pytorch_lora_weights.safetensors", out / f"{case.name}.safetensors")


def measured(case: Case, out: Path, peer: tuple[str, Path]) -> dict[str, float]:
    """The judgement of a case, which is trained first unless it was."""
    kept = out / f"{case.name}.json"
    if not kept.exists():
        place = pairs(case.data, out)
        weights = out / f"{case.name}.safetensors"
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        if case.side != "base" and not weights.exists():
            words = [str(out), "--python", peer[0], "--script", str(peer[1]), "--train", case.data, case.side, str(case.seed)]
            child(["bench.learning.compare", *words], out)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        child(["bench.learning.judge", str(SETS / case.data / "heldout"), "none" if case.side == "base" else str(weights), str(kept)], out)
        found = json.loads(kept.read_text(encoding="utf-8")) | {"cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime}
        kept.write_text(json.dumps(found), encoding="utf-8")
        print(case.name, found, place, flush=True)
    return dict(json.loads(kept.read_text(encoding="utf-8")))


def child(words: list[str], out: Path) -> None:
    """A module in a process of its own, one thread, with a home of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "LORALOOM_HOME": str(out / "home"), "HF_HUB_OFFLINE": "1"}
    with (out / "log.txt").open("a", encoding="utf-8") as log:
        subprocess.run([sys.executable, "-m", *words], env=environment, check=True, stdout=log, stderr=log)


def table(out: Path, peer: tuple[str, Path], seeds: int) -> str:
    """One row a set and measure."""
    from scipy.stats import t

    lines = ["| set | measure | base | diffusers' script | ours | ours - script, 95 % interval |", "|---|---|---|---|---|---|"]
    for data in RUNS:
        base = measured(Case(data, "base", 0), out, peer)
        rows = [(measured(Case(data, "theirs", seed), out, peer), measured(Case(data, "ours", seed), out, peer)) for seed in range(seeds)]
        for name in (*MEASURES, "cpu"):
            theirs, ours = (sum(pair[side][name] for pair in rows) / seeds for side in (0, 1))
            gaps = [pair[1][name] - pair[0][name] for pair in rows]
            mean = sum(gaps) / seeds
            deviation = (sum((gap - mean) ** 2 for gap in gaps) / (seeds - 1)) ** 0.5
            half = float(t.ppf(0.975, seeds - 1)) * deviation / seeds**0.5
            shown = "" if name == "cpu" else f"{base[name]:.4f}"
            lines.append(f"| {data} | {name} | {shown} | {theirs:.4f} | {ours:.4f} | {mean:+.4f} ± {half:.4f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--script", type=Path, required=True, help="diffusers' examples/text_to_image/train_text_to_image_lora.py")
    parser.add_argument("--python", default=sys.executable, help="the interpreter that runs the script")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--train", nargs=3, metavar=("SET", "SIDE", "SEED"), help="train one case, in this process")
    given = parser.parse_args()
    out = given.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    peer = (given.python, given.script.absolute())
    if given.train:
        case = Case(given.train[0], given.train[1], int(given.train[2]))
        place = pairs(case.data, out)
        train_ours(case, place, out) if case.side == "ours" else train_theirs(case, place, out, peer)
        return
    found = table(out, peer, given.seeds)
    (out / "table.md").write_text(found, encoding="utf-8")
    print(found)


if __name__ == "__main__":
    main()
