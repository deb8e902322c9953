"""An image made elsewhere as the grid's folder has it: its pixels as a PNG, a line of cells.jsonl, and what the report shows of it."""

from __future__ import annotations

import io
import json
from pathlib import Path

from infer.draw.files import ImageFile
from infer.draw.input_images import InputImages
from infer.grid.image_names import image_name
from infer.output.gallery import OUTSIDE, CellImage
from infer.outside.column import OutsideCell
from registry.files.write_failure import make_folder
from registry.formats.atomic_file import atomic_file

ABSENT = "absent"  # the status of a cell without an image in its folder


def outside_image(cell: OutsideCell, folder: Path, images: InputImages) -> CellImage:
    """The cell as it is shown; its image is written into the grid's folder, at its own size, in sRGB, without its metadata."""
    if cell.match is None:
        return CellImage(
            place=cell.place,
            key=cell.key,
            status=ABSENT,
            path=None,
            settings={"prompt": cell.prompt},
            error=f"{cell.name} has no image of it",
        )
    image = cell.match.image
    path = folder / "images" / image_name({"outside": cell.name} | {name: one for name, one in cell.values.items() if name != cell.column})
    if not path.is_file():
        whole = io.BytesIO()
        images.image(ImageFile(path=str(image.path), sha256=image.sha256)).save(whole, "PNG", compress_level=6)
        make_folder(path.parent)
        with atomic_file(path, needed=len(whole.getvalue())) as file:
            file.write(whole.getvalue())
    settings = {
        "prompt": cell.prompt,
        "made elsewhere": cell.name,
        "file": image.path.name,
        "size": f"{cell.size[0]}x{cell.size[1]}",
        "matched by": cell.match.by,
        "shown in votes": _fitted(cell),
    }
    details = {"folder": str(image.path.parent), "file sha256": image.sha256} | {f"its {name}": text for name, text in image.texts.items()}
    return CellImage(place=cell.place, key=cell.key, status=OUTSIDE, path=path, settings=settings, details=details)


def _fitted(cell: OutsideCell) -> str:
    return f"at {cell.box[0]}x{cell.box[1]}, as the drawn images are, without metadata"


def outside_line(cell: OutsideCell, image: CellImage, folder: Path) -> str:
    """Its line of cells.jsonl."""
    found = cell.match
    entry = {
        "key": cell.key,
        "render": None,
        "image": image.path.relative_to(folder).as_posix() if image.path else None,
        "status": image.status,
        "seconds": 0.0,
        "scores": dict(image.scores),
        "axes": dict(cell.values),
        "error": image.error,
        "outside": {
            "name": cell.name,
            "column": cell.column,
            "prompt": cell.prompt,
            "box": list(cell.box),
            "file": None if found is None else str(found.image.path),
            "sha256": None if found is None else found.image.sha256,
            "size": list(cell.size),
            "matched_by": None if found is None else found.by,
            "metadata": {} if found is None else dict(found.image.texts),
        },
    }
    return json.dumps(entry, ensure_ascii=False, default=str) + "\n"
