"""An axis of VAEs beside one grid for each of them: every image is denoised once, and decoded by each VAE.

    OMP_NUM_THREADS=1 .venv/bin/python -m bench.grid.vae_axis --vaes 4 --cells 12 --steps 20

The grids for each VAE are what one pays without the axis: they start from an empty home each. CPU seconds without imports, `pocket`.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def main() -> None:
    """Draw both ways, and print CPU seconds and denoiser calls."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--vaes", type=int, default=4)
    parser.add_argument("--cells", type=int, default=12)
    parser.add_argument("--steps", type=int, default=20)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    with tempfile.TemporaryDirectory() as work:
        vaes = [make_vae(Path(work) / f"vae{number}", 1 + 0.02 * number) for number in range(arguments.vaes)]
        _draw(Path(work) / "warm", vaes[:1], 1, 1)
        apart = [_draw(Path(work) / f"apart{number}", [vae], arguments.cells, arguments.steps) for number, vae in enumerate(vaes)]
        axis = _draw(Path(work) / "axis", vaes, arguments.cells, arguments.steps)
        later = _draw(Path(work) / "apart0", vaes, arguments.cells, arguments.steps)
    seconds, calls = sum(one[0] for one in apart), sum(one[1] for one in apart)
    print(f"{arguments.vaes} grids of {arguments.cells} cells, {arguments.steps} steps: {seconds:.1f} s, {calls:,} denoiser calls")
    print(f"one axis of {arguments.vaes} VAEs: {axis[0]:.1f} s, {axis[1]:,} calls: {seconds / axis[0]:.2f} times cheaper")
    print(f"the axis once its first VAE was drawn: {later[0]:.1f} s, {later[1]:,} calls")


def make_vae(folder: Path, factor: float) -> str:
    """`pocket`'s VAE with its decoder's weights times a factor."""
    from safetensors.torch import load_file, save_file

    from registry.home import pocket_dir

    shutil.copytree(pocket_dir() / "vae", folder)
    (file,) = folder.glob("*.safetensors")
    save_file({name: weight * factor if "decoder" in name else weight for name, weight in load_file(file).items()}, file)
    return str(folder)


def _draw(home: Path, vaes: Sequence[str], cells: int, steps: int) -> tuple[float, int]:
    """CPU seconds and denoiser calls of a grid of seeds x VAEs."""
    from infer.grid.config import Axes, GridConfig
    from infer.grid.job import run
    from registry.store import Store

    began = time.process_time()
    store = Store(home)
    axes: dict[str, Any] = {"seed": f"1-{cells}", "vae": list(vaes)}
    outcome = run(GridConfig(prompt="a cat", steps=steps, guidance=5.0, out=str(home / "runs"), axes=Axes(**axes)), store)
    store.close()
    assert not outcome.result["failed"]
    return time.process_time() - began, int(outcome.result["forwards"])


if __name__ == "__main__":
    main()
