"""Whether the numbers on the disk are finite, from their exponents: no tensor is made, and torch is not needed."""

from __future__ import annotations

from pathlib import Path

from registry.formats.safetensors_header import read_header
from registry.printable import counted, some
from registry.tensors.layout import Stored
from registry.tensors.mmap_files import MappedFiles

PIECE = 1 << 22  # bytes looked at at once: flat memory however large a tensor is
EXPONENTS = {  # dtype -> (unsigned integer of its size, bits that are all set in NaN and infinity alone)
    "F64": ("<u8", 0x7FF0_0000_0000_0000),
    "F32": ("<u4", 0x7F80_0000),
    "BF16": ("<u2", 0x7F80),
    "F16": ("<u2", 0x7C00),
    "F8_E5M2": ("<u1", 0x7C),
    "F8_E4M3": ("<u1", 0x7F),  # it has no infinity, and one NaN of each sign
}


def is_finite(stored: Stored, maps: MappedFiles) -> bool:
    """Whether none of a tensor's numbers is NaN or infinite; numbers of other dtypes cannot be."""
    if stored.parts:
        return all(is_finite(part, maps) for part in stored.parts)
    if stored.info.dtype not in EXPONENTS:
        return True
    import numpy

    kind, exponent = EXPONENTS[stored.info.dtype]
    for begin in range(0, stored.bytes, PIECE):
        values = numpy.frombuffer(maps.raw(stored, begin, min(begin + PIECE, stored.bytes)), dtype=kind)
        if bool(((values & exponent) == exponent).any()):
            return False
    return True


def number_faults(path: Path) -> list[str]:
    """The sentence for a safetensors file with numbers that are none, of which whatever it is applied to gets more; all of it is read."""
    header, maps = read_header(path), MappedFiles([path])
    stored = {name: Stored(path, header.data_start + header.offsets[name][0], info) for name, info in header.tensors.items()}
    bad = [name for name, one in stored.items() if not is_finite(one, maps)]
    if not bad:
        return []
    have = f"{len(bad)} of its {counted(len(stored), 'tensor')} {'has' if len(bad) == 1 else 'have'}"
    return [f"{have} numbers that are NaN or infinite: {some(bad)}. Take another file of it."]
