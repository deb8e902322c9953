"""What the readers of other programs get of our images: `pip install piexif sd-parsers`, then python -m bench.metadata.written IMAGE...

piexif is how A1111 reads JPEG and WebP; sd-parsers reads the same from PNG. A row is equal where both have our own `parameters`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from infer.output.png import read_png


def by_piexif(path: Path) -> str:
    """UserComment as modules/images.py of A1111 reads it."""
    import piexif
    import piexif.helper
    from PIL import Image

    with Image.open(path) as image:
        exif = piexif.load(image.info["exif"])
    comment = exif.get("Exif", {}).get(piexif.ExifIFD.UserComment, b"")
    return str(piexif.helper.UserComment.load(comment))


def by_sd_parsers(path: Path) -> Any:
    """The samplers that sd-parsers finds in an image."""
    from sd_parsers import ParserManager

    return ParserManager().parse(path)


def main(paths: list[str]) -> None:
    """Print a row for each image."""
    for path in map(Path, paths):
        ours = read_png(path).parameters
        equal = "" if path.suffix == ".png" else f"piexif: {'equal' if by_piexif(path) == ours else 'DIFFERENT'}"
        found = by_sd_parsers(path)
        sampler = found.samplers[0] if found and found.samplers else None
        shown = None if sampler is None else (sampler.name, sampler.parameters.get("seed"), [str(one.value) for one in sampler.prompts])
        print(f"{path.name:24}{equal:20}sd-parsers: {shown}")


if __name__ == "__main__":
    main(sys.argv[1:])
