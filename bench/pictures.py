"""The pictures of README and docs, made anew by the commands that stand above them.

    python -m bench.pictures --work /tmp/pictures [--only style compare]

A block of commands runs where it names a grid or run (`name=`), or where a picture follows it in its section; a picture is the sheet of the
last grid before it. `docs/grid.png` is that of `loraloom demo`, `curves.png` that of the run `ink`; `report.png` is a photograph of a page;
those of the Studio are made by bench/studio/pictures.py.
What has run in the work folder is not run again. Look at each picture before it is committed.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "docs/steering.md", "docs/grids.md")
PIECES = re.compile(
    r"^```(?P<kind>sh|python)\n(?P<code>.*?)^```$|^!\[[^\]]*\]\((?P<picture>[^)]+)\)$|^(?P<heading>#+ [^\n]*)$", re.M | re.S
)
GRID = re.compile(r"loraloom grid name=([\w-]+)")


@dataclass(frozen=True)
class Block:
    """Code to run, and the pictures that its grid makes: (name of the grid, file)."""

    kind: str
    code: str
    pictures: tuple[tuple[str, Path], ...]


def blocks_of(page: Path) -> list[Block]:
    """The blocks of a page that run, in their order."""
    found: list[Block] = []
    waiting: list[tuple[str, str]] = []  # of this section, without a picture yet
    for piece in PIECES.finditer(page.read_text(encoding="utf-8")):
        if piece["heading"]:
            found += [Block(kind, code, ()) for kind, code in waiting if "name=" in code]
            waiting = []
        elif piece["code"]:
            waiting.append((piece["kind"], piece["code"]))
        elif names := GRID.findall("".join(code for _kind, code in waiting)):
            *before, (kind, code) = waiting
            found += [Block(*one, ()) for one in before if one[0] == "python" or "name=" in one[1]]
            found.append(Block(kind, code, ((names[-1], page.parent / piece["picture"]),)))
            waiting = []
    return found


def run(block: Block, work: Path) -> None:
    """Run the commands of a block in the work folder, as a reader would, but for those that have run there before."""
    environment = {**os.environ, "LORALOOM_HOME": str(work / "home"), "PYTHONPATH": str(ROOT)}
    for code in [block.code] if block.kind == "python" else re.split(r"(?<!\\)\n", block.code.strip()):
        mark = work / "done" / hashlib.sha256(code.encode()).hexdigest()
        if not mark.exists():
            script = f"loraloom() {{ '{sys.executable}' -m loraloom \"$@\"; }}\n{code}"
            command = ["bash", "-c", script] if block.kind == "sh" else [sys.executable, "-c", code]
            subprocess.run(command, cwd=work, env=environment, check=True)
            mark.touch()


def newest(work: Path, name: str, file: str) -> Path:
    """The file of the newest run of that name."""
    return max((work / "runs" / name).glob(f"*/{file}"))


def keep(sheet: Path, picture: Path) -> None:
    """Write a sheet as a picture of the docs, in 256 colours: a page loads several of them."""
    with Image.open(sheet) as opened:
        opened.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(picture, "PNG", optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for runs and their home; kept")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="grids to draw: what they are drawn with is made too")
    arguments = parser.parse_args()
    work = arguments.work.absolute()
    (work / "done").mkdir(parents=True, exist_ok=True)
    if not (work / "datasets").exists():
        (work / "datasets").symlink_to(ROOT / "datasets")
    made = [("demo", ROOT / "docs" / "grid.png"), ("ink", ROOT / "docs" / "images" / "curves.png")]
    pages = [block for page in PAGES for block in blocks_of(ROOT / page)]
    for block in [Block("sh", "loraloom demo --out demo\n", (made[0],)), *pages]:
        if arguments.only and block.pictures and not {name for name, _file in block.pictures} & {*arguments.only}:
            continue
        run(block, work)
        for name, file in block.pictures:
            sheet = newest(work, name, "sheet.png") if name != "demo" else max((work / "demo").glob("**/sheet.png"))
            keep(sheet, file)
            print(f"{file.relative_to(ROOT)}: {sheet}", flush=True)
    if not arguments.only:
        keep(newest(work, "ink", "curves.png"), made[1][1])


if __name__ == "__main__":
    main()
