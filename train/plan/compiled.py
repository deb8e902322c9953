"""Compiled blocks in a plan: whether this machine can compile, which blocks there are, and what the first steps take."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from registry.architectures.compiled import compiled_blocks
from registry.errors import Refused
from registry.family import Family
from registry.parts import Parts
from train.config import TrainConfig

if TYPE_CHECKING:
    import torch

COMPILED_FOR = ("cpu", "cuda")


def check_compiler(config: TrainConfig, device: torch.device) -> None:
    """Refuse a device that no code is compiled for, and a machine without the compiler for it. Raises Refused."""
    if config.compile is None:
        return
    if device.type not in COMPILED_FOR:
        raise Refused(f"compile=blocks: blocks are compiled for {' and '.join(COMPILED_FOR)}, and this is {device}. Leave compile out.")
    missing = _no_triton() if device.type == "cuda" else _no_cpp_compiler()
    if missing is not None:
        raise Refused(f"compile=blocks: {missing}. Install it, or leave compile out.")


def _no_triton() -> str | None:
    from torch.utils._triton import has_triton

    return None if has_triton() else "torch compiles for a GPU with triton, which is not installed or does not know this one"


def _no_cpp_compiler() -> str | None:
    from torch._inductor import cpp_builder, exc

    try:
        cpp_builder.get_cpp_compiler()
    except exc.InvalidCxxCompiler:
        return "torch compiles for the CPU with a C++ compiler, and there is none (g++ or clang++)"
    return None


def kinds_of_blocks(family: Family, parts: Parts) -> Counter[str]:
    """How many blocks there are of each kind."""
    return Counter(type(block).__name__ for block in compiled_blocks(family, parts.denoiser).values())


def compile_notes(config: TrainConfig) -> Iterator[str]:
    """What is not as without."""
    if config.compile is None:
        return
    yield (
        "compile=blocks: the first steps, the first held-out loss and the first previews wait while a block of each kind is compiled, and"
        " each new size of images compiles again; the estimates of time and memory are those of blocks that are not compiled"
    )
    if config.base_dtype is not None and config.compute is None:
        yield f"compile=blocks with base_dtype={config.base_dtype}: each weight is dequantised in a kernel of its own before its product"


def compile_rows(config: TrainConfig, kinds: Counter[str]) -> list[tuple[str, str]]:
    """The plan's row."""
    if config.compile is None:
        return []
    return [("compile", f"{', '.join(f'{count} {name}' for name, count in kinds.items())}: one code for each kind")]
