"""ICC profiles made of published primaries: what cameras and phones put into their files."""

import struct

# XYZ of the primaries, adapted to D50, as the published profiles hold them.
ADOBE_RGB = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
DISPLAY_P3 = ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))
SRGB = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410))
D50 = (0.9642, 1.0, 0.8249)
SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)  # IEC 61966-2-1
ADOBE_CURVE = (563 / 256,)


def rgb_profile(name: str, primaries: tuple[tuple[float, ...], ...], curve: tuple[float, ...]) -> bytes:
    """A matrix and curve profile of an RGB space (ICC.1:2001-04, 6.3.1.2)."""
    points = {f"{letter}XYZ": _xyz(point) for letter, point in zip("rgb", primaries, strict=True)}
    return _profile(b"RGB ", name, points | {f"{letter}TRC": _curve(curve) for letter in "rgb"})


def gray_profile(name: str, gamma: float) -> bytes:
    """A profile of a grey space with a gamma (ICC.1:2001-04, 6.3.1.1)."""
    return _profile(b"GRAY", name, {"kTRC": _curve((gamma,))})


def adobe_rgb() -> bytes:
    return rgb_profile("Adobe RGB (1998)", ADOBE_RGB, ADOBE_CURVE)


def display_p3() -> bytes:
    return rgb_profile("Display P3", DISPLAY_P3, SRGB_CURVE)


def _fixed(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))


def _xyz(point: tuple[float, ...]) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(map(_fixed, point))


def _curve(parameters: tuple[float, ...]) -> bytes:
    kind = 0 if len(parameters) == 1 else 3
    return b"para\0\0\0\0" + struct.pack(">HH", kind, 0) + b"".join(map(_fixed, parameters))


def _described(text: str) -> bytes:
    data = text.encode("ascii") + b"\0"
    return b"desc\0\0\0\0" + struct.pack(">I", len(data)) + data + bytes(4 + 4 + 2 + 1 + 67)


def _profile(space: bytes, name: str, tags: dict[str, bytes]) -> bytes:
    every = {"desc": _described(name), "cprt": b"text\0\0\0\0none\0", "wtpt": _xyz(D50), **tags}
    table, body, offset = b"", b"", 128 + 4 + 12 * len(every)
    for tag, data in every.items():
        padded = data + bytes(-len(data) % 4)
        table += tag.encode("ascii") + struct.pack(">II", offset + len(body), len(data))
        body += padded
    size = offset + len(body)
    header = struct.pack(">I4sI4s4s4s", size, b"none", 0x04300000, b"mntr", space, b"XYZ ") + bytes(12) + b"acsp" + bytes(28)
    header += b"".join(map(_fixed, D50))
    return header + bytes(128 - len(header)) + struct.pack(">I", len(every)) + table + body
