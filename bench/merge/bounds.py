"""What two rows of the README cannot do without, in CPU seconds of one thread: the least that exact results of the same bytes cost.

OMP_NUM_THREADS=1 python -m bench.merge.bounds dare /tmp/models       # the draws of DARE, the hashes of its output, its reads
OMP_NUM_THREADS=1 python -m bench.merge.bounds svd /tmp/lokr.safetensors    # the singular values of a LoKr's second factors
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from time import process_time

import numpy
import torch
from blake3 import blake3
from safetensors import safe_open

from registry.adapters.factors import first_spectrum
from registry.tensors.chunks import BLOCK

BUFFER = 8 << 20  # bytes


def timed(work: Callable[[], object]) -> float:
    began = process_time()
    work()
    return process_time() - began


def repeat(count: int, work: Callable[[], object]) -> None:
    for _ in range(count):
        work()


def read(path: Path) -> None:
    buffer = bytearray(BUFFER)
    with open(path, "rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def dare(folder: Path) -> dict[str, float]:
    """Of a base and two models: 32 random bits for each value of both, the hashes of one file, the reads of three."""
    files = sorted(folder.glob("*.safetensors"))[:3]
    size = files[0].stat().st_size
    stream, buffer = numpy.random.Philox(0), numpy.random.Philox(0).random_raw(BUFFER // 8).tobytes()
    return {
        "draws": timed(lambda: repeat(size // BLOCK, lambda: stream.random_raw(BLOCK // 2))),  # two sources, two bytes a value
        "reads": sum(timed(lambda path=path: read(path)) for path in files),  # type: ignore[misc]
        "sha256": timed(lambda: repeat(size // BUFFER, lambda: sha256(buffer))),
        "blake3": timed(lambda: repeat(size // BUFFER, lambda: blake3(buffer))),
    }


def svd(path: Path) -> dict[str, float]:
    """Of every second factor, in fp64: the decomposition, its values alone, these of the triangle that a QR leaves of a tall one, and the
    eigenvectors of the smaller Gram matrix, from which the first values and vectors are found here (`first`, of rank 32)."""
    found: Counter[str] = Counter()
    with safe_open(path, "pt") as file:
        shapes: dict[tuple[int, ...], list[str]] = {}
        for name in (name for name in file.keys() if name.endswith("lokr_w2")):  # noqa: SIM118  # no mapping
            shapes.setdefault(tuple(file.get_slice(name).get_shape()), []).append(name)
        for names in shapes.values():
            matrix = file.get_tensor(names[0]).double()
            tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T.contiguous()
            found["svd"] += len(names) * timed(lambda one=matrix: torch.linalg.svd(one, full_matrices=False))  # type: ignore[misc]
            found["values alone"] += len(names) * timed(lambda one=matrix: torch.linalg.svdvals(one))  # type: ignore[misc]
            found["values alone, QR first"] += len(names) * timed(
                lambda one=tall: torch.linalg.svdvals(torch.linalg.qr(one, mode="r")[1])  # type: ignore[misc]
            )
            gram = tall.T @ tall
            found["Gram matrices"] += len(names) * timed(lambda one=tall: one.T @ one)  # type: ignore[misc]
            found["their eigenvectors"] += len(names) * timed(lambda one=gram: torch.linalg.eigh(one))  # type: ignore[misc]
            found["first"] += len(names) * timed(lambda one=matrix: first_spectrum(one, 32))  # type: ignore[misc]
    return dict(found)


if __name__ == "__main__":
    torch.set_num_threads(1)
    result = {"dare": dare, "svd": svd}[sys.argv[1]](Path(sys.argv[2]))
    print(", ".join(f"{name} {seconds:.1f}" for name, seconds in result.items()))
