"""The loss of `pocket` on held-out images with its weights in each dtype: what quantising costs before anything is trained.

    OMP_NUM_THREADS=1 python -m bench.quantised.heldout          prints the table

The held-out images of datasets/ink and datasets/blob, each at the timesteps and with the noise of a run's own held-out loss. Differences
are paired: the same image, timesteps and noise; +- is the 95 % interval of their mean over the images.
"""

from __future__ import annotations

import math
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from registry.progress import silent
from registry.store import Store
from train.config import DataConfig, HeldoutConfig, LoraConfig, Precision, PreviewConfig, TrainConfig

SETS = ("ink", "blob")
ROWS: tuple[tuple[str, Precision, str | None, str | None], ...] = (
    ("fp32", Precision.fp32, None, None),
    ("bf16", Precision.bf16, None, None),
    ("int8", Precision.fp32, "int8", None),
    ("fp8", Precision.fp32, "fp8", None),
    ("nf4", Precision.fp32, "nf4", None),
    ("text encoder int8", Precision.fp32, None, "int8"),
    ("text encoder nf4", Precision.fp32, None, "nf4"),
    ("nf4, text encoder int8", Precision.fp32, "nf4", "int8"),
)


def prepared(images: Path, place: Path) -> Any:
    """A run on the bare base that is ready: its adapter has no effect before the first step, and is not on the models measured."""
    from train.execute import make_accelerator
    from train.loop.prepare import prepare
    from train.output.folder import make_folder
    from train.output.inputs import inputs_of
    from train.run import plan

    config = TrainConfig(
        name="q",
        data=DataConfig(path=str(images)),
        resolution=64,
        steps=1,
        lora=LoraConfig(rank=1),
        heldout=HeldoutConfig(generic=[]),
        preview=PreviewConfig(prompts=[]),
        precision=Precision.fp32,
        device="cpu",
        out=str(place / "runs"),
    )
    store = Store(place / "home")
    made = plan(config, store)
    folder = make_folder(made.config, "q", inputs_of(made, store))
    return prepare(made, folder, make_accelerator(made), report=silent, out=lambda _line: None)


def losses(work: Any, precision: Precision, base: str | None, text: str | None) -> tuple[list[float], dict[str, Any]]:
    """(mean loss of every held-out image, weight errors by component) of a base loaded so."""
    from registry.quantised.errors import weight_error
    from train.loop.cache import Cache
    from train.loop.encode import encode_texts
    from train.plan.base import load, precision_dtype

    state, plan = work.state, work.plan
    config = replace(plan.config, precision=precision, base_dtype=base, text_encoder_dtype=text)
    parts = load(plan.base, config, dtype=precision_dtype(precision))
    modules = {plan.base.family.denoiser: parts.denoiser, **parts.text_encoders}
    errors = {name: error for name, module in modules.items() if (error := weight_error(module)) is not None}
    texts = encode_texts(plan.base.family, parts, plan.heldout_prompts, device=state.device, cache=Cache("texts"), report=silent)
    state.parts.denoiser, state.precision = parts.denoiser, precision
    table = replace(work.probe.heldout, texts=texts).table(state, model=state.model)
    return [float(value) for value in table.mean(dim=1)], errors


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        works = {name: prepared(Path("datasets") / name, Path(scratch)) for name in sys.argv[1:] or SETS}
        print("| weights | " + " | ".join(f"{name}: loss | difference to fp32" for name in works) + " | weight error (worst layer) |")
        print("|---" * (2 + 2 * len(works)) + "|")
        first: dict[str, list[float]] = {}
        for title, precision, base, text in ROWS:
            cells, errors = [], {}
            for name, work in works.items():
                found, errors = losses(work, precision, base, text)
                apart = [one - other for one, other in zip(found, first.setdefault(name, found), strict=True)]
                cells.append(f"{mean(found):.5f} | {mean(apart):+.5f} +- {1.96 * stdev(apart) / math.sqrt(len(apart)):.5f}")
            shown = "; ".join(f"{key} {error.error:.2%} ({error.worst:.2%})" for key, error in errors.items())
            print(f"| {title} | {' | '.join(cells)} | {shown or '-'} |", flush=True)


if __name__ == "__main__":
    main()
