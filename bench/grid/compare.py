"""A grid of 4 adapters x 4 weights x 3 samplers x 4 prompts, beside two loops over diffusers' pipeline.

    OMP_NUM_THREADS=1 .venv/bin/python -m bench.grid.compare pocket --steps 12

The contenders alternate, one adapter (48 cells) at a time, each in a process of its own; each loads the base anew for every part. CPU
seconds are the figure to read, with all that a contender does: loading, encoding, decoding, files; `loraloom grid` its plan, sheet and
report, too. `--before FOLDER` draws the same grids with the code of another checkout.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from bench.grid.contenders import Drawn, Grid, naive, ours, tuned

PROMPTS = ("a red apple", "a blue fish", "a cat", "a yellow car")
SAMPLERS = ("euler", "dpmpp_2m_karras", "ddim")
WEIGHTS = (0.25, 0.5, 0.75, 1.0)
LOOPS: dict[str, Callable[[Grid], Drawn]] = {
    "naive": naive,
    "tuned": partial(tuned, batched=False),
    "tuned, prompts batched": partial(tuned, batched=True),
}


def main() -> None:
    """Draw, and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("base", choices=("pocket", "sdxl"), help="the embedded base, or a tiny SDXL of random weights")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--adapters", type=int, default=4)
    parser.add_argument("--widths", type=int, nargs="+", default=[16])
    parser.add_argument("--ours", action="store_true", help="without the loops: what is beside the denoiser")
    parser.add_argument("--before", type=Path, help="another checkout of loraloom, whose grids are drawn beside ours")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as home, ExitStack() as stack:
        grid = _grid(arguments.base, arguments.adapters, arguments.steps, Path(home))
        contenders = {} if arguments.ours else {name: _Contender(draw) for name, draw in LOOPS.items()}
        for width in arguments.widths if arguments.ours else (1, *arguments.widths):
            contenders[f"ours, batch_size={width}"] = _Contender(partial(ours, batch_size=width, name=f"ours-{width}"))
            if arguments.before is not None and width > 1:
                before = partial(ours, batch_size=width, name=f"before-{width}")
                contenders[f"before, batch_size={width}"] = _Contender(before, code=arguments.before.resolve())
        for contender in contenders.values():
            stack.callback(contender.close)
            contender.draw(_warm_up(grid))
        found: dict[str, list[Drawn]] = {name: [] for name in contenders}
        for turn, adapter in enumerate(grid.adapters):
            for name in list(contenders)[:: 1 if turn % 2 == 0 else -1]:
                found[name].append(contenders[name].draw(grid.only(adapter)))
                print(f"{adapter}, {name}: {found[name][-1].seconds:.1f} s", flush=True)
        _table(grid, found)
        repeat = contenders[f"ours, batch_size={arguments.widths[0]}"].draw(grid)
        print(f"\nall {len(grid.cells)} cells again: {repeat.calls} denoiser calls, {repeat.seconds:.1f} s")


class _Contender:
    """One way to draw, in a process of its own: what one sets for its process (how glibc keeps memory) is not the others'."""

    def __init__(self, draw: Callable[[Grid], Drawn], *, code: Path | None = None) -> None:
        """`code`: the checkout whose `infer` and `registry` are imported; None: this one."""
        self._draw = draw
        self._process = ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_begin, initargs=(code,))

    def draw(self, grid: Grid) -> Drawn:
        return self._process.submit(self._draw, grid).result()

    def close(self) -> None:
        self._process.shutdown()


def _begin(code: Path | None) -> None:
    warnings.filterwarnings("ignore")
    if code is not None:
        sys.path.insert(0, str(code))


def _grid(base: str, adapters: int, steps: int, home: Path) -> Grid:
    from registry.home import pocket_dir
    from tests.tiny import shared_folder, tiny_adapter

    folder, family, size = (pocket_dir(), "sd1", 64) if base == "pocket" else (shared_folder("sdxl"), "sdxl", 32)
    files = {}
    for seed in range(adapters):
        name = f"adapter{seed}"
        files[name] = tiny_adapter(folder, home / f"{name}.safetensors", family=family, rank=8, strength=0.05, seed=seed)
    return Grid(
        base=folder,
        family=family,
        adapters=files,
        weights=WEIGHTS,
        samplers=SAMPLERS,
        prompts=PROMPTS,
        steps=steps,
        guidance=5.0,
        size=size,
        home=home,
    )


def _warm_up(grid: Grid) -> Grid:
    """Two cells, for imports and first calls."""
    return replace(
        grid.only(next(iter(grid.adapters))),
        weights=(1.0,),
        samplers=SAMPLERS[:1],
        prompts=PROMPTS[:2],
        steps=2,
        home=grid.home / "warm",
    )


def _table(grid: Grid, found: dict[str, list[Drawn]]) -> None:
    seconds = {name: sum(one.seconds for one in drawn) for name, drawn in found.items()}
    loops = [name for name in LOOPS if name in found]
    reference = {place: image for one in found.get("tuned", ()) for place, image in one.images.items()}
    print(f"\n{len(grid.cells)} cells, {grid.steps} steps\n")
    columns = (
        "",
        "CPU s",
        *(f"x {name.split()[-1]}" for name in loops),
        "denoiser calls",
        "CPU s in the denoiser",
        "in VAE and text encoder",
        "the rest, of the denoiser's",
        *(("apart from tuned, of 255", "values apart") if reference else ()),
    )
    print(f"| {' | '.join(columns)} |")
    print(f"|{'---|' * len(columns)}")
    for name, drawn in found.items():
        own = {place: image for one in drawn for place, image in one.images.items()}
        inside, others = sum(one.denoiser for one in drawn), sum(one.others for one in drawn)
        rest = seconds[name] - inside - others
        cells = [
            name,
            f"{seconds[name]:.1f}",
            *(f"{seconds[name] / seconds[loop]:.2f}" for loop in loops),
            f"{sum(one.calls for one in drawn):,}",
            f"{inside:.1f} ({inside / seconds[name]:.0%})",
            f"{others:.1f}",
            f"{rest:.1f} ({rest / inside:.0%})",
            *(_apart(own, reference) if reference else ()),
        ]
        print(f"| {' | '.join(cells)} |")


def _apart(own: dict[Any, Any], reference: dict[Any, Any]) -> tuple[str, str]:
    assert own.keys() == reference.keys()
    differences = [abs(image - reference[place]) for place, image in own.items()]
    return str(max(int(one.max()) for one in differences)), f"{sum(float((one > 0).mean()) for one in differences) / len(differences):.3%}"


if __name__ == "__main__":
    main()
